//! TLS over a socket: a rustls session, its records read and written here.
//!
//! A session keeps what the socket didn't take. Whoever writes therefore flushes before waiting for something else; every
//! read does so as well.

use std::{
    io::{self, BufRead as _, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::Connection as Session;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// An established TLS connection.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    session: Session,
    /// We have said that we are done.
    said_goodbye: bool,
}

impl TlsStream {
    /// A session on its socket.
    #[must_use]
    pub const fn new(socket: TcpStream, session: Session) -> Self {
        Self { socket, session, said_goodbye: false }
    }

    /// The socket. What goes over it isn't for us to read.
    #[must_use]
    pub const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// What was agreed on.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Carries the handshake to its end.
    ///
    /// # Errors
    /// The socket's, `UnexpectedEof` when the other side went away, or `InvalidData` with the reason that was told to it.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.session.wants_write() {
                ready!(self.poll_send(cx))?;
            }
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// `Ready` when there are bytes, the end or an error to be read.
    ///
    /// # Errors
    /// The socket's, or that of the session.
    pub fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.session.wants_write()
                && let Poll::Ready(Err(error)) = self.poll_send(cx)
            {
                return Poll::Ready(Err(error));
            }
            let state = self.session.process_new_packets().map_err(invalid)?;
            if state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether bytes have arrived, asking the kernel.
    pub fn has_arrived(&mut self) -> bool {
        self.take_what_is_there();
        self.session.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }

    /// Nothing to read and not closed. Tickets and the like, which come by themselves, are taken in.
    pub fn is_quiet(&mut self) -> bool {
        self.take_what_is_there()
            && self
                .session
                .process_new_packets()
                .is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed())
    }

    /// Reads without waiting; whether the socket is still open.
    fn take_what_is_there(&mut self) -> bool {
        loop {
            match self.session.read_tls(&mut AtOnce(&self.socket)) {
                Ok(0) => return false,
                Ok(_) => match self.session.process_new_packets() {
                    Ok(state) if state.plaintext_bytes_to_read() == 0 => {}
                    Ok(_) | Err(_) => return true,
                },
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Sends records once.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = Polled { socket: &mut self.socket, cx };
        match self.session.write_tls(&mut socket) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Receives records once; 0 = the socket has ended.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut socket = Polled { socket: &mut self.socket, cx };
        let read = match self.session.read_tls(&mut socket) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if let Err(error) = self.session.process_new_packets() {
            // The alert that says why; whether it arrives is not ours to care for.
            drop(self.poll_send(cx));
            return Poll::Ready(Err(invalid(error)));
        }
        Poll::Ready(Ok(read))
    }

    /// Takes what has been deciphered. Copied piece by piece: the session's own `read` wants room that is initialised, and
    /// HTTP/2's isn't (zeroing it was a tenth of a request's instructions there).
    fn take(&mut self, into: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut reader = self.session.reader();
        let before = into.filled().len();
        while into.remaining() > 0 {
            let piece = match reader.fill_buf() {
                Ok(piece) => piece,
                // The next call tells the rest of it.
                Err(_) if into.filled().len() > before => break,
                Err(error) => return Err(error),
            };
            if piece.is_empty() {
                break;
            }
            let n = piece.len().min(into.remaining());
            into.put_slice(&piece[..n]);
            reader.consume(n);
        }
        Ok(())
    }

    fn poll_put(
        &mut self,
        cx: &mut Context<'_>,
        put: impl FnOnce(&mut rustls::Writer<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send_all(cx))?;
        let put = put(&mut self.session.writer())?;
        // What the socket doesn't take now goes with the next write, flush or read; an error shows there again.
        drop(self.poll_send_all(cx));
        Poll::Ready(Ok(put))
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.session.wants_write()
                && let Poll::Ready(Err(error)) = this.poll_send_all(cx)
            {
                return Poll::Ready(Err(error));
            }
            match this.take(into) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Requests are framed: a visitor who just goes away can't cut one short unseen. An answer may be unframed.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(match this.session {
                        Session::Server(_) => Ok(()),
                        Session::Client(_) => Err(error),
                    });
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(this.poll_receive(cx))?;
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_put(cx, |writer| writer.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_put(cx, |writer| writer.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send_all(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.said_goodbye, true) {
            this.session.send_close_notify();
        }
        ready!(this.poll_send_all(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

/// The socket as rustls reads and writes it; `Pending` is `WouldBlock`.
struct Polled<'a, 'b> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl io::Read for Polled<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut into = ReadBuf::new(into);
        or_would_block(Pin::new(&mut *self.socket).poll_read(self.cx, &mut into))?;
        Ok(into.filled().len())
    }
}

impl io::Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The socket without waiting.
struct AtOnce<'a>(&'a TcpStream);

impl io::Read for AtOnce<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}
