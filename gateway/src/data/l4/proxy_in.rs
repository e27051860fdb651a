//! The PROXY protocol header that a trusted peer sends before everything else: read here, so that no protocol behind it
//! needs to know.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use tokio::{io::AsyncReadExt, net::TcpStream};

use super::proxy_header::{Decoded, decode};
use crate::{
    data::{io::until, worker::Worker},
    snapshot::Listener,
};

/// Most bytes looked at in one go; a header without TLVs is at most 107.
const LOOK: usize = 256;

/// Who connected, and to which address, by the header; `None` where it leaves that to the connection itself.
pub type Told = Option<(SocketAddr, SocketAddr)>;

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHeader {
    /// Not a byte came: the peer only looks whether somebody listens.
    Nothing,
    /// What is wrong with what came, or didn't.
    Bad(&'static str),
}

/// Whether connections of `peer` must begin with a header.
#[must_use]
pub fn is_due(listener: &Listener, peer: IpAddr) -> bool {
    listener.proxy_protocol.iter().any(|network| network.contains(&peer))
}

/// Reads the header, and not a byte more, within `timeouts.header`; a failure is counted and told.
pub async fn read(
    worker: &Worker,
    listener: &Listener,
    peer: IpAddr,
    stream: &mut TcpStream,
) -> Option<Told> {
    let deadline = Some(Instant::now() + listener.timeouts.header);
    let reason = match until(deadline, take(stream)).await {
        Ok(Ok(told)) => return Some(told),
        Ok(Err(NoHeader::Nothing)) => return None,
        Ok(Err(NoHeader::Bad(reason))) => reason,
        Err(_elapsed) => "no whole PROXY protocol header in time",
    };
    listener.stats.of(worker.id).proxy_header_errors.inc();
    if let Some(suppressed) = worker.may_complain("proxy_protocol") {
        tracing::warn!(
            listener = &*listener.name,
            %peer,
            reason,
            suppressed,
            "connection closed: a peer named in proxy_protocol must begin with its header"
        );
    }
    None
}

/// Reads a header. Cancelled, it leaves the rest of the header in the stream.
///
/// What has come is looked at before it is taken: as long as that is incomplete all of it is the header's, and once it is
/// complete its length is known. So nothing of what follows is ever taken, whatever the segments.
///
/// # Errors
/// See [`NoHeader`].
pub async fn take(stream: &mut TcpStream) -> Result<Told, NoHeader> {
    let mut header = Vec::with_capacity(LOOK);
    let mut ahead = [0; LOOK];
    loop {
        let taken = header.len();
        let seen = stream.peek(&mut ahead).await.map_err(|error| broken(&error, taken))?;
        if seen == 0 {
            return Err(if taken == 0 { NoHeader::Nothing } else { NoHeader::Bad(CUT) });
        }
        header.extend_from_slice(&ahead[..seen]);
        let (length, told) = match decode(&header) {
            Decoded::Incomplete => (header.len(), None),
            Decoded::Header { len, source } => (len, Some(source)),
            Decoded::Invalid(reason) => return Err(NoHeader::Bad(reason)),
        };
        let read = stream.read_exact(&mut ahead[..length - taken]).await;
        read.map_err(|error| broken(&error, taken))?;
        if let Some(told) = told {
            return Ok(told);
        }
    }
}

const CUT: &str = "the connection ended within its PROXY protocol header";

fn broken(_error: &io::Error, taken: usize) -> NoHeader {
    if taken == 0 { NoHeader::Nothing } else { NoHeader::Bad(CUT) }
}

#[cfg(test)]
mod tests;
