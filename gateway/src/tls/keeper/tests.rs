use frp_gateway_config::model::Config;
use rcgen::{KeyPair, PublicKeyData};

use super::*;
use crate::{
    control::testing::config,
    tls::testing::{Authority, DAY, https, ocsp_response},
};

const SECOND: Duration = Duration::from_secs(1);

/// A store with one certificate in force, looked at by a clock that we hold.
struct World {
    authority: Authority,
    files: Certificate,
    store: Store,
    start: Instant,
}

impl World {
    fn new() -> Self {
        let authority = Authority::new();
        let files = authority.issue("a", &["a.test"]);
        let world = Self { authority, files, store: Store::default(), start: Instant::now() };
        let config = Config { listeners: vec![https("web", vec![world.files.clone()])], ..config() };
        world.store.settle(world.store.stage(&config, false, SystemTime::now()).unwrap());
        world
    }

    fn serial(&self) -> Vec<u8> {
        self.store.inner().pairs[&self.files].pair.leaf.serial.clone()
    }

    fn look(&self, after: Duration) -> Looked {
        self.store.look(SystemTime::now(), self.start + after)
    }

    fn fault(&self) -> Option<String> {
        self.store.shown(SystemTime::now())[0].fault.clone()
    }
}

const QUIET: Looked = Looked { changed: false, again: false };
const SWAPPED: Looked = Looked { changed: true, again: false };
const WAITING: Looked = Looked { changed: false, again: true };

#[test]
fn a_new_pair_is_swapped_and_what_is_as_it_was_is_not() {
    let world = World::new();
    let before = world.serial();
    assert_eq!(world.look(SECOND), QUIET);
    std::fs::write(&world.files.cert, std::fs::read(&world.files.cert).unwrap()).unwrap();
    assert_eq!(world.look(SECOND), QUIET, "written, and the same");
    world.authority.issue("a", &["a.test"]);
    assert_eq!(world.look(SECOND), SWAPPED);
    assert_ne!(world.serial(), before);
    assert_eq!(world.look(SECOND), QUIET);
    assert_eq!(world.store.counts().swapped, 1);
}

#[test]
fn a_certificate_waits_for_its_key_and_a_key_for_its_certificate() {
    let world = World::new();
    for key_first in [true, false] {
        let before = world.serial();
        let key = KeyPair::generate().unwrap();
        let cert = world.authority.sign(&["a.test"], &key, -1..90);
        let write = |is_key: bool| {
            let (path, text) = if is_key {
                (&world.files.key, key.serialize_pem())
            } else {
                (&world.files.cert, cert.clone())
            };
            std::fs::write(path, text).unwrap();
        };
        write(key_first);
        assert_eq!(world.look(SECOND), WAITING, "key first: {key_first}");
        assert_eq!(world.look(9 * SECOND), WAITING);
        assert_eq!((world.serial(), world.fault()), (before.clone(), None));
        write(!key_first);
        assert_eq!(world.look(10 * SECOND), SWAPPED, "key first: {key_first}");
        assert_ne!(world.serial(), before);
    }
    assert_eq!((world.store.counts().swapped, world.store.counts().refused), (2, 0));
}

#[test]
fn a_key_that_never_comes_is_reported_once_and_the_old_pair_stays() {
    let world = World::new();
    let before = world.serial();
    let other = KeyPair::generate().unwrap();
    std::fs::write(&world.files.cert, world.authority.sign(&["a.test"], &other, -1..90)).unwrap();
    assert_eq!(world.look(SECOND), WAITING);
    assert_eq!(world.look(11 * SECOND), QUIET);
    assert_eq!(world.look(60 * SECOND), QUIET);
    assert_eq!((world.serial(), world.store.counts().refused), (before, 1));
    let fault = world.fault().expect("operators see it");
    assert!(fault.contains("a.key") && fault.contains("it is not the key"), "{fault}");
    std::fs::write(&world.files.key, other.serialize_pem()).unwrap();
    assert_eq!(world.look(61 * SECOND), SWAPPED, "it came after all");
    assert_eq!(world.fault(), None);
}

