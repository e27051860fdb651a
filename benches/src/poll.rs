//! A readiness list on epoll, level-triggered; tokens are the descriptors' numbers, so they index a `Vec`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// Which sockets are ready. One thread owns it.
pub struct Poll {
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
}

impl fmt::Debug for Poll {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Poll").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, an end of stream, or a connection to accept.
    Read,
    /// Room in the send buffer.
    Write,
}

impl Poll {
    /// An empty list.
    ///
    /// # Errors
    /// When the kernel gives no epoll descriptor.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, ready: Vec::with_capacity(256) })
    }

    /// Starts watching `socket`. Closing the socket ends it.
    ///
    /// # Errors
    /// When the socket is watched already.
    pub fn add(&self, socket: impl AsFd, interest: Interest) -> io::Result<()> {
        let token = epoll::EventData::new_u64(token(&socket) as u64);
        Ok(epoll::add(&self.epoll, socket, token, interest.flags())?)
    }

    /// Replaces what `socket` is watched for.
    ///
    /// # Errors
    /// When the socket isn't watched.
    pub fn change(&self, socket: impl AsFd, interest: Interest) -> io::Result<()> {
        let token = epoll::EventData::new_u64(token(&socket) as u64);
        Ok(epoll::modify(&self.epoll, socket, token, interest.flags())?)
    }

    /// Waits for at least one ready socket, or for `timeout` (nanosecond resolution), and puts their tokens in `tokens`.
    ///
    /// # Errors
    /// What `epoll_pwait2` says, except an interruption, which counts as nothing ready.
    pub fn wait(&mut self, timeout: Option<Duration>, tokens: &mut Vec<usize>) -> io::Result<()> {
        tokens.clear();
        self.ready.clear();
        let timeout = timeout.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        tokens.extend(self.ready.iter().filter_map(|event| {
            let data = event.data;
            usize::try_from(data.u64()).ok()
        }));
        Ok(())
    }
}

/// The token of `socket`: its descriptor's number.
///
/// # Panics
/// Never: an open descriptor isn't negative.
pub fn token(socket: impl AsFd) -> usize {
    usize::try_from(socket.as_fd().as_raw_fd()).expect("an open descriptor isn't negative")
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
        }
    }
}
