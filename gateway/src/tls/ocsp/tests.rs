use der::{
    Encode,
    asn1::{GeneralizedTime, OctetString},
};
use rcgen::PublicKeyData;
use x509_cert::serial_number::SerialNumber;
use x509_ocsp::{OcspGeneralizedTime, RevokedInfo, SingleResponse};

use super::*;
use crate::tls::{
    pair::{Bytes, Pair},
    testing::{Authority, DAY, ocsp_response},
};

/// A certificate with its issuer behind it, and what a response makes of it.
fn judged(edit: impl FnOnce(&mut SingleResponse)) -> Stapled {
    let (authority, pair) = world();
    let response = ocsp_response(&pair, authority.issuer.key().der_bytes(), edit);
    check(&response, &pair.leaf, pair.certified.cert.get(1), SystemTime::now())
}

fn world() -> (Authority, Pair) {
    let authority = Authority::new();
    let files = authority.issue("a", &["a.test"]);
    let chain = std::fs::read_to_string(&files.cert).unwrap() + &authority.issuer.pem();
    std::fs::write(&files.cert, chain).unwrap();
    let pair = Pair::new(&files, &Bytes::read(&files).unwrap(), SystemTime::now()).unwrap();
    assert_eq!(pair.warnings, Vec::<String>::new());
    (authority, pair)
}

fn time(time: SystemTime) -> OcspGeneralizedTime {
    OcspGeneralizedTime(GeneralizedTime::from_system_time(time).unwrap())
}

fn reason(stapled: Stapled) -> String {
    match stapled {
        Stapled::Unusable(why) => why,
        other => panic!("it is taken: {other:?}"),
    }
}

#[test]
fn a_response_that_says_good_is_stapled_until_its_time_is_over() {
    let now = SystemTime::now();
    let stapled = judged(|_| {});
    let Stapled::Until(Some(until)) = &stapled else { panic!("{stapled:?}") };
    assert!(*until > now && *until <= now + DAY, "{until:?}");
    assert!(!stapled.is_over(now) && stapled.is_over(*until));
    assert_eq!(
        judged(|single| single.next_update = None),
        Stapled::Until(None),
        "newer is always there (RFC 6960)"
    );
}

#[test]
fn one_of_another_time_or_certificate_or_without_good_news_is_not() {
    let now = SystemTime::now();
    assert_eq!(reason(judged(|single| single.next_update = Some(time(now - DAY / 2)))), "it expired");
    assert_eq!(reason(judged(|single| single.this_update = time(now + DAY))), "its time has not come");
    let other = "it is for another certificate";
    assert_eq!(
        reason(judged(|single| single.cert_id.serial_number = SerialNumber::new(&[1, 2]).unwrap())),
        other
    );
    let hash = || OctetString::new([7; 20]).unwrap();
    assert_eq!(reason(judged(|single| single.cert_id.issuer_name_hash = hash())), other);
    assert_eq!(reason(judged(|single| single.cert_id.issuer_key_hash = hash())), other);
    let revoked = RevokedInfo { revocation_time: time(now - DAY), revocation_reason: None };
    let revoked = reason(judged(|single| single.cert_status = CertStatus::revoked(revoked)));
    assert!(revoked.contains("revoked"), "{revoked}");
    let unknown = reason(judged(|single| single.cert_status = CertStatus::unknown()));
    assert!(unknown.contains("doesn't know"), "{unknown}");
}

#[test]
fn errors_of_the_authority_and_garbage_are_named() {
    let (_authority, pair) = world();
    let judge = |bytes: &[u8]| reason(check(bytes, &pair.leaf, None, SystemTime::now()));
    let later = judge(&OcspResponse::try_later().to_der().unwrap());
    assert!(later.contains("not successful") && later.contains("TryLater"), "{later}");
    for garbage in [&b""[..], b"<html>", &[0x30, 0x03, 0x0a, 0x01, 0x00]] {
        let why = judge(garbage);
        assert!(why.contains("not an OCSP response") || why.contains("empty"), "{garbage:?}: {why}");
    }
}

#[test]
fn what_can_be_used_goes_into_the_handshake_and_what_cannot_is_a_warning() {
    let (authority, pair) = world();
    let good = ocsp_response(&pair, authority.issuer.key().der_bytes(), |_| {});
    let mut files = pair.files.clone();
    let path = authority.path("a.ocsp");
    files.ocsp = Some(path.clone());
    let read = || Pair::new(&files, &Bytes::read(&files).unwrap(), SystemTime::now()).unwrap();
    std::fs::write(&path, &good).unwrap();
    let stapled = read();
    assert_eq!(stapled.certified.ocsp.as_ref(), Some(&good));
    assert_eq!(stapled.unstapled().certified.ocsp, None);
    std::fs::write(&path, b"garbage").unwrap();
    let garbage = read();
    assert_eq!(garbage.certified.ocsp, None);
    let told = &garbage.warnings[0];
    assert!(told.contains(&path.display().to_string()) && told.contains("not stapled"), "{told}");
    std::fs::remove_file(&path).unwrap();
    let missing = read();
    assert!(missing.warnings[0].contains("No such file"), "{:?}", missing.warnings);
}
