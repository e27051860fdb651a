//! The wait for a response head: the rest of the body flows meanwhile, the visitor is watched, a second attempt may begin.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use lb_algos::Tick;

use super::{
    attempt::{self, Attempt, Upstream},
    buffer::{Buffer, Buffers},
    exchange::{Body, Report, Scratch, Stop},
    h2c::{Untouched, untouched},
    hedge::{self, Lead, Rival},
    io::{Elapsed, earlier, until, write_both},
    outcome,
    relay::RelayError,
    stream::{ReadSide, Stream, WriteSide},
    watch::Watch,
};
use crate::{
    clock,
    error::Refusal,
    http1::RequestHead,
    snapshot::{InFlight, Listener},
    telemetry::stats::Failure,
};

/// Longest wait for `100 Continue` before the body is sent all the same. frps itself answers at once, without asking the
/// application; an endpoint that says nothing by then doesn't know the expectation.
const ASK_FIRST: Duration = Duration::from_millis(300);
/// When the endpoint stops taking the request, a response may already be on its way.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Not one byte of the request left.
    NothingSent,
    /// Nothing came back.
    Silence,
    /// Bytes of an answer came.
    Heard,
}

/// How far the request has got.
#[derive(Debug)]
pub struct Progress<'a> {
    /// The body waits for `100 Continue`.
    pub asking: bool,
    /// The endpoint takes no more bytes.
    pub deaf: bool,
    /// The request has been sent to its end.
    pub sent: bool,
    /// When that was; before, when the attempt began.
    pub sent_at: Tick,
    /// What came back.
    pub evidence: Evidence,
    /// The endpoint says that it did nothing with the request.
    pub untouched: Option<Untouched>,
    /// The visitor has been told to continue.
    pub continued: bool,
    /// The visitor's direction.
    pub watch: Watch<'a>,
    /// Bytes of the body moved.
    pub moved: u64,
}

/// Why nothing more comes.
#[derive(Debug)]
pub enum Broken {
    /// The endpoint failed.
    Failed(Failure),
    /// The visitor, or what it sent, ended it.
    Stopped(Stop),
}

/// A request that has been sent, or is being sent, and what came back so far.
#[derive(Debug)]
pub struct Wait<'a> {
    /// The attempt; another one when a second attempt took over.
    pub attempt: Attempt<'a>,
    /// Its connection.
    pub upstream: Upstream,
    /// What came back.
    pub incoming: Buffer,
    /// How far the request has got.
    pub progress: Progress<'a>,
    /// Until when to wait for the next event; `None` = for as long as the body flows.
    pub deadline: Option<Instant>,
    hedge_at: Option<Instant>,
    rival: Option<Rival<'a>>,
    taken_over: bool,
}

/// How often a request that waits for an answer looks whether its frps is frozen.
const LOOK: Duration = Duration::from_millis(250);

impl<'a> Wait<'a> {
    /// Begins to wait.
    #[must_use]
    pub fn new(
        attempt: &Attempt<'a>,
        upstream: Upstream,
        progress: Progress<'a>,
        body: &Body,
        upgrade: bool,
    ) -> Self {
        let mut wait = Self {
            attempt: *attempt,
            upstream,
            incoming: attempt.request.connection.worker.buffers.small(),
            progress,
            deadline: None,
            hedge_at: hedge::begins_at(attempt, body, upgrade),
            rival: None,
            taken_over: false,
        };
        wait.set_deadline(body);
        wait
    }

