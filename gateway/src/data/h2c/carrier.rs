//! One HTTP/2 connection to an endpoint.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::Request;
use lb_algos::Tick;
use tokio::{task::spawn_local, time::timeout};

use super::to_io;
use crate::{
    clock,
    data::{
        buffer::Buffer,
        h2::gather::{Gather, sending},
        stream::Stream,
    },
    snapshot::OpenConnection,
};

/// Most streams at once, however many the endpoint allows.
pub const MOST_STREAMS: u32 = 100;
/// What one answer may have on its way or here, unread. The way to an frpc is long: at 50 ms this carries 5 MB/s.
const STREAM_WINDOW: u32 = 256 * 1024;
/// As much as all streams together: one that nobody reads holds up no other.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST_STREAMS;
/// What one request may have here, unsent.
const SEND_BUFFER: usize = 128 * 1024;
/// Longest wait for an endpoint to take the last frames.
const FAREWELL: Duration = Duration::from_secs(1);
/// Largest response head, as for HTTP/1.
const HEAD_BYTES: u32 = 64 * 1024;

/// A connection that carries many requests.
pub struct Carrier {
    sender: RefCell<SendRequest<Bytes>>,
    streams: Cell<u32>,
    ended: Rc<Cell<bool>>,
    unused_since: Cell<Tick>,
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier")
            .field("streams", &self.streams)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Carrier {
    /// Begins HTTP/2 on `stream`, and waits until the endpoint has said what it allows. `open` counts for as long as the
    /// connection lasts.
    ///
    /// So an endpoint that speaks something else, or a tunnel with nobody behind it, is found before a request is sent.
    ///
    /// # Errors
    /// It broke, or the endpoint doesn't speak HTTP/2.
    pub async fn begin(stream: Stream, open: Option<OpenConnection>) -> io::Result<Rc<Self>> {
        let gather = Gather::new(stream, Buffer::default());
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEAD_BYTES)
            .handshake::<_, Bytes>(gather.clone())
            .await
            .map_err(to_io)?;
        let mut ping = connection.ping_pong().ok_or(io::ErrorKind::Unsupported)?;
        ping.send_ping(Ping::opaque()).map_err(to_io)?;
        // Its settings come before anything else.
        let greeted = poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                let why = ended.map_err(to_io).err();
                return Poll::Ready(Err(why.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())));
            }
            ping.poll_pong(cx).map_ok(drop).map_err(to_io)
        });
        sending(&gather, greeted).await?;
        let ended = Rc::new(Cell::new(false));
        let tell = Rc::clone(&ended);
        spawn_local(async move {
            if let Err(error) = sending(&gather, connection).await {
                tracing::debug!(%error, "connection to an endpoint ended");
            }
            tell.set(true);
            // The last frames say goodbye; whether they arrive changes nothing.
            drop(timeout(FAREWELL, gather.finish()).await);
            drop(open);
        });
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            streams: Cell::new(0),
            ended,
            unused_since: Cell::new(clock::now()),
        }))
    }

    /// Whether it can take one more request.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let allowed = self.sender.borrow().current_max_send_streams();
        (self.streams.get() as usize) < allowed.min(MOST_STREAMS as usize) && !self.is_ending()
    }

    /// Whether it takes no more requests: closed, broken, or the endpoint said so.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.ended.get() || matches!(self.sender.borrow_mut().poll_ready(&mut nobody), Poll::Ready(Err(_)))
    }

    /// Requests on it.
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.streams.get()
    }

    /// Since when it has carried none; of no meaning while it does.
    #[must_use]
    pub fn unused_since(&self) -> Tick {
        self.unused_since.get()
    }

    /// Whether the endpoint takes WebSockets (RFC 8441).
    #[must_use]
    pub fn takes_websockets(&self) -> bool {
        self.sender.borrow().is_extended_connect_protocol_enabled()
    }

    /// Counts a request.
    pub(super) fn enter(&self) {
        self.streams.set(self.streams.get() + 1);
    }

    /// A request is over.
    pub(super) fn leave(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.unused_since.set(clock::now());
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// The connection takes no more of them. Nothing has been sent.
    pub(super) fn send(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        // A handle of its own: who has to wait for the endpoint's limit must not be taken for the connection.
        let mut sender = self.sender.borrow().clone();
        sender.send_request(request, ends)
    }
}
