//! What the rest of the process asks the poller of one frps.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

/// Where [`Ask`]s for one frps go.
pub type Asks = mpsc::UnboundedSender<Ask>;

/// A question to the poller of one frps.
#[derive(Debug)]
pub enum Ask {
    /// Something happened to the proxies of these names: look at them now, and again (5, 10, 20 … ms apart, up to
    /// [`super::poller::CLAIM_DEADLINE`]) while one that was `claimed` isn't online yet. What is seen becomes
    /// [`crate::control::Event::TunnelsSeen`]. More than a few dozen names are looked up by one whole listing.
    Look {
        /// Names as frps lists them.
        names: Vec<String>,
        /// They are expected to come up, as opposed to go.
        claimed: bool,
    },
    /// List everything now: a connect was refused, or an agent came back.
    List,
    /// Whether a tunnel is still the one it was. A fresh connection to its port is already open: if the port belongs to
    /// that registration *after* the connect, it belonged to it at the connect, so nobody else gets the bytes.
    Verify {
        /// Who is meant.
        tunnel: Arc<Registration>,
        /// Gets the answer; dropped when the poller ends.
        reply: oneshot::Sender<Verdict>,
    },
}

/// One registration of a tcp port on an frps: two of the same name differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registration {
    /// Name as frps lists it.
    pub name: String,
    /// Port on frps.
    pub port: u16,
    /// See [`super::Proxy::sealed`]; empty on a tunnel that was not taken over.
    pub sealed: String,
    /// See [`super::Proxy::started`].
    pub started: String,
}

/// Answer to [`Ask::Verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Online, same port, same seal.
    Same,
    /// Gone, or another registration. The control plane is told too.
    Changed,
    /// The admin API doesn't say: no answer in time, or it is broken.
    Unknown,
}
