use frp_gateway_config::model::{DomainPattern, Pattern};
use rcgen::{CertificateParams, DnType, KeyPair, SanType, string::Ia5String};

use super::*;

fn identity(change: impl FnOnce(&mut CertificateParams)) -> ClientIdentity {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("signed");
    ClientIdentity::of(&[certificate.der().clone()]).expect("it can be read")
}

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).expect("ascii"))
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(text).expect("ascii"))
}

#[test]
fn a_certificate_is_known_by_its_uri_then_its_dns_name_then_its_common_name() {
    let all = identity(|params| {
        params.subject_alt_names =
            vec![dns("A.Test"), uri("spiffe://fleet.test/frpc/seoul-1"), dns("b.test")];
        params.distinguished_name.push(DnType::CommonName, "client one");
    });
    assert_eq!(&*all.name, "spiffe://fleet.test/frpc/seoul-1");
    assert_eq!(all.dns, ["a.test".into(), "b.test".into()]);
    assert_eq!(all.common_name.as_deref(), Some("client one"));
    let named = identity(|params| {
        params.subject_alt_names = vec![dns("a.test")];
        params.distinguished_name.push(DnType::CommonName, "client one");
    });
    assert_eq!(&*named.name, "dns:a.test");
    let common = identity(|params| params.distinguished_name.push(DnType::CommonName, "client one"));
    assert_eq!(&*common.name, "cn:client one");
    let nothing = identity(|_| {});
    assert_eq!(*nothing.name, *format!("sha256:{}", nothing.fingerprint));
    assert_eq!(nothing.fingerprint.len(), 64);
}

#[test]
fn two_uris_or_a_malformed_one_are_no_spiffe_identity() {
    for names in [
        &["spiffe://a.test/x", "spiffe://a.test/y"][..],
        &["spiffe://a.test/x", "https://a.test/"],
        &["https://a.test/x"],
        &["spiffe://"],
        &["spiffe:///x"],
        &["spiffe://A.test/x"],
        &["spiffe://a.test:1/x"],
        &["spiffe://u@a.test/x"],
        &["spiffe://a.test/"],
        &["spiffe://a.test//x"],
        &["spiffe://a.test/../x"],
        &["spiffe://a.test/x?y"],
        &["spiffe://a.test/x#y"],
        &["spiffe://a.test/%41"],
    ] {
        let told = identity(|params| params.subject_alt_names = names.iter().map(|name| uri(name)).collect());
        assert_eq!(told.uri, None, "{names:?}");
        assert!(!told.is(&Identity::Uri(Pattern("*".into()))), "{names:?}");
    }
    for name in ["spiffe://a.test", "spiffe://a-b_c.1/x/y.z", "spiffe://a.test/X"] {
        let told = identity(|params| params.subject_alt_names = vec![uri(name)]);
        assert_eq!(told.uri.as_deref(), Some(name));
    }
}

#[test]
fn names_that_are_none_and_ambiguous_ones_do_not_count() {
    let told = identity(|params| {
        params.subject_alt_names = vec![dns("a b"), dns("a..b"), dns("ok.test"), dns("a\r\nb"), dns("")];
    });
    assert_eq!(told.dns, ["ok.test".into()]);
    let told = identity(|params| params.distinguished_name.push(DnType::CommonName, ""));
    assert_eq!(told.common_name, None);
}

#[test]
fn lists_let_in_whom_they_name() {
    let told = identity(|params| {
        params.subject_alt_names = vec![uri("spiffe://fleet.test/frpc/7"), dns("x.clients.test")];
        params.distinguished_name.push(DnType::CommonName, "robot-7");
    });
    let uris = |text: &str| Identity::Uri(Pattern(text.into()));
    let names = |text: &str| Identity::CommonName(Pattern(text.into()));
    let exact = |text: &str| Identity::Dns(DomainPattern::Exact(text.into()));
    let below = |text: &str| Identity::Dns(DomainPattern::Below(text.into()));
    for yes in
        [uris("spiffe://fleet.test/*"), names("robot-*"), exact("x.clients.test"), below("clients.test")]
    {
        assert!(told.is_allowed(&[names("nobody"), yes.clone()]), "{yes:?}");
    }
    for no in [uris("spiffe://fleet.test"), names("robot"), exact("clients.test"), below("x.clients.test")] {
        assert!(!told.is_allowed(std::slice::from_ref(&no)), "{no:?}");
    }
    assert!(told.is_allowed(&[]), "an empty list lets everybody in");
}

#[test]
fn the_fields_for_the_application_are_one_line_each_whatever_the_names_hold() {
    let told =
        identity(|params| params.distinguished_name.push(DnType::CommonName, "évil\r\nX-Admin: 1 100%"));
    let fields = std::str::from_utf8(&told.fields).expect("ascii");
    let lines: Vec<_> = fields.split_terminator("\r\n").collect();
    let [certificate, name] = lines.as_slice() else { panic!("two lines: {fields:?}") };
    let encoded = certificate.strip_prefix("Client-Cert: :").and_then(|rest| rest.strip_suffix(':'));
    let der = STANDARD.decode(encoded.expect("a byte sequence")).expect("base64");
    assert_eq!(der, told.chain[0].to_vec());
    assert_eq!(*name, "X-Forwarded-Client-Identity: cn:%C3%A9vil%0D%0AX-Admin: 1 100%25");
}

#[test]
fn our_own_fields_are_known_in_every_spelling() {
    for name in [
        "Client-Cert",
        "client_cert",
        "CLIENT-CERT-CHAIN",
        "Client_Cert-Chain",
        "x_forwarded_client-identity",
    ] {
        assert!(is_client_field(name.as_bytes()), "{name}");
    }
    for name in ["client-cart", "clientcert", "x-forwarded-client-identitx", ""] {
        assert!(!is_client_field(name.as_bytes()), "{name}");
    }
}

#[test]
fn a_client_that_is_only_supposed_has_the_names_it_is_given() {
    for text in ["spiffe://a.test/x", "dns:a.test", "cn:robot 7"] {
        let told = ClientIdentity::supposed(text).expect("an identity");
        assert_eq!(&*told.name, text);
        assert!(told.fields.is_empty());
    }
    for text in ["", "a.test", "dns:", "cn:", "spiffe://", "dns:a b"] {
        assert_eq!(ClientIdentity::supposed(text), None, "{text:?}");
    }
}
