//! The log: one event per line on standard error, as text or JSON. The access log is another thing ([`crate::data`]).
//!
//! A thread of its own writes, so that a slow or broken standard error (a full pipe, a closed terminal) neither stops
//! nor slows serving: lines that don't fit the queue are dropped, and failed writes are nobody's problem.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use clap::ValueEnum;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

/// Lines that may wait for standard error.
const QUEUE: usize = 8 * 1024;
/// How long [`flush`] waits for them.
const FLUSH: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);
static QUEUED: OnceLock<SyncSender<Message>> = OnceLock::new();

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// A person must act.
    Error,
    /// Degraded but serving.
    Warn,
    /// The state changed.
    Info,
    /// For finding a fault.
    Debug,
    /// Everything.
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Starts logging. A second call changes nothing.
///
/// # Errors
/// The writing thread can't start.
pub fn init(format: Format, level: Level) -> io::Result<()> {
    let (sender, lines) = sync_channel(QUEUE);
    thread::Builder::new().name("log".into()).spawn(move || write(&lines, &mut io::stderr()))?;
    if QUEUED.set(sender).is_err() {
        return Ok(());
    }
    // Libraries' own chatter is not our log; their warnings are.
    let ours = Targets::new()
        .with_target("frp_gateway", LevelFilter::from(level))
        .with_default(LevelFilter::from(level).min(LevelFilter::WARN));
    let layer = fmt::layer().with_writer(Queue).with_ansi(false).log_internal_errors(false);
    let done = match format {
        Format::Text => registry().with(ours).with(layer.with_target(false)).try_init(),
        Format::Json => {
            registry().with(ours).with(layer.json().flatten_event(true).with_target(false)).try_init()
        }
    };
    done.map_err(io::Error::other)
}

/// Waits, for at most a second, until what was logged is written.
pub fn flush() {
    let Some(queue) = QUEUED.get() else { return };
    let (done, wait) = sync_channel(1);
    if queue.try_send(Message::Flush(done)).is_ok() {
        match wait.recv_timeout(FLUSH) {
            Ok(()) => {}
            Err(_late) => {} // standard error is stuck; then so be it
        }
    }
}

/// Lines that standard error was too slow for.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

fn write(lines: &Receiver<Message>, to: &mut impl Write) {
    while let Ok(message) = lines.recv() {
        match message {
            // Nobody to tell, and serving matters more.
            Message::Line(line) => drop(to.write_all(&line)),
            Message::Flush(done) => drop(done.try_send(())),
        }
    }
}

#[derive(Debug)]
struct Queue;

impl MakeWriter<'_> for Queue {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Vec::new())
    }
}

/// Collects one event; queued when dropped.
#[derive(Debug)]
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(queue) = QUEUED.get()
            && !self.0.is_empty()
            && queue.try_send(Message::Line(std::mem::take(&mut self.0))).is_err()
        {
            DROPPED.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_broken_standard_error_ends_nothing() {
        let (sender, lines) = sync_channel(4);
        let (done, wait) = sync_channel(1);
        sender.send(Message::Line(b"lost\n".to_vec())).unwrap();
        sender.send(Message::Flush(done)).unwrap();
        drop(sender);
        write(&lines, &mut Broken);
        assert!(wait.try_recv().is_ok(), "the writer went on after the failed write");
    }

    #[test]
    fn levels_are_those_of_tracing() {
        assert_eq!(LevelFilter::from(Level::Warn), LevelFilter::WARN);
    }
}
