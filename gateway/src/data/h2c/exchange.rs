//! One stream of a shared connection, as the request path sees it: a conversation in HTTP/1.1.

use std::{
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Carrier, Untouched,
    answer::{Answer, Asked},
    request::{Framing, translate},
};
use crate::{data::stream::Conversation, http1::RequestHead};

/// A request and its answer.
///
/// The stream begins when the head has been written. Dropped before both are over, it ends with `CANCEL`.
pub struct Exchange {
    carrier: Rc<Carrier>,
    stage: Stage,
    /// Written, and not complete enough to be understood.
    carry: Vec<u8>,
    /// Who waits for an answer to a request that hasn't been written yet.
    reader: Option<Waker>,
}

enum Stage {
    Head(Box<RequestHead>),
    Open(Box<Open>),
}

struct Open {
    up: SendStream<Bytes>,
    framing: Framing,
    answer: Answer,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begun = matches!(self.stage, Stage::Open(_));
        f.debug_struct("Exchange").field("begun", &begun).finish_non_exhaustive()
    }
}

impl Exchange {
    /// A stream to come on `carrier`, which counts it from now on.
    #[must_use]
    pub fn new(carrier: Rc<Carrier>) -> Self {
        carrier.enter();
        Self { carrier, stage: Stage::Head(Box::default()), carry: Vec::new(), reader: None }
    }

    /// Uses what stands in `bytes`: how much of it.
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stage {
            Stage::Head(head) => {
                let Some((used, translated)) = translate(head, bytes)? else { return Poll::Ready(Ok(0)) };
                let ends = matches!(translated.framing, Framing::None);
                let sent = self.carrier.send(translated.request, ends);
                // Whatever keeps it from being sent, the endpoint hasn't seen it.
                let (response, up) = sent
                    .map_err(|_ended| io::Error::new(io::ErrorKind::ConnectionRefused, Untouched::Closing))?;
                let asked = Asked {
                    head_only: translated.head_only,
                    websocket: translated.websocket,
                    timeout: translated.timeout,
                };
                let answer = Answer::new(response, asked);
                self.stage = Stage::Open(Box::new(Open { up, framing: translated.framing, answer }));
                if let Some(reader) = self.reader.take() {
                    reader.wake();
                }
                Poll::Ready(Ok(used))
            }
            Stage::Open(open) => open.framing.poll_send(cx, &mut open.up, bytes),
        }
    }

    /// As [`Self::poll_take`], for what was kept before.
    fn poll_take_carry(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut carry = std::mem::take(&mut self.carry);
        let end = loop {
            if carry.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match self.poll_take(cx, &carry) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Ok(())),
                Poll::Ready(Ok(n)) => drop(carry.drain(..n)),
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.carry = carry;
        end
    }
}

impl AsyncWrite for Exchange {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.carry.is_empty() {
            // A line in two pieces: rare, and short.
            ready!(this.poll_take_carry(cx))?;
            this.carry.extend_from_slice(bytes);
            if let Poll::Ready(Err(error)) = this.poll_take_carry(cx) {
                return Poll::Ready(Err(error));
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        let mut used = 0;
        while used < bytes.len() {
            match this.poll_take(cx, &bytes[used..]) {
                Poll::Ready(Ok(0)) => {
                    this.carry.extend_from_slice(&bytes[used..]);
                    used = bytes.len();
                }
                Poll::Ready(Ok(n)) => used += n,
                Poll::Ready(Err(error)) if used == 0 => return Poll::Ready(Err(error)),
                Poll::Pending if used == 0 => return Poll::Pending,
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(used))
    }

    /// The connection's task sends by itself.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_take_carry(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Stage::Open(open) = &mut self.get_mut().stage
            && matches!(open.framing, Framing::Raw)
        {
            open.framing = Framing::None;
            open.up.send_data(Bytes::new(), true).map_err(super::to_io)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Exchange {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.stage {
            Stage::Open(open) => open.answer.poll_read(cx, into),
            Stage::Head(_) => {
                this.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Conversation for Exchange {
    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stage {
            Stage::Open(open) => open.answer.poll_arrived(cx),
            Stage::Head(_) => {
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// What the endpoint still says isn't waited for.
    fn poll_rest(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn reset(&mut self) {
        if let Stage::Open(open) = &mut self.stage {
            open.up.send_reset(Reason::CANCEL);
        }
    }

    /// Another request is another stream.
    fn is_quiet(&mut self) -> bool {
        false
    }

    fn takes_websockets(&self) -> bool {
        self.carrier.takes_websockets()
    }

    fn grpc_status(&self) -> Option<u8> {
        match &self.stage {
            Stage::Open(open) => open.answer.grpc_status(),
            Stage::Head(_) => None,
        }
    }

    fn is_mended(&self) -> bool {
        match &self.stage {
            Stage::Open(open) => open.answer.is_mended(),
            Stage::Head(_) => false,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.carrier.leave();
    }
}
