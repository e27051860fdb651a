use frp_gateway_config::model::{ClientAuth, ClientAuthMode, Http2, UnknownName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Connection, HandshakeKind, ProtocolVersion,
    RootCertStore,
    pki_types::{CertificateDer, ServerName},
    server::Acceptor,
};

use super::*;
use crate::tls::{
    client,
    pair::Pair,
    testing::{Authority, Extra, https},
};

/// A terminator with one certificate, and a client that trusts its authority.
struct World {
    authority: Authority,
    terminator: Terminator,
    more: Arc<More>,
}

const NAMES: &[&str] = &["a.test", "b.test"];

fn settings(edit: impl FnOnce(&mut Listener)) -> Settings {
    let mut listener = https("web", Vec::new());
    edit(&mut listener);
    let tls = listener.tls.take().unwrap();
    Settings::of(&listener, &tls, None)
}

fn names(all: Vec<Arc<Pair>>, unknown: UnknownName, acme: bool) -> Names {
    Names::new(all, unknown, acme, std::time::SystemTime::now())
}

impl World {
    fn new(settings: &Settings) -> Self {
        let authority = Authority::new();
        let more = Arc::new(More::default());
        let own = names(vec![authority.pair("a", NAMES)], UnknownName::First, false);
        Self { terminator: Terminator::new(settings, own, Arc::clone(&more)).unwrap(), authority, more }
    }

    /// Remembers tickets.
    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.issuer.der().to_vec())).unwrap();
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A handshake, and what follows it; then both sides, or what went wrong at the client.
    fn shake(&self, client: &ClientConfig, name: &str) -> Result<(Connection, Connection), rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut wire.as_slice()).unwrap();
        let accepted = acceptor.accept().unwrap().expect("a whole ClientHello");
        let mut answer = UNRECOGNIZED_NAME.to_vec();
        let mut server = None;
        if let Ok(config) = self.terminator.admit(&accepted.client_hello()) {
            answer.clear();
            match accepted.into_connection(config) {
                Ok(connection) => server = Some(connection),
                Err((_, mut alert)) => alert.write_all(&mut answer).unwrap(),
            }
        }
        let Some(server) = server else {
            client.read_tls(&mut answer.as_slice()).unwrap();
            return Err(client.process_new_packets().unwrap_err());
        };
        let (mut client, mut server) = (Connection::from(client), Connection::from(server));
        while pass(&mut server, &mut client)? | pass(&mut client, &mut server)? {}
        Ok((client, server))
    }

    fn kind(&self, client: &ClientConfig, name: &str) -> HandshakeKind {
        self.shake(client, name).unwrap().0.handshake_kind().unwrap()
    }
}

/// Whether there was something.
fn pass(from: &mut Connection, to: &mut Connection) -> Result<bool, rustls::Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut left = wire.as_slice();
    while !left.is_empty() {
        to.read_tls(&mut left).unwrap();
        to.process_new_packets()?;
    }
    Ok(!wire.is_empty())
}

#[test]
fn sessions_are_resumed_after_a_swap_and_after_a_reload() {
    for version in [&TLS13, &TLS12] {
        let settings = settings(|_| {});
        let world = World::new(&settings);
        let client = world.client(&[version]);
        assert_eq!(world.kind(&client, "a.test"), HandshakeKind::Full, "{version:?}");
        assert_eq!(world.kind(&client, "a.test"), HandshakeKind::Resumed, "{version:?}");
        let other = world.authority.pair("other", NAMES);
        world.terminator.put_names(names(vec![other], UnknownName::First, false));
        assert_eq!(world.kind(&client, "a.test"), HandshakeKind::Resumed, "{version:?}: another certificate");
        world.terminator.put(world.terminator.prepare(&settings).unwrap());
        assert_eq!(
            world.kind(&client, "a.test"),
            HandshakeKind::Resumed,
            "{version:?}: another configuration"
        );
        assert_ne!(world.kind(&client, "b.test"), HandshakeKind::Resumed, "{version:?}: another name");
    }
}