    /// Waits until more of the answer has come.
    ///
    /// # Errors
    /// Why nothing more comes. A second attempt under way has been waited for by then.
    pub async fn more(
        &mut self,
        in_flight: &mut InFlight<'a>,
        body: &mut Body,
        visitor: &mut Stream,
        buffer: &mut Buffer,
        scratch: &mut Scratch,
        report: &mut Report,
    ) -> Result<(), Broken> {
        let request = self.attempt.request;
        let buffers = &request.connection.worker.buffers;
        let Scratch { request: head, tried, holders, onward, .. } = scratch;
        // What took over has brought the first bytes with it.
        while !std::mem::take(&mut self.taken_over) {
            let (mut from_visitor, _) = visitor.split();
            let (mut from_endpoint, mut to_endpoint) = self.upstream.link.stream.split();
            let before = self.progress.moved;
            let limit = self.deadline.or_else(|| stall(request.listener).filter(|_| !self.progress.sent));
            let limit = earlier(earlier(limit, self.hedge_at), request.expires);
            // While a body flows, how long it may stand still is reckoned from here: no look in between.
            let look = (self.deadline.is_some() || self.progress.sent).then(|| Instant::now() + LOOK);
            let event = until(
                earlier(limit, look),
                poll_fn(|cx| {
                    let visitor = (&mut from_visitor, &mut *buffer);
                    let endpoint = (&mut from_endpoint, &mut to_endpoint, &mut self.incoming);
                    let event = poll_event(cx, &mut self.progress, body, buffers, visitor, endpoint);
                    match &mut self.rival {
                        Some(rival) if event.is_pending() => rival.answer.as_mut().poll(cx).map(Event::Rival),
                        Some(_) | None => event,
                    }
                }),
            )
            .await;
            let failure = match event {
                Ok(Event::Read) => break,
                Ok(Event::VisitorGone) => {
                    outcome::at_least(&self.attempt, self.progress.sent_at);
                    return Err(Broken::Stopped(Stop::VisitorGone));
                }
                Ok(Event::UploadDone) => {
                    self.progress.sent = true;
                    self.progress.sent_at = clock::now();
                    self.set_deadline(body);
                    continue;
                }
                Ok(Event::UploadFailed(error)) => match blame(&error) {
                    Some(stop) => return Err(Broken::Stopped(stop)),
                    None => {
                        self.progress.deaf = true;
                        self.set_deadline(body);
                        continue;
                    }
                },
                Ok(Event::Rival(Ok(lead))) => {
                    // It answered first: the slow one is let go, and what it took so far is the least it takes.
                    outcome::at_least(&self.attempt, self.progress.sent_at);
                    if let Some(rival) = self.rival.take() {
                        self.let_take_over(rival, lead, in_flight, report);
                        self.set_deadline(body);
                    }
                    continue;
                }
                Ok(Event::Rival(Err(failure))) => {
                    if let Some(rival) = self.rival.take() {
                        rival.lost(&self.attempt, failure);
                    }
                    continue;
                }
                Ok(Event::Broken(untouched)) => {
                    self.progress.untouched = untouched;
                    Failure::Reset
                }
                Ok(Event::Ended) => Failure::ClosedEarly,
                // Whatever is still to come would come from an frps that is frozen.
                Err(Elapsed) if self.attempt.member.endpoint.is_frozen() => Failure::Reset,
                // The visitor said how long it waits. That is its own affair: it says little of the endpoint.
                Err(Elapsed) if request.expires.is_some_and(|expires| Instant::now() >= expires) => {
                    outcome::at_least(&self.attempt, self.progress.sent_at);
                    let late = Stop::Refused(Refusal::UpstreamTimeout, "grpc-timeout");
                    return Err(Broken::Stopped(late));
                }
                Err(Elapsed) if limit.is_none_or(|limit| Instant::now() < limit) => continue,
                Err(Elapsed) if self.hedge_at.is_some_and(|at| Instant::now() >= at) => {
                    self.hedge_at = None;
                    let payload = &buffer.filled()[head.len..head.len + body.at_hand];
                    self.rival = Rival::start(&self.attempt, head, (tried, holders), onward, payload, report);
                    continue;
                }
                Err(Elapsed) if self.progress.asking => {
                    // No word: send the body all the same.
                    self.send_body(body, buffer, head).await.map_err(Broken::Failed)?;
                    continue;
                }
                Err(Elapsed) if self.deadline.is_none() && self.progress.moved > before => continue,
                Err(Elapsed) if self.deadline.is_none() => {
                    return Err(Broken::Stopped(Stop::Refused(Refusal::BodyTimeout, "")));
                }
                Err(Elapsed) => Failure::ResponseTimeout,
            };
            // A second attempt under way may still save the request.
            let (first, sent_at, reused) = (self.attempt, self.progress.sent_at, self.upstream.reused);
            match Box::pin(self.rescue(visitor, buffer, in_flight, report)).await {
                Ok(true) => {
                    // A kept connection that the other side had closed is nobody's fault.
                    if !reused || failure == Failure::ResponseTimeout {
                        attempt::remember(&first, sent_at, failure);
                    }
                    self.set_deadline(body);
                }
                Ok(false) => return Err(Broken::Failed(failure)),
                Err(stop) => return Err(Broken::Stopped(stop)),
            }
        }
        self.progress.evidence = Evidence::Heard;
        Ok(())
    }

