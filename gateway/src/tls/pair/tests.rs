use rcgen::KeyPair;

use super::*;
use crate::tls::testing::{Authority, DAY, read, rsa_key, wrong};

#[test]
fn a_good_one_is_taken_without_a_word() {
    let authority = Authority::new();
    let pair = authority.pair("a", &["a.test"]);
    assert_eq!(
        (pair.leaf.names.as_slice(), &pair.warnings, &pair.stapled),
        (&["a.test".to_owned()][..], &vec![], &Stapled::None)
    );
    assert_eq!(pair.schemes, [SignatureScheme::ECDSA_NISTP256_SHA256]);
    let rsa = super::super::testing::read(&authority.write("rsa", &["a.test"], &rsa_key(), -1..90));
    assert_eq!((rsa.schemes.len(), rsa.leaf.rsa_bits), (6, Some(2048)));
}

#[test]
fn every_fault_names_the_file_and_the_reason() {
    let authority = Authority::new();
    let files = authority.issue("a", &["a.test"]);
    let good = (std::fs::read(&files.cert).unwrap(), std::fs::read(&files.key).unwrap());
    let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cases: [(Part, &[u8], &str); 8] = [
        (Part::Cert, b"hello", "it holds no certificate in PEM"),
        (Part::Cert, &good.1, "it holds no certificate in PEM"),
        (Part::Cert, b"-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n", "not PEM"),
        (Part::Cert, b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "not a certificate"),
        (Part::Cert, &good.0[..good.0.len() / 2], "not PEM"),
        (Part::Key, b"", "it holds no private key in PEM"),
        (Part::Key, encrypted, "without a passphrase"),
        (Part::Key, b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", "can't be used"),
    ];
    for (part, bytes, reason) in cases {
        std::fs::write(&files.cert, if part == Part::Cert { bytes } else { &good.0 }).unwrap();
        std::fs::write(&files.key, if part == Part::Key { bytes } else { &good.1 }).unwrap();
        let wrong = wrong(&files);
        let path = if part == Part::Key { &files.key } else { &files.cert };
        assert!(
            wrong.part == part && &wrong.path == path && wrong.why.contains(reason),
            "{reason}: {wrong:?}"
        );
        assert!(!wrong.mismatch, "{wrong:?}");
        assert!(wrong.to_string().starts_with(&path.display().to_string()), "{wrong}");
    }
    std::fs::remove_file(&files.key).unwrap();
    assert!(wrong(&files).why.contains("No such file"), "{:?}", wrong(&files));
    std::fs::write(&files.key, vec![b'a'; (1 << 20) + 1]).unwrap();
    assert!(wrong(&files).why.contains("larger than 1024 KiB"), "{:?}", wrong(&files));
}

#[test]
fn a_key_of_another_certificate_is_a_mismatch() {
    let authority = Authority::new();
    let files = authority.issue("a", &["a.test"]);
    std::fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let wrong = wrong(&files);
    assert!(wrong.mismatch && wrong.part == Part::Key, "{wrong:?}");
    assert!(wrong.why.contains(&files.cert.display().to_string()), "{wrong}");
}

#[test]
fn a_chain_that_begins_with_the_issuer_is_told_so() {
    let authority = Authority::new();
    let files = authority.issue("a", &["a.test"]);
    let leaf = std::fs::read_to_string(&files.cert).unwrap();
    std::fs::write(&files.cert, authority.issuer.pem() + &leaf).unwrap();
    assert!(wrong(&files).why.contains("position 2 there: the leaf must come first"), "{}", wrong(&files));
}

#[test]
fn a_broken_chain_is_served_with_a_warning() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.issue("a", &["a.test"]);
    let leaf = std::fs::read_to_string(&files.cert).unwrap();
    std::fs::write(&files.cert, leaf.clone() + &authority.issuer.pem()).unwrap();
    assert_eq!(read(&files).warnings, Vec::<String>::new(), "that one is whole");
    std::fs::write(&files.cert, leaf.clone() + &other.issuer.pem()).unwrap();
    let unsigned = read(&files).warnings.join("\n");
    assert!(unsigned.contains("not signed by certificate 2"), "same name, another key: {unsigned}");
    let stranger = authority.issue("b", &["b.test"]);
    std::fs::write(&files.cert, leaf + &std::fs::read_to_string(&stranger.cert).unwrap()).unwrap();
    let foreign = read(&files).warnings.join("\n");
    assert!(foreign.contains("broken chain: certificate 1 was issued by"), "{foreign}");
}

#[test]
fn without_a_name_it_is_served_with_a_warning() {
    let authority = Authority::new();
    let pair = read(&authority.issue("a", &[]));
    assert!(pair.warnings[0].contains("subject alternative name"), "{:?}", pair.warnings);
}

#[test]
fn short_rsa_keys_are_refused() {
    let authority = Authority::new();
    let files = authority.issue("weak", &["weak.test"]);
    std::fs::write(&files.cert, include_bytes!("weak.pem")).unwrap();
    let wrong = wrong(&files);
    assert!(wrong.part == Part::Cert && wrong.why.contains("1024 bits"), "{wrong:?}");
}

#[test]
fn that_its_time_is_over_or_has_not_come_is_for_the_caller_to_judge() {
    let authority = Authority::new();
    let now = SystemTime::now();
    let key = KeyPair::generate().unwrap();
    let judge =
        |days| read(&authority.write("a", &["a.test"], &key, days)).timely(now).map_err(|wrong| wrong.why);
    assert_eq!(judge(-1..1), Ok(()));
    assert_eq!(judge(-9..-3), Err("it expired 3 days ago".into()));
    let early = judge(3..9).unwrap_err();
    assert!(early == "it is not valid for another 2 days" || early.contains("3 days"), "{early}");
    assert_eq!(ago(now + DAY * 2, now), "2 days");
    assert_eq!(ago(now + DAY, now), "24 hours");
    assert_eq!(ago(now, now + DAY), "0 seconds", "clocks go back");
}