#[test]
fn nothing_is_resumed_where_tickets_are_off_or_clients_show_certificates() {
    let open = settings(|_| {});
    let off = settings(|listener| listener.tls.as_mut().unwrap().session_tickets = false);
    for version in [&TLS13, &TLS12] {
        let world = World::new(&open);
        let trust = world.authority.path("ca.pem");
        std::fs::write(&trust, world.authority.issuer.pem()).unwrap();
        let (mode, crl, allow) = (ClientAuthMode::Optional, Vec::new(), Vec::new());
        let auth = ClientAuth { mode, trust: vec![trust], crl, allow };
        let gate = client::load(&auth, &provider(), std::time::SystemTime::now()).unwrap().gate;
        let asks = Settings { client: Some(gate), ..open.clone() };
        for strict in [&off, &asks] {
            let client = world.client(&[version]);
            world.terminator.put(world.terminator.prepare(&open).unwrap());
            assert_eq!(world.kind(&client, "a.test"), HandshakeKind::Full, "{version:?}");
            world.terminator.put(world.terminator.prepare(strict).unwrap());
            for round in 0..2 {
                let kind = world.kind(&client, "a.test");
                assert_eq!(
                    kind,
                    HandshakeKind::Full,
                    "{version:?}, round {round}: a ticket from before is no good"
                );
            }
        }
    }
}