#[test]
fn other_faults_may_last_a_second_and_each_is_told() {
    let world = World::new();
    let before = world.serial();
    let good = std::fs::read(&world.files.cert).unwrap();
    let expired = world.authority.sign(
        &["a.test"],
        &KeyPair::from_pem(&std::fs::read_to_string(&world.files.key).unwrap()).unwrap(),
        -9..-3,
    );
    let mut at = SECOND;
    for (content, reason) in [
        (&good[..good.len() / 2], "not PEM"),
        (b"", "no certificate"),
        (expired.as_bytes(), "it expired 3 days ago"),
    ] {
        std::fs::write(&world.files.cert, content).unwrap();
        assert_eq!(world.look(at), WAITING, "{reason}");
        assert_eq!(world.look(at + SECOND), QUIET, "{reason}");
        let fault = world.fault().expect("it is told");
        assert!(fault.contains(reason) && fault.contains("a.pem"), "{reason}: {fault}");
        at += 5 * SECOND;
    }
    std::fs::remove_file(&world.files.cert).unwrap();
    assert_eq!((world.look(at), world.look(at + SECOND)), (WAITING, QUIET));
    assert!(world.fault().is_some_and(|fault| fault.contains("No such file")));
    assert_eq!((world.serial(), world.store.counts().refused), (before, 4));
    std::fs::write(&world.files.cert, good).unwrap();
    assert_eq!((world.look(at + 2 * SECOND).again, world.fault()), (false, None), "as it was");
}

#[test]
fn days_left_are_told_once_at_each_mark() {
    let authority = Authority::new();
    let files = authority.write("a", &["a.test"], &KeyPair::generate().unwrap(), -1..30);
    let store = Store::default();
    let config = Config { listeners: vec![https("web", vec![files.clone()])], ..config() };
    store.settle(store.stage(&config, false, SystemTime::now()).unwrap());
    let start = Instant::now();
    let told = |days: u64| {
        store.look(SystemTime::now() + Duration::from_secs(days * 86_400 + 3_600), start);
        store.inner().pairs[&files].told
    };
    let marks: Vec<_> = [0, 15, 16, 20, 22, 23, 26, 28, 29, 30].map(told).into();
    assert_eq!(
        marks[..],
        [None, None, Some(14), Some(14), Some(14), Some(7), Some(7), Some(3), Some(1), Some(0)]
    );
}

#[test]
fn an_ocsp_response_is_stapled_when_it_comes_and_taken_off_when_it_is_over() {
    let authority = Authority::new();
    let mut files = authority.issue("a", &["a.test"]);
    files.ocsp = Some(authority.path("a.ocsp"));
    let store = Store::default();
    let config = Config { listeners: vec![https("web", vec![files.clone()])], ..config() };
    store.settle(store.stage(&config, false, SystemTime::now()).unwrap());
    let pair = || Arc::clone(&store.inner().pairs[&files].pair);
    let said = || store.shown(SystemTime::now())[0].ocsp.clone();
    assert!(said().contains("No such file"), "{}", said());
    let response = ocsp_response(&pair(), authority.issuer.key().der_bytes(), |_| {});
    std::fs::write(files.ocsp.as_ref().unwrap(), &response).unwrap();
    let (start, later) = (Instant::now(), SystemTime::now() + 2 * DAY);
    assert_eq!(store.look(SystemTime::now(), start), SWAPPED);
    assert_eq!((pair().certified.ocsp.as_ref(), said().as_str()), (Some(&response), "stapled"));
    // Once while the file may still be written unseen, and once when it can't.
    assert_eq!(store.look(later, start), SWAPPED);
    assert_eq!((pair().certified.ocsp.as_ref(), said().as_str()), (None, "unusable: it expired"));
    assert_eq!(store.look(later, start), QUIET);
}
