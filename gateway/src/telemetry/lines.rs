//! Lines for a file or standard output, written by a thread of its own: a slow disk slows nobody. What doesn't fit the queue is
//! dropped and counted. The access log and the audit log are written so.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use frp_gateway_config::model::AccessLog;

/// Lines that may wait for the disk.
const QUEUE: usize = 16 * 1024;
/// How long a line may stay in the write buffer.
const FLUSH: Duration = Duration::from_millis(200);
/// How long [`Lines::flush`] waits.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where lines go. Clones share the destination; dropping the last waits, for at most a second, until everything is written.
#[derive(Debug, Clone)]
pub struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    on: AtomicBool,
    dropped: Arc<AtomicU64>,
    writer: SyncSender<Message>,
    overdue: Arc<Mutex<Overdue>>,
}

impl Shared {
    fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.writer.try_send(Message::Flush(done)).is_ok() {
            match wait.recv_timeout(LAST_LINES) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) => {} // the destination is stuck; then so be it
            }
        }
    }
}

impl Drop for Shared {
    /// The process may end next, and its threads with it.
    fn drop(&mut self) {
        self.flush();
    }
}

/// What found the queue full, and must not be lost for that: the writer looks here, too.
#[derive(Debug, Default)]
struct Overdue {
    target: Option<Numbered>,
    /// Of the latest switch, queued or not.
    number: u64,
}

/// A destination that is newer than those of smaller numbers.
#[derive(Debug)]
struct Numbered {
    number: u64,
    target: Target,
}

enum Message {
    Line(Vec<u8>),
    Switch(Numbered),
    Reopen,
    Flush(SyncSender<()>),
}

#[derive(Debug)]
enum Target {
    Off,
    Stdout,
    File(PathBuf, File),
}

impl Lines {
    /// No lines, until switched. `name` is the log's, for the thread and for complaints.
    #[must_use]
    pub fn off(name: &'static str) -> Self {
        let (sender, messages) = sync_channel(QUEUE);
        let (dropped, overdue) = (Arc::default(), Arc::default());
        let writer = Writer {
            name,
            target: None,
            number: 0,
            unflushed: None,
            complained: None,
            dropped: Arc::clone(&dropped),
            overdue: Arc::clone(&overdue),
        };
        let spawned =
            thread::Builder::new().name(name.replace(' ', "-")).spawn(move || writer.run(&messages));
        if let Err(error) = spawned {
            tracing::error!(%error, "no {name}: its thread cannot start");
        }
        Self(Arc::new(Shared { on: AtomicBool::new(false), dropped, writer: sender, overdue }))
    }

    /// Changes the destination of the lines to come. Opens the file, but never waits for lines to be written.
    ///
    /// # Errors
    /// The file can't be opened for appending; the old destination stays.
    pub fn switch(&self, target: &AccessLog) -> io::Result<()> {
        let (target, on) = match target {
            AccessLog::Off => (Target::Off, false),
            AccessLog::Stdout => (Target::Stdout, true),
            AccessLog::File(path) => (Target::File(path.clone(), open(path)?), true),
        };
        let mut overdue = lock(&self.0.overdue);
        overdue.number += 1;
        let numbered = Numbered { number: overdue.number, target };
        match self.0.writer.try_send(Message::Switch(numbered)) {
            Ok(()) => {}
            // The present destination is stuck: it gets what waits, or the new one does.
            Err(TrySendError::Full(Message::Switch(numbered))) => overdue.target = Some(numbered),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                return Err(io::Error::other("the log thread has ended"));
            }
        }
        self.0.on.store(on, Relaxed);
        Ok(())
    }

    /// Opens the file anew, after a rotation moved it away.
    pub fn reopen(&self) {
        drop(self.0.writer.try_send(Message::Reopen));
    }

    /// Waits, for at most a second, until the lines so far are written. Blocks.
    pub fn flush(&self) {
        self.0.flush();
    }

    /// Lines lost because the destination was too slow or failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// Whether a line would go anywhere: making one can be spared otherwise.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.on.load(Relaxed)
    }

    /// Writes a line, which brings its own end. Never waits.
    pub fn line(&self, line: Vec<u8>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.0.writer.try_send(Message::Line(line))
        {
            self.0.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn lock(overdue: &Mutex<Overdue>) -> std::sync::MutexGuard<'_, Overdue> {
    overdue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// An open destination; the path, when it is a file that can be opened anew.
struct Destination {
    writer: BufWriter<Box<dyn Write + Send>>,
    path: Option<PathBuf>,
}

impl Destination {
    fn new(to: impl Write + Send + 'static, path: Option<PathBuf>) -> Self {
        Self { writer: BufWriter::new(Box::new(to)), path }
    }
}

/// What the thread works on.
struct Writer {
    name: &'static str,
    target: Option<Destination>,
    /// Of the present target.
    number: u64,
    /// Since when something is in the buffer.
    unflushed: Option<Instant>,
    complained: Option<Instant>,
    dropped: Arc<AtomicU64>,
    overdue: Arc<Mutex<Overdue>>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            // Counted from the oldest line in the buffer: lines that keep coming must not put it off.
            let patience = self.unflushed.map_or(FLUSH, |since| FLUSH.saturating_sub(since.elapsed()));
            let result = match messages.recv_timeout(patience) {
                Ok(Message::Line(line)) => self.line(&line),
                Ok(Message::Switch(new)) => self.switch(new),
                Ok(Message::Reopen) => self.reopen(),
                Ok(Message::Flush(done)) => {
                    let flushed = self.flush();
                    drop(done); // which is what the other end waits for
                    flushed
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => {
                    drop(self.flush());
                    return;
                }
            };
            let overdue = lock(&self.overdue).target.take();
            let switched = overdue.map_or(Ok(()), |new| self.switch(new));
            if let Err(error) = result.and(switched) {
                self.complain(&error);
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(open) = &mut self.target else { return Ok(()) };
        open.writer.write_all(line).inspect_err(|_| {
            self.dropped.fetch_add(1, Relaxed);
        })?;
        if self.unflushed.get_or_insert_with(Instant::now).elapsed() >= FLUSH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unflushed = None;
        self.target.as_mut().map_or(Ok(()), |open| open.writer.flush())
    }

    fn switch(&mut self, new: Numbered) -> io::Result<()> {
        if new.number < self.number {
            return Ok(());
        }
        let flushed = self.flush();
        self.number = new.number;
        self.target = match new.target {
            Target::Off => None,
            Target::Stdout => Some(Destination::new(io::stdout(), None)),
            Target::File(path, file) => Some(Destination::new(file, Some(path))),
        };
        flushed
    }

    fn reopen(&mut self) -> io::Result<()> {
        let flushed = self.flush();
        if let Some(path) = self.target.as_ref().and_then(|open| open.path.clone()) {
            let file = open(&path)?;
            self.target = Some(Destination::new(file, Some(path)));
        }
        flushed
    }

    fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
            tracing::error!(%error, "{} cannot be written; everything else goes on without it", self.name);
            self.complained = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