#[test]
fn versions_below_the_least_are_refused() {
    let world =
        World::new(&settings(|listener| listener.tls.as_mut().unwrap().min_version = TlsVersion::V1_3));
    let refused = world.shake(&world.client(&[&TLS12]), "a.test").unwrap_err();
    assert_eq!(refused, rustls::Error::AlertReceived(AlertDescription::ProtocolVersion));
    let (client, _) = world.shake(&world.client(&[&TLS13, &TLS12]), "a.test").unwrap();
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

#[test]
fn a_client_that_is_refused_for_its_name_is_told_so() {
    let world = World::new(&settings(|_| {}));
    let own = world.terminator.names().all().to_vec();
    world.terminator.put_names(names(own, UnknownName::Refuse, false));
    let client = world.client(&[&TLS13, &TLS12]);
    let refused = world.shake(&client, "other.test").unwrap_err();
    assert_eq!(refused, rustls::Error::AlertReceived(AlertDescription::UnrecognisedName));
    assert!(world.shake(&client, "a.test").is_ok());
    assert!(world.terminator.knows("A.test") && !world.terminator.knows("other.test"));
}

#[test]
fn protocols_are_those_of_the_listener() {
    let said = |settings: &Settings| {
        settings.alpn.iter().map(|one| String::from_utf8(one.clone()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(said(&settings(|_| {})), ["http/1.1"]);
    let two = settings(|listener| listener.http2 = Some(Http2 { max_streams: 100 }));
    assert_eq!(said(&two), ["h2", "http/1.1"]);
    let acme = settings(|listener| listener.tls.as_mut().unwrap().acme = true);
    assert_eq!(said(&acme), ["http/1.1", "acme-tls/1"]);
    let frp = settings(|listener| {
        listener.protocol = Protocol::Frp;
        listener.tls.as_mut().unwrap().acme = true;
    });
    assert_eq!(said(&frp), Vec::<String>::new());
    let world = World::new(&settings(|_| {}));
    let agreed = |offered: &[&str]| {
        let mut client = world.client(&[&TLS13]);
        client.alpn_protocols = offered.iter().map(|one| one.as_bytes().to_vec()).collect();
        world.shake(&client, "a.test").map(|(client, _)| client.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(agreed(&["http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(agreed(&[]), Ok(None));
    assert_eq!(agreed(&["smtp"]), Err(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)));
}

#[test]
fn an_authority_that_looks_for_its_proof_gets_that_and_others_do_not() {
    let world = World::new(&settings(|listener| listener.tls.as_mut().unwrap().acme = true));
    let own = world.terminator.names().all().to_vec();
    world.terminator.put_names(names(own, UnknownName::First, true));
    let (proof, late) = (world.authority.pair("proof", NAMES), world.authority.pair("late", &["late.test"]));
    world.more.set(Arc::new(Extra {
        found: Some(("late.test".into(), Arc::clone(&late.certified))),
        proof: Some(("a.test".into(), Arc::clone(&proof.certified))),
    }));
    let leaf = |offered: &[&[u8]], name: &str| {
        let mut client = world.client(&[&TLS13, &TLS12]);
        client.alpn_protocols = offered.iter().map(|one| one.to_vec()).collect();
        let (client, _) = world.shake(&client, name)?;
        Ok::<_, rustls::Error>(client.peer_certificates().unwrap()[0].clone().into_owned())
    };
    assert_eq!(leaf(&[ACME_TLS_ALPN], "a.test").as_ref(), Ok(&proof.certified.cert[0]));
    let other = leaf(&[ACME_TLS_ALPN, b"http/1.1"], "a.test").unwrap();
    assert_ne!(other, proof.certified.cert[0], "others may offer it beside what they speak");
    assert!(leaf(&[ACME_TLS_ALPN], "b.test").is_err(), "no proof is under way");
    assert_eq!(leaf(&[b"http/1.1"], "late.test").as_ref(), Ok(&late.certified.cert[0]));

    // Authorities have no certificate to show, wherever visitors must.
    let trust = world.authority.path("ca.pem");
    std::fs::write(&trust, world.authority.issuer.pem()).unwrap();
    let (mode, crl, allow) = (ClientAuthMode::Required, Vec::new(), Vec::new());
    let auth = ClientAuth { mode, trust: vec![trust], crl, allow };
    let gate = client::load(&auth, &provider(), std::time::SystemTime::now()).unwrap().gate;
    let strict = settings(|listener| listener.tls.as_mut().unwrap().acme = true);
    let strict = Settings { client: Some(gate), ..strict };
    world.terminator.put(world.terminator.prepare(&strict).unwrap());
    assert_eq!(leaf(&[ACME_TLS_ALPN], "a.test").as_ref(), Ok(&proof.certified.cert[0]));
    assert!(leaf(&[b"http/1.1"], "a.test").is_err(), "a visitor without a certificate");
    let off = Settings { client: strict.client.clone(), ..settings(|_| {}) };
    world.terminator.put(world.terminator.prepare(&off).unwrap());
    assert!(leaf(&[ACME_TLS_ALPN], "a.test").is_err(), "a listener without acme");
}

/// Has one certificate for two names, and another one for a third.
#[derive(Debug)]
struct Two(Arc<CertifiedKey>, Arc<CertifiedKey>);

impl MoreCertificates for Two {
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        match name {
            "one.test" | "www.one.test" => Some(Arc::clone(&self.0)),
            "two.test" => Some(Arc::clone(&self.1)),
            _ => None,
        }
    }

    fn challenge(&self, _name: &str) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[test]
fn a_connection_covers_the_hosts_of_its_certificate_wherever_that_comes_from() {
    let world = World::new(&settings(|listener| listener.tls.as_mut().unwrap().acme = true));
    let own = world.terminator.names().all().to_vec();
    let (one, two) = (world.authority.pair("one", &["one.test"]), world.authority.pair("two", &["two.test"]));
    world.more.set(Arc::new(Two(Arc::clone(&one.certified), Arc::clone(&two.certified))));
    let all = ["a.test", "b.test", "one.test", "www.one.test", "two.test"];
    assert!(!world.terminator.is_strict());
    for asked in all {
        assert!(all.iter().all(|host| world.terminator.covers(asked, host)), "nobody looks at names");
    }
    world.terminator.put_names(names(own.clone(), UnknownName::Refuse, true));
    assert!(world.terminator.is_strict());
    for group in [&all[..2], &all[2..4], &all[4..]] {
        for (asked, host) in group.iter().flat_map(|asked| all.iter().map(move |host| (asked, host))) {
            let together = group.contains(host);
            assert_eq!(world.terminator.covers(asked, host), together, "{asked} and {host}");
        }
    }
    world.terminator.put_names(names(own, UnknownName::Refuse, false));
    assert!(!world.terminator.covers("one.test", "www.one.test"), "a listener without acme");
}

#[test]
fn a_thousand_swaps_fail_no_handshake() {
    let settings = settings(|listener| listener.tls.as_mut().unwrap().session_tickets = false);
    let world = World::new(&settings);
    let pairs: Vec<_> = (0..4).map(|n| world.authority.pair(&format!("p{n}"), NAMES)).collect();
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let shakes = || {
            let client = world.client(&[&TLS13, &TLS12]);
            let mut shaken = 0;
            while !ended.load(std::sync::atomic::Ordering::Relaxed) || shaken == 0 {
                shaken += 1;
                let shaken = world.shake(&client, "a.test").map(drop);
                assert_eq!(shaken, Ok(()), "while certificates are swapped");
            }
        };
        let visitors = [scope.spawn(shakes), scope.spawn(shakes)];
        for round in 0..1000 {
            let pair = Arc::clone(&pairs[round % pairs.len()]);
            world.terminator.put_names(names(vec![pair], UnknownName::First, false));
            if round % 100 == 0 {
                world.terminator.put(world.terminator.prepare(&settings).unwrap());
            }
            std::thread::yield_now();
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        for visitor in visitors {
            visitor.join().unwrap();
        }
    });
}
