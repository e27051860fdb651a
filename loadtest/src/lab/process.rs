//! One child process: its signals, its log, its end.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{LabError, wait::until};

/// A running (or ended) child process.
///
/// Dropping it kills it (SIGKILL, also when it is frozen) and waits for its end, so its ports are free afterwards. When this process
/// is killed and nothing is dropped, the system kills the child: it runs under `setpriv --pdeathsig KILL` where that
/// exists (util-linux). A drop during a panic prints the end of the log.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output appended to `FOLDER/NAME.log`.
    pub(crate) fn spawn(
        name: &str,
        program: &Path,
        folder: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> Result<Self, LabError> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(LabError::io(format!("open the log of {name}")))?;
        let errors = output.try_clone().map_err(LabError::io("duplicate a log handle"))?;
        let mut command = if has_setpriv() {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // No proxy of the surroundings may get between loopback processes.
        for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(variable);
        }
        configure(&mut command);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = spawn_for_good(command).map_err(LabError::io(format!("start {name}")))?;
        Ok(Self { name: name.to_owned(), child, ended: None, log })
    }

    /// What the lab calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id. Meaningless once it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far, over restarts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How it ended; `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// SIGKILL, and waits for its end: a crash. Its sockets are closed when this returns.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        if self.ended.is_none() {
            self.ended = self.child.wait().ok();
        }
    }

    /// SIGTERM: asks it to leave. Returns at once; see [`Self::wait_exit`].
    pub fn sigterm(&mut self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP: asks it to read its files again.
    pub fn sighup(&mut self) {
        self.signal(Signal::HUP);
    }

    /// SIGINT, what Ctrl-C sends.
    pub fn sigint(&mut self) {
        self.signal(Signal::INT);
    }

    /// SIGSTOP: freezes it; its connections stay open and silent.
    pub fn sigstop(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: thaws it.
    pub fn sigcont(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the log when it still runs at the deadline.
    pub async fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus, LabError> {
        let what = format!("{} to end", self.name);
        match until(&what, deadline, async || self.exit_status()).await {
            Ok(status) => Ok(status),
            Err(_) => Err(self.timeout(what, deadline)),
        }
    }

    /// Waits until `condition` answers `Some`, but gives up as soon as the process ends.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut condition: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T, LabError> {
        let outcome = until(what, deadline, async || {
            if let Some(value) = condition().await {
                return Some(Ok(value));
            }
            self.exit_status().map(Err)
        })
        .await;
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) => Err(LabError::Exited { name: self.name.clone(), status, log: self.log() }),
            Err(_) => Err(self.timeout(what.to_owned(), deadline)),
        }
    }

    fn timeout(&self, what: String, after: Duration) -> LabError {
        LabError::Timeout { what, after, detail: format!("log of {}:\n{}", self.name, self.log()) }
    }

    /// Only while the child isn't reaped: afterwards its number may belong to somebody else.
    fn signal(&mut self, signal: Signal) {
        if self.exit_status().is_none() {
            // The one error left is "no such process": it ended this very moment.
            kill_process(Pid::from_child(&self.child), signal).ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("--- end of the log of {} ---\n{tail}\n---", self.name);
        }
    }
}

/// Whether `setpriv` knows `--pdeathsig`. Asked once.
fn has_setpriv() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let mut probe = Command::new("setpriv");
        probe.args(["--pdeathsig", "KILL", "--", "true"]).stdin(Stdio::null());
        probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

/// Spawns from a thread that lives as long as this process.
///
/// The system sends the parent-death signal when the *thread* that spawned the child ends, and test threads end early.
fn spawn_for_good(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                answer.send(command.spawn()).ok();
            }
        });
        jobs
    });
    let (answer, child) = mpsc::channel();
    let gone = |_| io::Error::other("the spawner thread is gone");
    spawner.send((command, answer)).map_err(|error| gone(error.to_string()))?;
    child.recv().map_err(|error| gone(error.to_string()))?
}
