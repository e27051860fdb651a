//! Visitors that can't be let in: they are told so at once, as far as that costs little.

use std::{io, os::fd::AsRawFd, rc::Rc, time::Duration};

use frp_gateway_config::model::Protocol;
use rustix::process::{Resource, getrlimit};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::spawn_local, time::timeout};

use super::{
    answer::{self, About},
    stream::reset_on_close,
    worker::Worker,
};
use crate::{error::Refusal, snapshot::Listener};

/// How long a visitor that is refused may take to send its request: what was sent and isn't read would reset the answer away.
const PATIENCE: Duration = Duration::from_millis(500);
/// Visitors of one worker that are told at a time; more are closed without a word.
const MOST_TOLD: u32 = 256;
/// The same, while descriptors are what there is too little of.
const MOST_TOLD_IN_NEED: u32 = 8;
/// Descriptors that visitors and endpoints leave for everything else: admin port, plugin, files. At most an eighth of all.
const RESERVED: u64 = 64;

/// Tells a visitor that there is no room, and closes.
pub fn busy(worker: &Rc<Worker>, stream: TcpStream, listener: &Listener, detail: &'static str) {
    let most = if is_scarce(&stream, Use::Visitor) { MOST_TOLD_IN_NEED } else { MOST_TOLD };
    listener.stats.of(worker.id).refused.inc();
    if let Some(suppressed) = worker.may_complain(detail) {
        tracing::warn!(listener = &*listener.name, suppressed, "connection refused: {detail}");
    }
    if listener.protocol != Protocol::Http {
        // Nothing that could be said would be understood: a reset is.
        reset_on_close(&stream);
        return;
    }
    if worker.told.get() >= most {
        return;
    }
    listener.stats.of(worker.id).own_answers[Refusal::Overloaded.index()].inc();
    worker.told.set(worker.told.get() + 1);
    let worker = Rc::clone(worker);
    spawn_local(async move {
        // A visitor who is gone needs no answer.
        drop(timeout(PATIENCE, tell(&worker, stream)).await);
        worker.told.set(worker.told.get() - 1);
    });
}

async fn tell(worker: &Worker, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = worker.buffers.small();
    let heard = loop {
        if memchr::memmem::find(buffer.filled(), b"\r\n\r\n").is_some() || buffer.is_full() {
            break Ok(());
        }
        match std::future::poll_fn(|cx| buffer.poll_fill(cx, &mut stream)).await {
            Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    worker.buffers.give_back(buffer);
    heard?;
    let request_id = worker.rng.borrow_mut().next_u64();
    stream.write_all(&answer::render(About::unrouted(Refusal::Overloaded, request_id))).await?;
    stream.shutdown().await
}

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A visitor: a quarter is left for endpoints.
    Visitor,
    /// An endpoint.
    Endpoint,
}

/// Whether a descriptor is one of the last for its use. Numbers are given lowest first, so a high one means that those below are taken.
///
/// One system call, per connection.
#[must_use]
pub fn is_scarce(descriptor: &impl AsRawFd, purpose: Use) -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return false };
    let reserved = RESERVED.min(limit / 8);
    let reserved = match purpose {
        Use::Visitor => reserved + limit / 4,
        Use::Endpoint => reserved,
    };
    u64::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number >= limit - reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_descriptors_are_not_scarce() {
        assert!(!is_scarce(&std::io::stdin(), Use::Visitor));
    }
}
