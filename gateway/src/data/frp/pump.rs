//! Bytes between a client and its frps, until both have ended.

use std::{
    future::poll_fn,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::spawn_local,
    time::sleep,
};

use super::{
    Client, Introduction,
    dial::Dialed,
    hand_on::{self, Flow, Handed, Verdict},
    rival::{self, Socket},
};
use crate::{
    control::relays::{Carried, Kind, Registered, Relays},
    data::{
        buffer::{Buffer, Buffers, LARGE, SMALL},
        connection::Connection,
        io::{Elapsed, until, while_moving},
    },
    frp_wire::{Answer, First, Purpose, Records, answer},
};

/// Of frps's answer to a login, at most so much is looked at.
const ANSWER_MOST: usize = 4096;
/// A login takes no longer. A client that is cut in the middle of its first one gives up.
const LOGIN: Duration = Duration::from_millis(1500);
/// After one side has ended, the other may be silent for so long.
const HALF_CLOSED: Duration = Duration::from_secs(15);

/// Moves bytes until both sides have ended, one is broken, it is cut, or another process has it.
pub(super) async fn pump<S>(client: &Client<'_>, stream: S, introduction: Introduction, dialed: Dialed)
where
    S: AsyncRead + AsyncWrite + Unpin + Socket,
{
    let Dialed { upstream, answer, registered } = dialed;
    let Introduction { first, kind, head, .. } = introduction;
    let logs_in = matches!(kind, Kind::Control | Kind::ControlWithoutMux);
    let mut watch = Watch {
        relays: Arc::clone(client.relays()),
        id: registered.id,
        source: client.peer.ip(),
        kind,
        first,
        answer: logs_in.then(Vec::new),
        records: None,
    };
    if let First::Tls { custom_byte } = first {
        watch.records = Some(Records::default());
        watch.saw_client(&head[usize::from(custom_byte)..]);
    }
    drop(head);
    watch.saw_frps(&answer);
    let buffers = &client.connection.worker.buffers;
    let (up, down) = (Direction::default(), Direction::with(buffers, &answer));
    let relay = Relay { watch, up, down, probed: None, may_pass: !client.tls_ended };
    relay.run(client.connection, stream, upstream, registered).await;
}

/// Goes on where another process stopped.
pub(super) async fn resume(
    connection: &Connection,
    relays: &Arc<Relays>,
    handed: Handed,
    (stream, upstream): (TcpStream, TcpStream),
    registered: Registered,
) {
    let Handed { relay: Carried { kind, peer, .. }, flow } = handed;
    let watch = Watch {
        relays: Arc::clone(relays),
        id: registered.id,
        source: peer.ip(),
        kind,
        first: flow.first,
        answer: flow.answer,
        records: flow.records,
    };
    let buffers = &connection.worker.buffers;
    let (up, down) = (Direction::with(buffers, &flow.up), Direction::with(buffers, &flow.down));
    let probed = flow.probing.then(|| Instant::now() + rival::PROBE);
    let relay = Relay { watch, up, down, probed, may_pass: true };
    relay.run(connection, stream, upstream, registered).await;
}

/// A relayed connection beside its sockets.
struct Relay {
    watch: Watch,
    /// From the client.
    up: Direction,
    /// To it.
    down: Direction,
    /// Until when the client has to show that it is there.
    probed: Option<Instant>,
    /// It can go on in another process.
    may_pass: bool,
}

impl Relay {
    async fn run<S>(
        mut self,
        connection: &Connection,
        mut stream: S,
        mut upstream: TcpStream,
        registered: Registered,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Socket,
    {
        let buffers = &connection.worker.buffers;
        // On the heap: it is the least of what a connection waits for.
        let mut invited = Box::pin(hand_on::invited(&connection.worker.handing));
        let one_ended = loop {
            let (probed, may_pass) = (self.probed, self.may_pass);
            let Self { watch, up, down, .. } = &mut self;
            let step = poll_fn(|cx| {
                let watch = &mut *watch;
                let one =
                    up.poll(cx, buffers, (&mut stream, &mut upstream), &mut |bytes| watch.saw_client(bytes));
                let other =
                    down.poll(cx, buffers, (&mut upstream, &mut stream), &mut |bytes| watch.saw_frps(bytes));
                match (one, other) {
                    (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(false),
                    (Poll::Ready(Ok(())), _) | (_, Poll::Ready(Ok(()))) => Poll::Ready(true),
                    (Poll::Pending, Poll::Pending) => Poll::Pending,
                }
            });
            tokio::select! {
                ended = step => break ended,
                () = registered.cut.notified() => return,
                () = registered.probe.notified() => {
                    rival::probe(stream.tcp());
                    self.probed = Some(Instant::now() + rival::PROBE);
                }
                Err(Elapsed) = until(probed, std::future::pending::<()>()), if probed.is_some() => {
                    rival::relax(stream.tcp());
                    self.probed = None;
                }
                permit = &mut invited, if may_pass => {
                    self.may_pass = false;
                    // One that is ending ends here.
                    if let Some(handed) = self.handed()
                        && hand_on::offer(permit, handed, stream.tcp(), &upstream).await == Some(Verdict::Taken)
                    {
                        return;
                    }
                }
            }
        };
        if !one_ended {
            return;
        }
        // The session is over: its client may be back before it has closed this one.
        drop(registered);
        let Self { mut up, mut down, .. } = self;
        let rest = while_moving(HALF_CLOSED, |cx, moved| {
            let before = up.moved + down.moved;
            let one = up.poll(cx, buffers, (&mut stream, &mut upstream), &mut |_| {});
            let other = down.poll(cx, buffers, (&mut upstream, &mut stream), &mut |_| {});
            *moved += up.moved + down.moved - before;
            match (one, other) {
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
                _ => Poll::Pending,
            }
        });
        // Ended, or silent for too long: it is over either way.
        let (Ok(()) | Err(Elapsed)) = rest.await;
    }

    /// As another process is told of it; `None` when there isn't enough left of it.
    fn handed(&self) -> Option<Handed> {
        if self.up.ended || self.down.ended {
            return None;
        }
        let flow = Flow {
            first: self.watch.first,
            answer: self.watch.answer.clone(),
            records: self.watch.records.clone(),
            up: self.up.buffer.filled().to_vec(),
            down: self.down.buffer.filled().to_vec(),
            probing: self.probed.is_some(),
        };
        Some(Handed { relay: self.watch.relays.carried(self.watch.id)?, flow })
    }
}

/// What is learnt from bytes on their way.
struct Watch {
    relays: Arc<Relays>,
    id: u64,
    source: IpAddr,
    kind: Kind,
    first: First,
    /// The beginning of what frps says; `None` = there is nothing to learn from it (any more).
    answer: Option<Vec<u8>>,
    records: Option<Records>,
}

impl Watch {
    fn saw_frps(&mut self, bytes: &[u8]) {
        let Some(seen) = &mut self.answer else { return };
        seen.extend_from_slice(&bytes[..bytes.len().min(ANSWER_MOST - seen.len())]);
        match answer(self.first, seen) {
            Answer::NeedMore if seen.len() < ANSWER_MOST => {}
            Answer::In { run_id: Some(run_id) } => {
                // Before the client reads it: its work connections come at once.
                self.relays.logged_in(self.id, self.relays.hash(&run_id));
                self.answer = None;
            }
            Answer::NeedMore | Answer::In { run_id: None } | Answer::Refused | Answer::Other => {
                self.answer = None;
            }
        }
    }

    fn saw_client(&mut self, bytes: &[u8]) {
        let Some(records) = &mut self.records else { return };
        let purpose = records.feed(bytes);
        if purpose.is_some() || records.is_done() {
            self.records = None;
        }
        if let (Some(purpose), Kind::Opaque) = (purpose, self.kind) {
            self.kind = match purpose {
                Purpose::Mux => Kind::Control,
                Purpose::Login => Kind::ControlWithoutMux,
                Purpose::Work => Kind::Work,
            };
            self.relays.turned_out(self.id, self.kind);
            if self.kind == Kind::ControlWithoutMux {
                spawn_local(gather(Arc::clone(&self.relays), self.source));
            }
        }
    }
}

/// Brings clients without mux of one address together, those that are just logging in a moment later.
async fn gather(relays: Arc<Relays>, source: IpAddr) {
    while relays.gather(source, SystemTime::now(), LOGIN) > 0 {
        sleep(LOGIN).await;
    }
}

/// One direction; its end is passed on as a half-close. An idle one holds no buffer.
#[derive(Debug, Default)]
struct Direction {
    buffer: Buffer,
    filled_up: bool,
    unflushed: bool,
    ended: bool,
    shut: bool,
    moved: u64,
}

impl Direction {
    /// With bytes that were read already.
    fn with(buffers: &Buffers, bytes: &[u8]) -> Self {
        let mut buffer = Buffer::default();
        if bytes.len() > LARGE {
            buffer = Buffer::with_capacity(bytes.len());
        } else if bytes.len() > SMALL {
            buffer = buffers.large();
        } else if !bytes.is_empty() {
            buffer = buffers.small();
        }
        buffer.append(bytes);
        Self { buffer, ..Self::default() }
    }

    /// `Ready(Ok)` when the end was passed on.
    fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        (from, to): (&mut R, &mut W),
        seen: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.buffer.is_empty() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, self.buffer.filled()))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.buffer.consume(n);
                self.moved += n as u64;
                self.unflushed = true;
            }
            if self.ended {
                if !self.shut {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            if self.filled_up && self.buffer.capacity() <= SMALL {
                buffers.give_back(std::mem::replace(&mut self.buffer, buffers.large()));
            } else if self.buffer.capacity() == 0 {
                self.buffer = buffers.small();
            }
            match self.buffer.poll_fill(cx, from) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(n)) => {
                    self.filled_up = n == self.buffer.capacity();
                    seen(self.buffer.filled());
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    buffers.give_back(std::mem::take(&mut self.buffer));
                    self.filled_up = false;
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}