    /// The attempt has brought nothing: waits for a second one under way. Whether that one answers.
    ///
    /// # Errors
    /// The visitor doesn't wait for it.
    pub async fn rescue(
        &mut self,
        visitor: &mut Stream,
        buffer: &mut Buffer,
        in_flight: &mut InFlight<'a>,
        report: &mut Report,
    ) -> Result<bool, Stop> {
        let Some(mut rival) = self.rival.take() else { return Ok(false) };
        let limit = earlier(self.attempt.deadline, self.per_try());
        let (mut from_visitor, _) = visitor.split();
        let answer = poll_fn(|cx| match self.progress.watch.poll(cx, &mut from_visitor, buffer) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => rival.answer.as_mut().poll(cx).map(Some),
        });
        match until(limit, answer).await {
            Ok(Some(Ok(lead))) => {
                self.let_take_over(rival, lead, in_flight, report);
                return Ok(true);
            }
            Ok(None) => return Err(Stop::VisitorGone),
            Ok(Some(Err(failure))) => rival.lost(&self.attempt, failure),
            Err(Elapsed) => rival.lost(&self.attempt, Some(Failure::ResponseTimeout)),
        }
        Ok(false)
    }

    /// A second attempt is of no use any more.
    pub fn drop_rival(&mut self) {
        self.rival = None;
    }

    /// The second attempt serves from here on; the connection of the first is closed.
    fn let_take_over(
        &mut self,
        rival: Rival<'a>,
        lead: Lead,
        in_flight: &mut InFlight<'a>,
        report: &mut Report,
    ) {
        rival.take_over(&mut self.attempt, in_flight, report);
        self.upstream = Upstream { link: lead.link, reused: false };
        self.incoming = lead.incoming;
        self.progress.sent_at = self.attempt.begun;
        self.taken_over = true;
    }

    /// The body was held back; now what is at hand of it goes, and the rest may flow.
    ///
    /// # Errors
    /// The endpoint doesn't take it.
    pub async fn send_body(
        &mut self,
        body: &Body,
        buffer: &Buffer,
        head: &RequestHead,
    ) -> Result<(), Failure> {
        self.progress.asking = false;
        self.progress.sent = body.upload.is_none();
        let mut sent = 0;
        let payload = &buffer.filled()[head.len..head.len + body.at_hand];
        let limit = Some(Instant::now() + LAST_WORDS);
        let (_, mut to_endpoint) = self.upstream.link.stream.split();
        match until(limit, write_both(&mut to_endpoint, payload, &[], &mut sent)).await {
            Ok(Ok(())) => {
                self.set_deadline(body);
                Ok(())
            }
            Ok(Err(_)) | Err(Elapsed) => Err(Failure::Reset),
        }
    }

    fn set_deadline(&mut self, body: &Body) {
        let progress = &self.progress;
        self.deadline = if progress.deaf {
            Some(Instant::now() + LAST_WORDS)
        } else if progress.asking {
            Some(Instant::now() + ASK_FIRST)
        } else if !progress.sent {
            None
        } else {
            // A request that took its time to arrive gives the endpoint its full time from now.
            let whole = match body.upload {
                Some(_) => self.attempt.request.route.timeout.map(|timeout| Instant::now() + timeout),
                None => self.attempt.deadline,
            };
            earlier(whole, self.per_try())
        };
    }

    fn per_try(&self) -> Option<Instant> {
        self.attempt.request.split.pool.retry.per_try_timeout.map(|timeout| Instant::now() + timeout)
    }
}

/// What happened while waiting for a response head.
enum Event {
    /// The second attempt has the first bytes of an answer, or broke.
    Rival(Result<Lead, Option<Failure>>),
    Read,
    Ended,
    Broken(Option<Untouched>),
    UploadDone,
    UploadFailed(RelayError),
    VisitorGone,
}

/// One look at both sides.
fn poll_event(
    cx: &mut Context<'_>,
    progress: &mut Progress<'_>,
    body: &mut Body,
    buffers: &Buffers,
    (from_visitor, buffer): (&mut ReadSide<'_>, &mut Buffer),
    (from_endpoint, to_endpoint, incoming): (&mut ReadSide<'_>, &mut WriteSide<'_>, &mut Buffer),
) -> Poll<Event> {
    // The answer first: when it is there, nothing else matters.
    match incoming.poll_fill(cx, from_endpoint) {
        Poll::Ready(Ok(0)) => return Poll::Ready(Event::Ended),
        Poll::Ready(Ok(_)) => return Poll::Ready(Event::Read),
        Poll::Ready(Err(error)) => return Poll::Ready(Event::Broken(untouched(&error))),
        Poll::Pending => {}
    }
    match &mut body.upload {
        Some(upload) if !progress.sent && !progress.deaf && !progress.asking => {
            match upload.poll(cx, buffers, from_visitor, to_endpoint, &mut progress.moved) {
                Poll::Ready(Ok(())) => Poll::Ready(Event::UploadDone),
                Poll::Ready(Err(error)) => Poll::Ready(Event::UploadFailed(error)),
                Poll::Pending => Poll::Pending,
            }
        }
        Some(_) => Poll::Pending,
        None => progress.watch.poll(cx, from_visitor, buffer).map(|()| Event::VisitorGone),
    }
}

/// When a socket that takes or gives nothing is given up.
pub fn stall(listener: &Listener) -> Option<Instant> {
    Some(Instant::now() + listener.timeouts.stream_idle)
}

/// Whose fault a broken upload is; `None` = the endpoint's.
fn blame(error: &RelayError) -> Option<Stop> {
    match error {
        RelayError::Source(_) | RelayError::SourceEnded => Some(Stop::VisitorGone),
        RelayError::Invalid(error) => Some(Stop::Refused(Refusal::BadRequest(400), error.label())),
        RelayError::TooLarge => Some(Stop::Refused(Refusal::BodyTooLarge, "chunked")),
        RelayError::Sink(_) => None,
    }
}
