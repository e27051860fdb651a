use std::time::Duration;

use frp_gateway_config::model::{ClientAuthMode, Config};

use super::*;
use crate::{
    control::testing,
    tls::{
        ClientIdentity,
        client::{
            Unwelcome,
            testing::{Authority, Folder},
        },
    },
};

/// A store with one listener that asks for certificates, and the authority of its clients.
struct World {
    store: Store,
    folder: Folder,
    authority: Authority,
    config: Arc<Config>,
}

impl World {
    fn new() -> Self {
        let (folder, authority) = (Folder::new(), Authority::new("one"));
        let trust = vec![folder.file("ca.pem", &authority.pem())];
        let crl = vec![folder.file("ca.crl", &authority.list(&[]))];
        let key = rcgen::KeyPair::generate().expect("a key");
        let own = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
        let own = own.self_signed(&key).expect("signed");
        let auth = ClientAuth { mode: ClientAuthMode::Required, trust, crl, allow: Vec::new() };
        let certificate = frp_gateway_config::model::Certificate {
            cert: folder.file("own.pem", &own.pem()),
            key: folder.file("own.key", &key.serialize_pem()),
            ocsp: None,
        };
        let config = testing::config_with(|config| {
            config.listeners[0].protocol = frp_gateway_config::model::Protocol::Https;
            config.listeners[0].tls = Some(frp_gateway_config::model::ListenerTls {
                certificates: vec![certificate],
                acme: false,
                min_version: frp_gateway_config::model::TlsVersion::V1_2,
                session_tickets: true,
                unknown_name: frp_gateway_config::model::UnknownName::First,
                client_auth: Some(auth),
            });
        });
        let world = Self { store: Store::default(), folder, authority, config };
        world.reload();
        world
    }

    fn reload(&self) {
        let staged = self.store.stage(&self.config, false, SystemTime::now()).expect("the files are right");
        self.store.settle(staged);
    }

    fn gate(&self) -> Arc<ClientGate> {
        let inner = self.store.inner();
        let ended = inner.listeners.values().next().expect("one listener");
        ended.terminator.client_gate().expect("it asks for certificates")
    }

    fn judge(&self, serial: u64) -> Result<(), Unwelcome> {
        let client = ClientIdentity::of(&[self.authority.client("spiffe://a/x", serial)]).expect("readable");
        self.gate().still(&client, SystemTime::now())
    }

    fn has_rung(&self) -> bool {
        let rung = std::pin::pin!(self.store.clients_changed());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        std::future::Future::poll(rung, &mut cx).is_ready()
    }
}

#[test]
fn a_new_list_is_in_force_after_the_next_look_and_rings_once() {
    let world = World::new();
    assert!(world.has_rung(), "the first gate is new");
    assert_eq!(world.judge(7), Ok(()));
    world.folder.file("ca.crl", &world.authority.list(&[7]));
    let looked = world.store.look_at_clients(SystemTime::now(), Instant::now());
    assert_eq!(looked, Looked { changed: true, again: false });
    assert_eq!((world.judge(7), world.judge(8)), (Err(Unwelcome::Revoked), Ok(())));
    assert!(world.has_rung() && !world.has_rung());
    let looked = world.store.look_at_clients(SystemTime::now(), Instant::now());
    assert_eq!(looked, Looked { changed: false, again: false });
    assert!(!world.has_rung());
}

#[test]
fn files_that_are_wrong_leave_the_old_ones_in_force_and_are_looked_at_again_soon() {
    let world = World::new();
    world.folder.file("ca.crl", &world.authority.list(&[7]));
    let begun = Instant::now();
    world.store.look_at_clients(SystemTime::now(), begun);
    world.folder.file("ca.crl", "");
    let look = |after| world.store.look_at_clients(SystemTime::now(), begun + Duration::from_millis(after));
    assert_eq!(look(0), Looked { changed: false, again: true });
    assert_eq!(look(500), Looked { changed: false, again: true });
    assert_eq!(world.store.counts().refused, 0, "it may be written at this moment");
    assert_eq!(look(1500), Looked { changed: false, again: false }, "the log knows now");
    assert_eq!(world.store.counts().refused, 1);
    assert_eq!(world.judge(7), Err(Unwelcome::Revoked));
    world.folder.file("ca.crl", &world.authority.list(&[]));
    assert_eq!(look(2000), Looked { changed: true, again: false });
    assert_eq!(world.judge(7), Ok(()));
}

#[test]
fn a_reload_that_changes_no_file_judges_nobody_anew() {
    let world = World::new();
    let (before, _rung) = (world.gate(), world.has_rung());
    world.reload();
    assert!(Arc::ptr_eq(&before, &world.gate()) && !world.has_rung());
    world.folder.file("ca.crl", &world.authority.list(&[7]));
    world.reload();
    assert!(world.has_rung(), "a reload takes new files, too");
    assert_eq!(world.judge(7), Err(Unwelcome::Revoked));
}

#[test]
fn where_clients_are_judged_no_session_is_resumed() {
    let world = World::new();
    let inner = world.store.inner();
    let server = inner.listeners.values().next().expect("one listener").terminator.server_config();
    assert_eq!(server.send_tls13_tickets, 0);
    assert!(!server.ticketer.enabled() && !server.session_storage.can_cache());
}
