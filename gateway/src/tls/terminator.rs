//! What ends TLS at one listener.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use frp_gateway_config::model::{Listener, ListenerTls, Protocol, TlsVersion};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs::Ticketer,
    server::{
        ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{client::ClientGate, more::MoreCertificates, names::Names, provider};

/// What an authority asks for that wants to see whether a name is ours (RFC 8737). Nothing may be said on such a connection.
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// The record that tells a client that its name is nobody's here: a fatal alert, `unrecognized_name` (RFC 6066 §3).
/// Sent instead of a ServerHello.
pub const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// Tickets for each full TLS 1.3 handshake: browsers open two connections at once, and use a ticket once.
const TICKETS: usize = 2;

/// The client asks for a name that has no certificate, and such clients are refused: to be told by [`UNRECOGNIZED_NAME`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no certificate is for the name that the client asks for")]
pub struct Refused;

/// Everything about TLS at a listener but its certificates.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Application protocols, the preferred first. Empty = what the client says doesn't matter.
    pub alpn: Vec<Vec<u8>>,
    /// Oldest version.
    pub min_version: TlsVersion,
    /// Sessions may be resumed. Never where clients are asked for certificates: what was decided about a certificate would
    /// outlive its trust.
    pub tickets: bool,
    /// Who checks the certificates of clients; `None` = none is asked for.
    pub client: Option<Arc<ClientGate>>,
}

impl Settings {
    /// As the configuration has it.
    #[must_use]
    pub fn of(listener: &Listener, tls: &ListenerTls, client: Option<Arc<ClientGate>>) -> Self {
        let mut alpn: Vec<&[u8]> = match (listener.protocol, &listener.http2) {
            (Protocol::Https, Some(_)) => vec![b"h2", b"http/1.1"],
            (Protocol::Https, None) => vec![b"http/1.1"],
            (
                Protocol::Http | Protocol::Tcp | Protocol::TlsPassthrough | Protocol::Udp | Protocol::Frp,
                _,
            ) => Vec::new(),
        };
        if tls.acme && !alpn.is_empty() {
            alpn.push(ACME_TLS_ALPN);
        }
        Self {
            alpn: alpn.into_iter().map(<[u8]>::to_vec).collect(),
            min_version: tls.min_version,
            tickets: tls.session_tickets,
            client,
        }
    }
}

/// What ends TLS at one listener. Shared by all threads; reading is wait-free.
#[derive(Debug)]
pub struct Terminator {
    in_force: ArcSwap<InForce>,
    certificates: Arc<Certificates>,
    /// What authorities that look for a proof are answered with: they have no certificate of their own to show.
    proof: Arc<ServerConfig>,
    /// The keys of tickets, which rotate every 6 hours and live for 12. One for the life of the listener, so that a session
    /// can be resumed with another thread, and after a reload.
    ticketer: Arc<dyn ProducesTickets>,
}

/// What handshakes are made with, and what judges their clients.
#[derive(Debug)]
pub struct InForce {
    server: Arc<ServerConfig>,
    client: Option<Arc<ClientGate>>,
}

/// The certificates in force.
#[derive(Debug)]
struct Certificates {
    names: ArcSwap<Names>,
    more: Arc<More>,
}

/// Where certificates come from at run time; shared by all listeners.
#[derive(Debug, Default)]
pub struct More(ArcSwapOption<Arc<dyn MoreCertificates>>);

impl More {
    /// From now on they come from there.
    pub fn set(&self, more: Arc<dyn MoreCertificates>) {
        self.0.store(Some(Arc::new(more)));
    }

    /// Where they come from.
    #[must_use]
    pub fn get(&self) -> Option<Arc<dyn MoreCertificates>> {
        self.0.load().as_deref().map(Arc::clone)
    }
}

impl Terminator {
    /// With these certificates.
    ///
    /// # Errors
    /// The system has no randomness, or the settings contradict each other.
    pub fn new(settings: &Settings, names: Names, more: Arc<More>) -> Result<Self, rustls::Error> {
        let certificates = Arc::new(Certificates { names: ArcSwap::from_pointee(names), more });
        let ticketer = Ticketer::new()?;
        let proof = Settings {
            alpn: vec![ACME_TLS_ALPN.to_vec()],
            min_version: TlsVersion::V1_2,
            tickets: false,
            client: None,
        };
        let proof = Arc::clone(&server(&proof, &certificates, &ticketer)?.server);
        let in_force = ArcSwap::new(server(settings, &certificates, &ticketer)?);
        Ok(Self { in_force, certificates, proof, ticketer })
    }

    /// What these settings come to here, for [`Self::put`].
    ///
    /// # Errors
    /// The settings contradict each other.
    pub fn prepare(&self, settings: &Settings) -> Result<Arc<InForce>, rustls::Error> {
        server(settings, &self.certificates, &self.ticketer)
    }

