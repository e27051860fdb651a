use rustls::SignatureScheme::{ECDSA_NISTP256_SHA256, ED25519, RSA_PSS_SHA256};

use super::*;
use crate::tls::testing::{Authority, Extra, read, rsa_key};

const MODERN: &[SignatureScheme] = &[RSA_PSS_SHA256, ECDSA_NISTP256_SHA256, ED25519];

fn names(all: Vec<Arc<Pair>>, unknown: UnknownName) -> Names {
    Names::new(all, unknown, false, SystemTime::now())
}

fn found(names: &Names, name: Option<&str>, pair: &Pair) -> bool {
    names.find(name, MODERN, None).is_some_and(|found| Arc::ptr_eq(&found, &pair.certified))
}

#[test]
fn an_exact_name_comes_before_a_wildcard_and_a_wildcard_before_the_first() {
    let authority = Authority::new();
    let first = authority.pair("first", &["first.test"]);
    let wild = authority.pair("wild", &["*.shop.test"]);
    let exact = authority.pair("exact", &["Pay.Shop.test"]);
    let names = names(vec![Arc::clone(&first), Arc::clone(&wild), Arc::clone(&exact)], UnknownName::First);
    assert!(found(&names, Some("pay.shop.test"), &exact), "exact, whatever its case in the certificate");
    assert!(found(&names, Some("www.shop.test"), &wild), "one label");
    for other in ["a.b.shop.test", "shop.test", ".shop.test", "elsewhere.test", "test", ""] {
        assert!(found(&names, Some(other), &first), "{other:?} gets the first");
    }
    assert!(found(&names, None, &first), "no name at all");
    assert!(names.takes_everyone());
}

#[test]
fn unknown_names_are_refused_where_that_is_wanted_but_not_clients_without_a_name() {
    let authority = Authority::new();
    let first = authority.pair("first", &["first.test"]);
    let names = names(vec![Arc::clone(&first)], UnknownName::Refuse);
    assert!(names.find(Some("other.test"), MODERN, None).is_none());
    assert!(found(&names, Some("first.test"), &first));
    assert!(found(&names, None, &first), "it asked for nothing that we don't have");
    assert!(!names.takes_everyone());
}

#[test]
fn hosts_of_one_certificate_are_together_and_others_are_not() {
    let authority = Authority::new();
    let first = authority.pair("first", &["first.test", "*.first.test"]);
    let other = authority.pair("other", &["other.test", "more.other.test"]);
    let names = names(vec![first, other], UnknownName::Refuse);
    for (asked, host) in [
        ("first.test", "first.test"),
        ("first.test", "www.first.test"),
        ("www.first.test", "first.test"),
        ("www.first.test", "ftp.first.test"),
        ("other.test", "more.other.test"),
        ("", "first.test"),
        ("", "10.0.0.1"),
        ("", "[::1]"),
    ] {
        assert!(names.are_together(asked, host), "{asked:?} and {host:?}");
    }
    for (asked, host) in [
        ("first.test", "other.test"),
        ("first.test", "a.b.first.test"),
        ("first.test", ".first.test"),
        ("first.test", "10.0.0.1"),
        ("other.test", "first.test"),
        ("other.test", "third.other.test"),
        ("", "other.test"),
        ("gone.test", "first.test"),
    ] {
        assert!(!names.are_together(asked, host), "{asked:?} and {host:?}");
    }
}

#[test]
fn the_client_chooses_among_kinds_of_keys_and_we_prefer_ecdsa() {
    let authority = Authority::new();
    let rsa = read(&authority.write("rsa", &["a.test"], &rsa_key(), -1..90));
    let edwards = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let edwards = read(&authority.write("ed", &["a.test"], &edwards, -1..90));
    let ecdsa = authority.pair("ec", &["a.test"]);
    let all = vec![Arc::clone(&rsa), Arc::clone(&edwards), Arc::clone(&ecdsa)];
    let names = names(all, UnknownName::First);
    let kind = |name, schemes: &[SignatureScheme]| {
        let found = names.find(name, schemes, None).unwrap();
        [&rsa, &edwards, &ecdsa]
            .into_iter()
            .find(|pair| Arc::ptr_eq(&pair.certified, &found))
            .unwrap()
            .leaf
            .key
            .word()
    };
    assert_eq!(kind(Some("a.test"), MODERN), "ecdsa");
    assert_eq!(kind(Some("a.test"), &[RSA_PSS_SHA256]), "rsa");
    assert_eq!(kind(Some("a.test"), &[ED25519, RSA_PSS_SHA256]), "ed25519");
    assert_eq!(kind(None, &[RSA_PSS_SHA256]), "rsa", "those for the same names count as the first");
    assert_eq!(kind(Some("a.test"), &[]), "ecdsa", "the handshake says why it fails");
}

#[test]
fn of_two_certificates_for_a_name_the_one_that_is_valid_is_served() {
    let authority = Authority::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let expired = read(&authority.write("old", &["a.test"], &key, -90..-1));
    let valid = authority.pair("new", &["a.test"]);
    let names = names(vec![expired, Arc::clone(&valid)], UnknownName::First);
    assert!(found(&names, Some("a.test"), &valid));
}

#[test]
fn what_comes_at_run_time_is_asked_for_names_that_no_file_covers() {
    let authority = Authority::new();
    let (own, extra) = (authority.pair("own", &["*.own.test"]), authority.pair("extra", &["x.test"]));
    let of =
        |name: &str| Extra { found: Some((name.into(), Arc::clone(&extra.certified))), ..Extra::default() };
    let served = |acme, more: &Extra, name| {
        let names = Names::new(vec![Arc::clone(&own)], UnknownName::Refuse, acme, SystemTime::now());
        names.find(Some(name), MODERN, Some(more)).map(|found| Arc::ptr_eq(&found, &extra.certified))
    };
    assert_eq!(served(true, &of("x.test"), "x.test"), Some(true));
    assert_eq!(served(true, &of("x.test"), "y.test"), None);
    assert_eq!(served(true, &of("a.own.test"), "a.own.test"), Some(false), "a file is for it");
    assert_eq!(served(false, &of("x.test"), "x.test"), None, "the listener doesn't want it");
}
