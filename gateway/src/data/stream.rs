//! What a request's bytes come and go over: a socket, TLS on one, or one of many conversations that share a connection.
//!
//! The request path reads and writes HTTP/1 on all of them. Both directions are polled by one task at a time, so the two
//! sides of a stream share it without a lock.

use std::{
    cell::RefCell,
    fmt, io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use super::tls_stream::TlsStream;

/// A connection as the request path sees it.
#[derive(Debug)]
pub enum Stream {
    /// A socket.
    Plain(TcpStream),
    /// TLS that ends here, or begins here.
    Tls(Box<RefCell<TlsStream>>),
    /// One exchange of a connection that carries many.
    Shared(Box<RefCell<dyn Conversation>>),
}

/// One exchange of a connection that carries many (HTTP/2), in the bytes of HTTP/1.
pub trait Conversation: AsyncRead + AsyncWrite + Unpin + fmt::Debug {
    /// `Ready` when there is something to read: bytes, the end, or an error, which the next read tells.
    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// `Ready` when the other side has sent all it has to; what still comes is for nobody.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// It doesn't end well: dropped from here on, it must not look whole to the other side.
    fn reset(&mut self);

    /// Whether it could carry another exchange after this one, and nothing has arrived for it.
    fn is_quiet(&mut self) -> bool;

    /// Whether the other side takes WebSockets here.
    fn takes_websockets(&self) -> bool {
        true
    }

    /// Whether what was read broke, and was ended in words that say so.
    fn is_mended(&self) -> bool {
        false
    }

    /// How gRPC says that what was read went.
    fn grpc_status(&self) -> Option<u8> {
        None
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}

impl From<TlsStream> for Stream {
    fn from(stream: TlsStream) -> Self {
        Self::Tls(Box::new(RefCell::new(stream)))
    }
}

impl Stream {
    /// Both directions, to be polled by turns.
    pub fn split(&mut self) -> (ReadSide<'_>, WriteSide<'_>) {
        match self {
            Self::Plain(socket) => {
                let (read, write) = socket.split();
                (ReadSide::Plain(read), WriteSide::Plain(write))
            }
            Self::Tls(stream) => (ReadSide::Tls(stream), WriteSide::Tls(stream)),
            Self::Shared(stream) => (ReadSide::Shared(stream), WriteSide::Shared(stream)),
        }
    }

    /// Our address, as the other side sees it.
    ///
    /// # Errors
    /// The socket is gone, or the conversation has none of its own.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(socket) => socket.local_addr(),
            Self::Tls(stream) => stream.borrow().socket().local_addr(),
            Self::Shared(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// `Ready` when there is something to read: bytes, the end, or an error, which the next read tells. Holds no buffer.
    pub fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(cx),
            Self::Tls(stream) => stream.borrow_mut().poll_arrived(cx),
            Self::Shared(stream) => stream.borrow_mut().poll_arrived(cx),
        }
    }

    /// Whether bytes have arrived that the reactor may not have told us of. One system call.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        match self {
            Self::Plain(socket) => {
                let mut byte = [MaybeUninit::uninit()];
                socket2::SockRef::from(socket).peek(&mut byte).is_ok_and(|length| length > 0)
            }
            Self::Tls(stream) => stream.borrow_mut().has_arrived(),
            Self::Shared(_) => false,
        }
    }

    /// Nothing to read and not closed, as far as the reactor knows: it may be used for another exchange.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Plain(socket) => {
                matches!(socket.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream) => stream.borrow_mut().is_quiet(),
            Self::Shared(stream) => stream.borrow_mut().is_quiet(),
        }
    }

    /// As [`Self::is_quiet`], but asks the kernel.
    #[must_use]
    pub fn is_surely_quiet(&self) -> bool {
        match self {
            Self::Plain(socket) => is_silent(socket),
            Self::Tls(stream) => is_silent(stream.borrow().socket()) && self.is_quiet(),
            Self::Shared(_) => self.is_quiet(),
        }
    }

    /// Makes the end a reset: what was sent must not look whole.
    pub fn reset_on_close(&self) {
        match self {
            Self::Plain(socket) => reset_on_close(socket),
            Self::Tls(stream) => reset_on_close(stream.borrow().socket()),
            Self::Shared(stream) => stream.borrow_mut().reset(),
        }
    }

    /// Whether the other side takes WebSockets here.
    #[must_use]
    pub fn takes_websockets(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Tls(_) => true,
            Self::Shared(stream) => stream.borrow().takes_websockets(),
        }
    }

    /// Whether what was read broke, and was ended in words that say so: it looks whole, but wasn't.
    #[must_use]
    pub fn is_mended(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Tls(_) => false,
            Self::Shared(stream) => stream.borrow().is_mended(),
        }
    }

    /// How gRPC says that what was read went, as far as it is known.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u8> {
        match self {
            Self::Plain(_) | Self::Tls(_) => None,
            Self::Shared(stream) => stream.borrow().grpc_status(),
        }
    }

    /// Says goodbye where the protocol has a word for it; doesn't wait for anything.
    pub fn say_goodbye(&self, cx: &mut Context<'_>) {
        match self {
            Self::Plain(_) => {}
            // What the socket doesn't take at once nobody waits for.
            Self::Tls(stream) => drop(Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx)),
            Self::Shared(stream) => drop(Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx)),
        }
    }
}

/// Makes the close of a socket a reset.
pub fn reset_on_close(socket: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "no SO_LINGER");
    }
}

/// Whether the kernel has neither bytes nor an end nor an error for us.
fn is_silent(socket: &TcpStream) -> bool {
    use rustix::{fd::AsFd, net::RecvFlags};
    let peeked = rustix::net::recv(socket.as_fd(), &mut [0u8], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(peeked, Err(rustix::io::Errno::AGAIN))
}

/// The direction towards us.
#[derive(Debug)]
pub enum ReadSide<'a> {
    /// Of a socket.
    Plain(ReadHalf<'a>),
    /// Of TLS.
    Tls(&'a RefCell<TlsStream>),
    /// Of a conversation.
    Shared(&'a RefCell<dyn Conversation>),
}

/// The direction away from us.
#[derive(Debug)]
pub enum WriteSide<'a> {
    /// Of a socket.
    Plain(WriteHalf<'a>),
    /// Of TLS.
    Tls(&'a RefCell<TlsStream>),
    /// Of a conversation.
    Shared(&'a RefCell<dyn Conversation>),
}

impl AsyncRead for ReadSide<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_read(cx, into),
            Self::Shared(stream) => Pin::new(&mut *stream.borrow_mut()).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for WriteSide<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_write(cx, bytes),
            Self::Shared(stream) => Pin::new(&mut *stream.borrow_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_write_vectored(cx, parts),
            Self::Shared(stream) => Pin::new(&mut *stream.borrow_mut()).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_flush(cx),
            Self::Shared(stream) => Pin::new(&mut *stream.borrow_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx),
            Self::Shared(stream) => Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream.get_mut()).poll_read(cx, into),
            Self::Shared(stream) => Pin::new(stream.get_mut()).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().split().1).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().split().1).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().1).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().split().1).poll_shutdown(cx)
    }
}
