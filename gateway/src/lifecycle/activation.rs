//! Sockets from systemd (`LISTEN_FDS`, `LISTEN_FDNAMES`, see `sd_listen_fds(3)`): systemd holds them while we restart,
//! and may bind what we may not.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use listenfd::ListenFd;

use crate::data::sockets::{Group, Kind, Label};

/// What systemd hands over, if anything. To be called once, before there is a thread that reads the environment.
///
/// What is of no use to us stays open, as systemd wants it, and is complained about.
#[must_use]
pub(super) fn from_systemd() -> Vec<Group> {
    // Marks them as close-on-exec, too: whatever we start mustn't keep them open.
    let names: Vec<_> = match sd_notify::listen_fds_with_names() {
        Ok(named) => named.map(|(_, name)| name).collect(),
        Err(error) => {
            tracing::warn!(%error, "LISTEN_FDS or LISTEN_FDNAMES of the environment make no sense, and are ignored");
            return Vec::new();
        }
    };
    if names.is_empty() {
        return Vec::new(); // none, or for another process
    }
    let mut all = ListenFd::from_env();
    let usable = names.into_iter().enumerate().filter_map(|(index, name)| {
        let group = take(&mut all, index, &name);
        if let Err(error) = &group {
            tracing::warn!(fd = index + 3, %name, %error, "systemd passed a socket that is of no use here");
        }
        group.ok()
    });
    usable.collect()
}

fn take(all: &mut ListenFd, index: usize, name: &str) -> io::Result<Group> {
    let label = |kind, address: SocketAddr| Label { name: name.to_owned(), kind, bind: None, address };
    if let Ok(Some(socket)) = all.take_tcp_listener(index) {
        return Ok(Group {
            label: label(Kind::Stream, socket.local_addr()?),
            sockets: vec![listening(socket)?],
        });
    }
    let Ok(Some(socket)) = all.take_udp_socket(index) else {
        return Err(io::Error::other("it is neither a TCP nor a UDP socket"));
    };
    socket.set_nonblocking(true)?;
    Ok(Group { label: label(Kind::Datagram, socket.local_addr()?), sockets: vec![socket.into()] })
}

fn listening(socket: TcpListener) -> io::Result<OwnedFd> {
    if !rustix::net::sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other("it is a connection, not a listening socket: Accept=no is needed"));
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
