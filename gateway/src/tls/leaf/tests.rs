use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;

fn leaf(edit: impl FnOnce(&mut CertificateParams)) -> Leaf {
    let mut params = CertificateParams::new(vec!["A.test".to_owned(), "*.b.test".to_owned()]).unwrap();
    edit(&mut params);
    Leaf::of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
}

#[test]
fn names_are_those_of_the_extension_and_never_the_common_name() {
    let leaf = leaf(|params| {
        params.distinguished_name.push(DnType::CommonName, "common.test");
        params.subject_alt_names.push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
    });
    assert_eq!(leaf.names, ["a.test", "*.b.test"]);
    assert_eq!((leaf.primary_name(), leaf.key, leaf.self_signed), ("a.test", KeyKind::Ecdsa, true));
    assert!(leaf.subject.contains("common.test"), "{}", leaf.subject);
}

#[test]
fn it_goes_by_its_subject_without_a_name() {
    let leaf = leaf(|params| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(DnType::CommonName, "common.test");
    });
    assert_eq!(leaf.names, Vec::<String>::new());
    assert!(leaf.primary_name().contains("common.test"), "{}", leaf.primary_name());
}

#[test]
fn its_time_begins_and_ends_with_the_very_second() {
    let second = Duration::from_secs(1);
    let (from, to) = (UNIX_EPOCH + 1_000 * second, UNIX_EPOCH + 2_000 * second);
    let leaf = leaf(|params| (params.not_before, params.not_after) = (from.into(), to.into()));
    assert_eq!((leaf.not_before, leaf.not_after), (from, to));
    assert_eq!(leaf.validity(from - second), Validity::NotYet);
    assert_eq!([leaf.validity(from), leaf.validity(to)], [Validity::Valid; 2]);
    assert_eq!(leaf.validity(to + second), Validity::Expired);
    assert_eq!(leaf.seconds_left(to - 60 * second), 60);
    assert_eq!(leaf.seconds_left(to + 60 * second), -60);
}

#[test]
fn anything_else_is_an_error() {
    for bytes in [&b""[..], b"0", &[0x30, 0x82, 0xff, 0xff], &[0; 100]] {
        let refused = Leaf::of(&CertificateDer::from(bytes));
        assert!(refused.is_err(), "{bytes:?}: {refused:?}");
    }
}
