use std::path::Path;

use super::*;
use crate::tls::client::testing::{Authority, Folder};

fn tls(trust: &[&Path]) -> PoolTls {
    PoolTls {
        trust: trust.iter().map(|path| path.to_path_buf()).collect(),
        server_name: None,
        certificate: None,
    }
}

fn read(tls: &PoolTls, before: Option<&Begun>) -> Result<Begun, Vec<Wrong>> {
    Begun::read(tls, before, SystemTime::now())
}

#[test]
fn the_name_is_the_one_that_is_set_or_that_of_the_host() {
    let folder = Folder::new();
    let trust = folder.file("ca.pem", &Authority::new("one").pem());
    let plain = read(&tls(&[&trust]), None).expect("the files are right").outbound;
    let name = |outbound: &Outbound, host| outbound.with(host).map(|(_, name)| name.to_str().into_owned());
    assert_eq!(name(&plain, "frps.test").expect("a name"), "frps.test");
    assert_eq!(name(&plain, "192.0.2.7").expect("an address"), "192.0.2.7");
    let wrong = name(&plain, "not a name").expect_err("it is none").to_string();
    assert!(wrong.contains("not a name") && wrong.contains("server_name"), "{wrong}");
    let set = PoolTls { server_name: Some("other.test".into()), ..tls(&[&trust]) };
    let set = read(&set, None).expect("the files are right").outbound;
    assert_eq!(name(&set, "192.0.2.7").expect("a name"), "other.test");
    assert!(name(&Outbound::default(), "frps.test").is_err(), "what nobody has prepared speaks to nobody");
}

#[test]
fn what_has_not_changed_is_kept_with_its_sessions_and_a_pool_keeps_its_place() {
    let folder = Folder::new();
    let trust = folder.file("ca.pem", &Authority::new("one").pem());
    let first = read(&tls(&[&trust]), None).expect("the files are right");
    let same = read(&tls(&[&trust]), Some(&first)).expect("the files are right");
    assert!(Arc::ptr_eq(&first.spoken, &same.spoken));
    folder.file("ca.pem", &Authority::new("two").pem());
    let other = read(&tls(&[&trust]), Some(&first)).expect("the files are right");
    assert!(!Arc::ptr_eq(&first.spoken, &other.spoken) && Arc::ptr_eq(&first.outbound, &other.outbound));
}

#[test]
fn every_file_that_is_wrong_is_named_with_its_reason() {
    let folder = Folder::new();
    let right = folder.file("ca.pem", &Authority::new("one").pem());
    let (empty, none) = (folder.file("empty.pem", ""), folder.path().join("none.pem"));
    let own = Certificate { cert: right.clone(), key: none.clone(), ocsp: None };
    let wrong = PoolTls { certificate: Some(own), ..tls(&[&right, &empty, &none]) };
    let wrong = read(&wrong, None).expect_err("three are wrong");
    let keys: Vec<_> = wrong.iter().map(|wrong| wrong.key.as_str()).collect();
    assert_eq!(keys, ["trust[1]", "trust[2]", "certificate.key"], "{wrong:?}");
    assert!(wrong[0].message.contains("empty.pem") && wrong[2].message.contains("none.pem"), "{wrong:?}");
}
