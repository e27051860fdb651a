//! The old process's side of an upgrade: starts the new one, gives it the sockets, and goes on serving until that one
//! does.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{self, ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{
    channel::{self, Channel, Message},
    predecessor,
};
use crate::{
    control::{Handle, event::Memory},
    data::sockets::Sockets,
};

/// How long a new process that is prepared may take to accept.
const SERVING_WAIT: Duration = Duration::from_secs(10);
/// How long an exit status may take to come after the channel has ended.
const EXIT_WAIT: Duration = Duration::from_secs(5);
/// Of the first process of a system or container.
const INIT: u32 = 1;

/// How this process was started, so that another one can be started likewise.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// That of this process. To be called at start, while the path still leads to the file that runs.
    ///
    /// The path is the one it was started by, if that is an absolute one: a link may lead elsewhere by the time of an
    /// upgrade. Else the file's own.
    ///
    /// # Errors
    /// The system doesn't say which file runs (`/proc` is missing).
    pub(super) fn of_process() -> io::Result<Self> {
        let running = env::current_exe()?;
        let mut arguments = env::args_os();
        let said = arguments.next().map(PathBuf::from).filter(|said| said.is_absolute());
        let path = said.filter(|said| is_same_file(said, &running)).unwrap_or(running);
        Ok(Self { path, arguments: arguments.collect() })
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// Why an upgrade came to nothing. The old process serves on as before.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is one under way.
    #[error("an upgrade is under way already")]
    Busy,
    /// This process doesn't serve yet, or not any more.
    #[error("this process {0}")]
    NotServing(&'static str),
    /// It is a container's first process.
    #[error(
        "this process is PID 1: with its end the system would end the new one, too; in a container, replace the container"
    )]
    Init,
    /// It isn't known which file runs.
    #[error("it isn't known which program runs here: {0}")]
    NoProgram(String),
    /// The new process can't be started.
    #[error("{} cannot be started: {source}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The new process said why it can't serve.
    #[error("the new process cannot serve: {0}")]
    Failed(String),
    /// The new process ended without saying why.
    #[error("the new process ended ({0}) before it was ready: see the log")]
    Ended(ExitStatus),
    /// The new process took too long.
    #[error("the new process wasn't ready within {0:?} (runtime.upgrade_timeout)")]
    Late(Duration),
    /// Sockets can't be passed.
    #[error("the sockets cannot be handed over: {0}")]
    Sockets(#[from] io::Error),
}

/// The new process. Killed when dropped before [`Self::leave`].
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    channel: Channel,
    left: bool,
    /// Clients can be handed on to it.
    pub(super) takes_clients: bool,
    /// Its process id.
    pub(super) pid: u32,
}

impl Successor {
    /// It lives on without us.
    pub(super) fn leave(&mut self) {
        self.left = true;
    }

    /// Tells it the last that we have heard of our frps.
    pub(super) async fn tell(&self, memory: &Memory) {
        if let Err(error) = self.channel.send_file(&Message::Left, memory, &[]).await {
            tracing::debug!(%error, "the new process is gone");
        }
    }

    /// The line, once it serves.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.left
            && let Err(error) = self.child.start_kill()
        {
            tracing::debug!(%error, "the new process has ended already");
        }
    }
}

/// Starts `program`, hands `sockets` over, and returns when the new process accepts on them. Waits `within` for it to be
/// prepared. Any failure, or dropping the future, ends the new process.
pub(super) async fn start(
    program: &Program,
    sockets: &Sockets,
    control: &Handle,
    within: Duration,
) -> Result<Successor, Refusal> {
    if process::id() == INIT {
        return Err(Refusal::Init);
    }
    let groups = sockets.share()?;
    let (ours, theirs) = channel::pair()?;
    let channel = Channel::new(ours)?;
    let started = Command::new(&program.path)
        .args(&program.arguments)
        .env(predecessor::VARIABLE, process::id().to_string())
        // These are about this process's descriptors and id.
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .env_remove("LISTEN_PID")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::from(theirs))
        .spawn();
    let child = started.map_err(|source| Refusal::Start { path: program.path.clone(), source })?;
    let pid = child.id().unwrap_or_default();
    tracing::info!(pid, program = %program.path.display(), "upgrade: the new process starts");
    let mut successor = Successor { child, channel, left: false, takes_clients: false, pid };
    let (channel, child) = (&successor.channel, &mut successor.child);
    let takes_clients = &mut successor.takes_clients;
    let talk = async {
        let mut sent = Ok(());
        for group in &groups {
            sent = channel.send_group(group).await;
            if sent.is_err() {
                break;
            }
        }
        if sent.is_ok() {
            sent = channel.send(&Message::Begin).await;
        }
        match sent {
            // It ended early: what it said counts.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            Err(_) | Ok(()) => {}
        }
        drop(groups);
        hear(channel, &Message::Prepared, child, &mut false).await
    };
    timeout(within, talk).await.unwrap_or(Err(Refusal::Late(within)))?;
    let serve = async {
        // As late as possible: what happens to a tunnel from now on, the new process hears itself.
        channel.send_file(&Message::Serve, &control.memory().await, &[]).await?;
        hear(channel, &Message::Serving, child, takes_clients).await
    };
    timeout(SERVING_WAIT, serve).await.unwrap_or(Err(Refusal::Late(SERVING_WAIT)))?;
    Ok(successor)
}

/// Waits until the new process says `word`, and notes whether it says that it takes clients.
async fn hear(
    channel: &Channel,
    word: &Message,
    child: &mut Child,
    takes_clients: &mut bool,
) -> Result<(), Refusal> {
    loop {
        match channel.receive().await? {
            Some((said, _)) if said == *word => return Ok(()),
            Some((Message::Failed(why), _)) => return Err(Refusal::Failed(why)),
            Some((Message::TakesClients, _)) => *takes_clients = true,
            Some(_) => {}
            // Another program may have closed its standard input and live on.
            None => {
                return match timeout(EXIT_WAIT, child.wait()).await {
                    Ok(status) => Err(Refusal::Ended(status?)),
                    Err(_elapsed) => Err(Refusal::Failed("it doesn't know how to take over".to_owned())),
                };
            }
        }
    }
}
