//! The line between two generations of the process: a socket pair that keeps messages whole and carries descriptors.
//!
//! The new process finds its end as standard input, so nobody else can have it, and no number of a descriptor has to be
//! agreed on. Messages are JSON; what one side doesn't know of the other's is skipped, so that different versions
//! understand each other.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, IoSlice, IoSliceMut, Seek, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg,
        socketpair,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixStream};

use crate::data::sockets::{Group, Label};

/// Largest message, bytes.
const MOST_BYTES: usize = 64 * 1024;
/// Longest text of a failure, bytes.
const MOST_TEXT: usize = 16 * 1024;
/// Descriptors in one message; the system takes 253.
const MOST_SOCKETS: usize = 64;

/// Clients in one message: two sockets each, and the file.
pub(super) const MOST_CLIENTS: usize = (MOST_SOCKETS - 1) / 2;

/// What is said. From old to new: [`Self::Sockets`]…, [`Self::Begin`], [`Self::Serve`], [`Self::Left`], [`Self::Clients`]…,
/// [`Self::Fetch`]. From new to old: [`Self::Prepared`], [`Self::TakesClients`], [`Self::Serving`], a [`Self::Took`] for each
/// `Clients`, [`Self::Cut`]…, [`Self::Fetched`]; or, until it serves, [`Self::Failed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// Sockets, which come with the message. Of many, the same label comes several times.
    Sockets(Label),
    /// That was all.
    Begin,
    /// The configuration is in force and every server's tunnels are known: serving could begin.
    Prepared,
    /// Serve: the old process won't take back its sockets any more unless the new one fails. Comes with a file in memory:
    /// what the old one knows of every frps, as JSON ([`Memory`](crate::control::event::Memory)).
    Serve,
    /// Visitors are accepted. The old process may stop.
    Serving,
    /// The old process hears no plugin calls any more. Comes with the same as [`Self::Serve`]: what it heard meanwhile
    /// may be a reason to doubt.
    Left,
    /// The new process knows what [`Self::Clients`] means.
    TakesClients,
    /// Relayed connections. Comes with a file in memory, a list of [`Handed`](crate::data::frp::hand_on::Handed) as JSON, and the
    /// two sockets of each: the client's, and that to frps.
    Clients,
    /// These of them, by their numbers in the old process, are the new one's now; the others stay.
    Took(Vec<u64>),
    /// The old process has nothing left but clients that can't be handed on. Comes with a file in memory: an
    /// [`Inheritance`](crate::control::relays::Inheritance) that names them.
    Fetch,
    /// Cut this one: its visitors wait for it here.
    Cut(u64),
    /// That was the last one.
    Fetched,
    /// It can't be done; why.
    Failed(String),
    /// Something that another version says.
    #[serde(skip)]
    Unknown,
}

/// One end. tokio has no type for sockets that keep messages whole; of the stream's it is only used that it waits for a
/// Unix socket.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

/// A pair of ends.
///
/// # Errors
/// No descriptors are left.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

impl Channel {
    /// Speaks over `end`, which must not block.
    ///
    /// # Errors
    /// The reactor doesn't take it.
    pub(super) fn new(end: OwnedFd) -> io::Result<Self> {
        UnixStream::from_std(end.into()).map(Self)
    }

    /// Says something.
    ///
    /// # Errors
    /// The other side is gone.
    pub(super) async fn send(&self, message: &Message) -> io::Result<()> {
        self.send_with(message, &[]).await
    }

    /// Sends all of a group's sockets.
    ///
    /// # Errors
    /// The other side is gone, or can't hold so many descriptors.
    pub(super) async fn send_group(&self, group: &Group) -> io::Result<()> {
        let message = Message::Sockets(group.label.clone());
        for some in group.sockets.chunks(MOST_SOCKETS) {
            let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            self.send_with(&message, &some).await?;
        }
        Ok(())
    }

    /// Says `message` with a file in memory, `content` as JSON, and `sockets` behind it.
    ///
    /// # Errors
    /// The other side is gone, or can't hold so many descriptors, or there is no memory.
    pub(super) async fn send_file(
        &self,
        message: &Message,
        content: &impl Serialize,
        sockets: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut file = File::from(memfd_create("upgrade", MemfdFlags::CLOEXEC)?);
        let mut writer = BufWriter::new(&mut file);
        serde_json::to_writer(&mut writer, content)?;
        writer.flush()?;
        drop(writer);
        file.rewind()?;
        let all: Vec<_> = std::iter::once(file.as_fd()).chain(sockets.iter().copied()).collect();
        self.send_with(message, &all).await
    }

