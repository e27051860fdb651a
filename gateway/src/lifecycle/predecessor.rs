//! The new process's side of an upgrade: takes the sockets of the one that serves, prepares, and serves when it is told.

use std::{
    env, io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::{
    net::{SocketType, sockopt::socket_type},
    process::{Pid, getppid, test_kill_process},
};
use tokio::time::sleep;

use super::{
    StartError,
    channel::{self, Channel, Message, bounded},
};
use crate::{control::event::Memory, data::sockets::Group};

/// Holds the process id of the old process: a leftover from elsewhere is no reason to read standard input.
pub(super) const VARIABLE: &str = "FRP_GATEWAY_HANDOVER";

/// How long the old process may take to end once it has closed the channel.
const GONE_WAIT: Duration = Duration::from_secs(1);

/// The process that serves, and waits for us to be ready.
#[derive(Debug)]
pub(super) struct Predecessor {
    channel: Channel,
    pid: i32,
}

impl Predecessor {
    /// That of this process: `None` when it was started in the ordinary way.
    ///
    /// # Errors
    /// There is one, but it can't be spoken to.
    pub(super) fn of_process() -> io::Result<Option<Self>> {
        let told = env::var(VARIABLE).ok().and_then(|pid| pid.parse::<i32>().ok());
        let Some(pid) = told.and_then(Pid::from_raw) else { return Ok(None) };
        // Where it is gone already, its sockets are on their way nevertheless.
        let is_ours = getppid() == Some(pid) || test_kill_process(pid).is_err();
        let stdin = io::stdin();
        if !is_ours || !socket_type(&stdin).is_ok_and(|kind| kind == SocketType::SEQPACKET) {
            return Ok(None);
        }
        let channel = Channel::new(stdin.as_fd().try_clone_to_owned()?)?;
        // The channel ends when we do, and whatever reads standard input finds nothing.
        let nothing = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
        rustix::stdio::dup2_stdin(&nothing)?;
        Ok(Some(Self { channel, pid: pid.as_raw_nonzero().get() }))
    }

    /// All its sockets.
    ///
    /// # Errors
    /// It is gone, or descriptors were lost.
    pub(super) async fn sockets(&self) -> io::Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        loop {
            match self.channel.receive().await? {
                Some((Message::Sockets(label), sockets)) => {
                    match groups.iter_mut().find(|group| group.label == label) {
                        Some(group) => group.sockets.extend(sockets),
                        None => groups.push(Group { label, sockets }),
                    }
                }
                Some((Message::Begin, _)) => return Ok(groups),
                Some(_) => {}
                None => {
                    return Err(io::Error::other("the old process ended before it had given its sockets"));
                }
            }
        }
    }

    /// Says that serving could begin, and waits for the word, which comes with what the old process knows. When that one
    /// has ended without a word, there is nobody left who could serve instead of us.
    ///
    /// # Errors
    /// The old process lives and serves on alone.
    pub(super) async fn prepared(&self) -> io::Result<Memory> {
        self.tell(&Message::Prepared).await;
        loop {
            match self.channel.receive().await? {
                Some((Message::Serve, files)) => return Ok(channel::content(files.into_iter().next())),
                Some(_) => {}
                None if self.is_gone().await => {
                    tracing::warn!(pid = self.pid, "the old process is gone, going on without it");
                    return Ok(Memory::default());
                }
                None => return Err(io::Error::other("it serves on alone")),
            }
        }
    }

    /// Whether it has ended, now that its end of the channel has. A process that ends closes its files first.
    async fn is_gone(&self) -> bool {
        let until = Instant::now() + GONE_WAIT;
        while getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == self.pid) {
            if Instant::now() >= until {
                return false;
            }
            sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Says that visitors are accepted, and that clients would be.
    pub(super) async fn serving(&self) {
        self.tell(&Message::TakesClients).await;
        self.tell(&Message::Serving).await;
    }

    /// The line, once we serve.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Says why nothing comes of it.
    pub(super) async fn failed(&self, error: &StartError) {
        self.tell(&Message::Failed(bounded(error.whole_text()))).await;
    }

    async fn tell(&self, message: &Message) {
        if let Err(error) = self.channel.send(message).await {
            tracing::debug!(%error, "the old process is gone");
        }
    }
}
