use rcgen::KeyPair;

use super::*;
use crate::{
    control::testing::config,
    tls::testing::{Authority, Extra, https},
};

fn configured(listeners: Vec<frp_gateway_config::model::Listener>) -> Config {
    Config { listeners, ..config() }
}

/// What the listener serves to a client that asks for the name.
fn serial(store: &Store, listener: &str, name: &str) -> Option<Vec<u8>> {
    let terminator = Arc::clone(&store.inner().listeners[listener].terminator);
    let names = terminator.names();
    let found = names.find(Some(name), &[], None)?;
    names.all().iter().find(|pair| Arc::ptr_eq(&pair.certified, &found)).map(|pair| pair.leaf.serial.clone())
}

fn stage(store: &Store, config: &Config, strict: bool) -> Result<(), Vec<TlsFault>> {
    store.stage(config, strict, SystemTime::now()).map(|staged| store.settle(staged))
}

#[test]
fn every_file_that_is_wrong_is_named_with_its_key_and_nothing_changes() {
    let authority = Authority::new();
    let (a, b, c) =
        (authority.issue("a", &["a.test"]), authority.issue("b", &["b.test"]), authority.files("none"));
    let store = Store::default();
    stage(&store, &configured(vec![https("one", vec![a.clone()])]), false).unwrap();
    let before = serial(&store, "one", "a.test");
    std::fs::write(&b.key, "nothing").unwrap();
    authority.issue("a", &["a.test"]);
    let bad = configured(vec![https("one", vec![a, b.clone()]), https("two", vec![c.clone(), b.clone()])]);
    let faults = stage(&store, &bad, true).unwrap_err();
    let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "listeners[0].tls.certificates[1].key",
            "listeners[1].tls.certificates[0].cert",
            "listeners[1].tls.certificates[1].key"
        ]
    );
    assert!(faults[0].message.contains(&b.key.display().to_string()), "{faults:?}");
    assert!(faults[1].message.contains(&c.cert.display().to_string()), "{faults:?}");
    assert_eq!(serial(&store, "one", "a.test"), before, "nothing was put in force");
    assert!(!store.inner().listeners.contains_key("two"));
}

#[test]
fn an_expired_certificate_is_served_at_start_and_refused_later_unless_it_is_in_force() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let old = authority.write("old", &["old.test"], &key, -9..-3);
    let early = authority.write("early", &["early.test"], &key, 3..9);
    let both = configured(vec![https("one", vec![old.clone(), early.clone()])]);
    let store = Store::default();
    let faults = stage(&store, &both, true).unwrap_err();
    let said: Vec<_> = faults.iter().map(|fault| fault.message.clone()).collect();
    assert!(said[0].contains("it expired 3 days ago") && said[0].contains("old.pem"), "{said:?}");
    assert!(said[1].contains("it is not valid for another"), "{said:?}");
    stage(&store, &both, false).unwrap();
    assert!(serial(&store, "one", "old.test").is_some(), "an operator must be able to start");
    stage(&store, &both, true).unwrap();
}

#[test]
fn a_listener_keeps_what_ends_its_tls_and_its_files_are_read_once() {
    let authority = Authority::new();
    let a = authority.issue("a", &["a.test"]);
    let store = Store::default();
    let config = configured(vec![https("one", vec![a.clone()]), https("two", vec![a.clone()])]);
    stage(&store, &config, false).unwrap();
    let of = |name: &str| Arc::clone(&store.inner().listeners[name].terminator);
    let (one, two) = (of("one"), of("two"));
    assert!(Arc::ptr_eq(&one.names().all()[0], &two.names().all()[0]), "read once");
    let pair = Arc::clone(&one.names().all()[0]);
    stage(&store, &config, true).unwrap();
    assert!(Arc::ptr_eq(&of("one"), &one), "tickets stay good");
    assert!(Arc::ptr_eq(&one.names().all()[0], &pair), "what hasn't changed isn't read again");
    stage(&store, &configured(vec![https("two", vec![a])]), true).unwrap();
    assert_eq!(store.inner().listeners.keys().collect::<Vec<_>>(), ["two"]);
    assert_eq!(store.files().len(), 2);
    stage(&store, &configured(Vec::new()), true).unwrap();
    assert_eq!((store.files().len(), store.shown(SystemTime::now()).len()), (0, 0));
}

#[test]
fn operators_see_each_certificate_and_those_that_come_at_run_time() {
    let authority = Authority::new();
    let a = authority.issue("a", &["a.test", "b.test"]);
    let store = Store::default();
    stage(&store, &configured(vec![https("one", vec![a.clone()]), https("two", vec![a.clone()])]), false)
        .unwrap();
    store.set_more(Arc::new(Extra::default()));
    let shown = store.shown(SystemTime::now());
    let [own, extra] = shown.as_slice() else { panic!("{shown:?}") };
    assert_eq!(own.listeners, ["one", "two"]);
    assert_eq!(own.names, ["a.test", "b.test"]);
    assert_eq!((own.key.as_str(), own.ocsp.as_str(), own.days_left), ("ecdsa", "none", 89));
    assert_eq!(own.source, a.cert.display().to_string());
    assert!(own.issuer.contains("Test Root"), "{}", own.issuer);
    assert_eq!(extra.source, "acme");
}

#[test]
#[ignore = "a measurement: cargo test -p frp-gateway --lib thousand -- --ignored --nocapture"]
fn a_thousand_certificates() {
    let authority = Authority::new();
    let of = |n: usize| authority.issue(&format!("c{n}"), &[&format!("h{n}.test"), &format!("*.h{n}.test")]);
    let config = configured(vec![https("one", (0..1000).map(of).collect())]);
    let store = Store::default();
    let begun = std::time::Instant::now();
    let staged = store.stage(&config, false, SystemTime::now()).unwrap();
    let staged_in = begun.elapsed();
    store.settle(staged);
    let settled_in = begun.elapsed() - staged_in;
    let begun = std::time::Instant::now();
    store.look(SystemTime::now(), begun);
    let looked_in = begun.elapsed();
    let later = SystemTime::now() + std::time::Duration::from_secs(10);
    store.look(later, begun);
    let begun = std::time::Instant::now();
    store.look(later, begun);
    println!(
        "stage {staged_in:?}, settle {settled_in:?}, look with reading {looked_in:?}, without {:?}",
        begun.elapsed()
    );
    assert!(serial(&store, "one", "h999.test").is_some());
}