    async fn send_with(&self, message: &Message, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
                return Err(io::Error::other("too many sockets for one message"));
            }
            sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// The next message with its descriptors; `None` when the other side is gone.
    ///
    /// # Errors
    /// Descriptors were lost for want of room.
    pub(super) async fn receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MOST_BYTES];
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let got = recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let mut sockets = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = message {
                    sockets.extend(some);
                }
            }
            if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
                return Err(io::Error::other("a message was cut short: are there descriptors enough?"));
            }
            Ok((got.bytes, sockets))
        };
        let received = self.0.async_io(Interest::READABLE, receive).await;
        match received {
            Ok((0, _)) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Ok((length, sockets)) => {
                let message = serde_json::from_slice(bytes.get(..length).unwrap_or_default());
                Ok(Some((message.unwrap_or(Message::Unknown), sockets)))
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads the file that came with a message; nothing where that makes no sense here.
pub(super) fn content<T: DeserializeOwned + Default>(file: Option<OwnedFd>) -> T {
    let Some(file) = file else { return T::default() };
    serde_json::from_reader(BufReader::new(File::from(file))).unwrap_or_else(|error| {
        tracing::warn!(%error, "what the other process tells makes no sense to this one");
        T::default()
    })
}

/// As much of `text` as fits a message.
#[must_use]
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > MOST_TEXT {
        text.truncate(text.floor_char_boundary(MOST_TEXT));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, UdpSocket};

    use super::*;
    use crate::data::sockets::Kind;

    fn ends() -> (Channel, Channel) {
        let (one, other) = pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[tokio::test]
    async fn sockets_of_any_kind_arrive_in_order_however_many_they_are() {
        let (old, new) = ends();
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let label = |kind| Label { name: "listener:x".into(), kind, bind: Some(address), address };
        let streams = (0..MOST_SOCKETS + 3).map(|_| TcpListener::bind(address).unwrap());
        let ports: Vec<_> =
            streams.map(|socket| (socket.local_addr().unwrap(), OwnedFd::from(socket))).collect();
        let (ports, streams): (Vec<_>, Vec<_>) = ports.into_iter().unzip();
        let datagrams = vec![OwnedFd::from(UdpSocket::bind(address).unwrap())];
        let sending = async {
            old.send_group(&Group { label: label(Kind::Stream), sockets: streams }).await.unwrap();
            old.send_group(&Group { label: label(Kind::Datagram), sockets: datagrams }).await.unwrap();
            old.send(&Message::Begin).await.unwrap();
        };
        let receiving = async {
            let mut got = Vec::new();
            loop {
                match new.receive().await.unwrap().unwrap() {
                    (Message::Begin, none) => return (none.len(), got),
                    (message, sockets) => {
                        got.extend(sockets.into_iter().map(|socket| (message.clone(), socket)))
                    }
                }
            }
        };
        let ((), (none, got)) = tokio::join!(sending, receiving);
        assert_eq!((none, got.len()), (0, MOST_SOCKETS + 4));
        let (last, udp) =
            got.into_iter().enumerate().fold((None, None), |(_, _), (index, (message, socket))| {
                if message == Message::Sockets(label(Kind::Stream)) {
                    let address = TcpListener::from(socket).local_addr().unwrap();
                    assert_eq!(address, ports[index]);
                    (Some(address), None)
                } else {
                    (None, Some(UdpSocket::from(socket)))
                }
            });
        assert!(last.is_none() && udp.unwrap().local_addr().is_ok(), "datagrams come last");
    }

    #[tokio::test]
    async fn an_end_that_is_gone_is_told_and_unknown_words_are_skipped() {
        let (old, new) = ends();
        old.send(&Message::Failed(bounded("ä".repeat(MOST_TEXT)))).await.unwrap();
        let (said, _) = new.receive().await.unwrap().unwrap();
        assert!(matches!(&said, Message::Failed(text) if text.ends_with("ä…")), "{said:?}");
        rustix::io::write(&old.0, b"{\"of_the_future\":{}}").unwrap();
        assert_eq!(new.receive().await.unwrap().map(|(message, _)| message), Some(Message::Unknown));
        drop(old);
        assert_eq!(new.receive().await.unwrap().map(|(message, _)| message), None);
    }
}