    /// Puts settings in force for connections to come. Those that are there stay as they are, until somebody asks
    /// [`Self::client_gate`] about them again.
    pub fn put(&self, prepared: Arc<InForce>) {
        self.in_force.store(prepared);
    }

    /// What [`Self::put`] has put.
    pub(super) fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// What judges clients' certificates now; `None` = none is asked for.
    #[must_use]
    pub fn client_gate(&self) -> Option<Arc<ClientGate>> {
        self.in_force.load().client.clone()
    }

    /// Puts certificates in force, for handshakes that begin from now on.
    pub fn put_names(&self, names: Names) {
        self.certificates.names.store(Arc::new(names));
    }

    /// The certificates in force.
    #[must_use]
    pub fn names(&self) -> Arc<Names> {
        self.certificates.names.load_full()
    }

    /// What a handshake is made with. Wait-free. A client that should be refused for its name gets `access_denied` from it;
    /// [`Self::admit`] tells beforehand.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_force.load().server)
    }

    /// What the handshake with this client is made with.
    ///
    /// # Errors
    /// [`Refused`]: the client asks for a name that has no certificate. It is to be told by [`UNRECOGNIZED_NAME`].
    pub fn admit(&self, hello: &ClientHello<'_>) -> Result<Arc<ServerConfig>, Refused> {
        let certificates = &self.certificates;
        if !certificates.names.load().takes_everyone() && certificates.choose(hello).is_none() {
            return Err(Refused);
        }
        let server = self.server_config();
        let by_acme = || server.alpn_protocols.iter().any(|protocol| protocol == ACME_TLS_ALPN);
        // Nothing is said on such a connection but the handshake, so nobody gets past the check of clients by it.
        Ok(if is_challenge(hello) && by_acme() { Arc::clone(&self.proof) } else { server })
    }

    /// The name that an authority wants to see proved, and where to look for the proof, if it isn't known here.
    #[must_use]
    pub fn lacks_proof(&self, hello: &ClientHello<'_>) -> Option<(Arc<dyn MoreCertificates>, String)> {
        let name = hello.server_name().filter(|_| is_challenge(hello))?;
        let more = self.certificates.more.get()?;
        if more.challenge(name).is_some() { None } else { Some((more, name.to_owned())) }
    }

    /// Whether clients that ask for a name without a certificate are refused, so that what they ask for later is bound to it.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        !self.certificates.names.load().takes_everyone()
    }

    /// Whether a certificate that a client gets who asks for `asked` (lower case; empty: for none) is for `host` as well, or nobody
    /// looks at names here.
    ///
    /// O(certificates for the name × their names), O(length of the name) where the two are the same.
    #[must_use]
    pub fn covers(&self, asked: &str, host: &str) -> bool {
        let names = self.certificates.names.load();
        if names.takes_everyone() || names.are_together(asked, host) {
            return true;
        }
        let Some(more) = self.certificates.more.get().filter(|_| names.uses_acme()) else { return false };
        let of_more = |name: &str| if names.knows(name) { None } else { more.find(name) };
        matches!((of_more(asked), of_more(host)), (Some(one), Some(other)) if Arc::ptr_eq(&one, &other))
    }

    /// Whether one of the files is for this name.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.certificates.names.load().knows(name)
    }
}

impl Certificates {
    fn choose(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let names = self.names.load();
        let more = self.more.0.load();
        let more = more.as_deref().map(|more| &**more);
        if is_challenge(hello) {
            return more?.challenge(name?);
        }
        names.find(name, hello.signature_schemes(), more)
    }
}

/// Whether the client is an authority that looks for its proof.
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME_TLS_ALPN) && offered.next().is_none())
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(&hello)
    }
}

fn server(
    settings: &Settings,
    certificates: &Arc<Certificates>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<Arc<InForce>, rustls::Error> {
    static SINCE_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static SINCE_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    let versions: &[_] = match settings.min_version {
        TlsVersion::V1_2 => &SINCE_1_2,
        TlsVersion::V1_3 => &SINCE_1_3,
    };
    let client: Arc<dyn ClientCertVerifier> = match &settings.client {
        Some(gate) => Arc::clone(gate) as _,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(client)
        .with_cert_resolver(Arc::clone(certificates) as _);
    server.alpn_protocols.clone_from(&settings.alpn);
    // Ours is the order of the cipher suites: old clients put weaker ones first.
    server.ignore_client_order = true;
    // Tickets need no memory of ours, and every client that resumes at all has them.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    // Without a ticketer, those that were given before are no good either.
    if settings.tickets && settings.client.is_none() {
        server.ticketer = Arc::clone(ticketer);
        server.send_tls13_tickets = TICKETS;
    } else {
        server.send_tls13_tickets = 0;
    }
    Ok(Arc::new(InForce { server: Arc::new(server), client: settings.client.clone() }))
}

#[cfg(test)]
mod tests;
