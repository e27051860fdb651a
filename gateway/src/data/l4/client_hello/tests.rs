use std::sync::Arc;

use proptest::prelude::*;
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, RootCertStore,
    pki_types::{DnsName, ServerName},
};

use super::*;

/// The first flight of a real client that asks for `name` (none: an address is no name).
fn real(name: Option<&str>) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let server = match name {
        Some(name) => ServerName::DnsName(DnsName::try_from(name.to_owned()).expect("a name")),
        None => ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
    };
    let mut client = ClientConnection::new(Arc::new(config), server).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a Vec takes all");
    bytes
}

fn named(name: &str) -> Parsed {
    Parsed::Hello { name: Some(name.into()) }
}

/// The message of `hello` in records of at most `size` bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in hello[5..].chunks(size) {
        out.extend_from_slice(&[22, 3, 1]);
        out.extend_from_slice(&u16::try_from(part.len()).expect("short").to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// A ClientHello of a TLS 1.2 client with these extensions; `None` = without the field.
fn made(extensions: Option<&[(u16, &[u8])]>) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 0x01, 1, 0]);
    if let Some(extensions) = extensions {
        let mut block = Vec::new();
        for (kind, content) in extensions {
            block.extend_from_slice(&kind.to_be_bytes());
            block.extend_from_slice(&u16::try_from(content.len()).expect("short").to_be_bytes());
            block.extend_from_slice(content);
        }
        body.extend_from_slice(&u16::try_from(block.len()).expect("short").to_be_bytes());
        body.extend_from_slice(&block);
    }
    let mut message = vec![1, 0];
    message.extend_from_slice(&u16::try_from(body.len()).expect("short").to_be_bytes());
    message.extend_from_slice(&body);
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&u16::try_from(message.len()).expect("short").to_be_bytes());
    record.extend_from_slice(&message);
    record
}

/// A server_name extension of these names.
fn server_names(names: &[&[u8]]) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        list.push(0);
        list.extend_from_slice(&u16::try_from(name.len()).expect("short").to_be_bytes());
        list.extend_from_slice(name);
    }
    [&u16::try_from(list.len()).expect("short").to_be_bytes()[..], &list].concat()
}

#[test]
fn the_name_of_a_real_client_is_read_in_lower_case_and_without_its_last_dot() {
    assert_eq!(parse(&real(Some("App.Test"))), named("app.test"));
    assert_eq!(parse(&real(None)), Parsed::Hello { name: None }, "an address is no name");
    let dotted = server_names(&[b"APP.test."]);
    assert_eq!(parse(&made(Some(&[(0, &dotted)]))), named("app.test"));
    assert_eq!(parse(&made(None)), Parsed::Hello { name: None }, "no extensions at all");
}

#[test]
fn what_nobody_knows_is_passed_over() {
    let name = server_names(&[b"app.test"]);
    // GREASE, an Encrypted ClientHello, padding.
    let hello =
        made(Some(&[(0x0a0a, &[]), (0xfe0d, &[0; 200]), (0, &name), (21, &[0; 300]), (0xfafa, &[0])]));
    assert_eq!(parse(&hello), named("app.test"));
}

#[test]
fn a_hello_in_many_records_is_one_hello() {
    let hello = real(Some("app.test"));
    for size in [1, 2, 3, 5, 100] {
        let split = in_records(&hello, size);
        assert_eq!(parse(&split), named("app.test"), "records of {size}");
        for cut in 0..split.len() {
            assert_eq!(
                parse(&split[..cut]),
                Parsed::Incomplete,
                "{cut} of {} in records of {size}",
                split.len()
            );
        }
    }
    let followed = [&hello[..], &[20, 3, 3, 0, 1, 1]].concat();
    assert_eq!(parse(&followed), named("app.test"), "what follows is not looked at");
}

#[test]
fn what_is_not_tls_gets_no_alert() {
    for text in
        [&b"GET / HTTP/1.1\r\n"[..], b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", b"SSH-2.0-x\r\n", b"\0", &[22, 9]]
    {
        assert_eq!(parse(text), Parsed::Foreign, "{:?}", text.escape_ascii().to_string());
    }
}

#[test]
fn broken_tls_gets_the_alert_that_fits() {
    let name = server_names(&[b"app.test"]);
    let of = |content: &[u8]| parse(&made(Some(&[(0, content)])));
    for (bytes, alert) in [
        (vec![0x80, 46, 1, 3, 1, 0, 21], Alert::ProtocolVersion),
        (vec![0x80, 46, 1, 0, 2, 0, 21], Alert::ProtocolVersion),
        (vec![23, 3, 3, 0, 1, 0], Alert::UnexpectedMessage),
        (vec![21, 3, 3, 0, 2, 2, 40], Alert::UnexpectedMessage),
        (vec![22, 3, 1, 0, 4, 2, 0, 0, 0], Alert::UnexpectedMessage),
        (vec![22, 3, 1, 0, 0], Alert::DecodeError),
        (vec![22, 3, 1, 0x40, 1], Alert::RecordOverflow),
        (vec![22, 3, 1, 0, 4, 1, 1, 0, 0], Alert::DecodeError),
        (vec![22, 3, 1, 0, 1, 1, 23, 3, 3], Alert::UnexpectedMessage),
        (vec![22, 3, 1, 0, 1, 1, 22, 4, 3], Alert::ProtocolVersion),
        (vec![22, 3, 1, 0, 4, 1, 0, 0, 0], Alert::DecodeError),
        (made(Some(&[(0, &name), (0, &name)])), Alert::IllegalParameter),
    ] {
        assert_eq!(parse(&bytes), Parsed::Broken(alert), "{bytes:?}");
    }
    for (names, alert) in [
        (server_names(&[b"a.test", b"b.test"]), Alert::IllegalParameter),
        (server_names(&[b""]), Alert::IllegalParameter),
        (server_names(&[b"."]), Alert::IllegalParameter),
        (server_names(&[b"a b"]), Alert::IllegalParameter),
        (server_names(&[b"a\0b"]), Alert::IllegalParameter),
        (server_names(&["\u{fc}.test".as_bytes()]), Alert::IllegalParameter),
        (server_names(&[&[b'a'; 256]]), Alert::IllegalParameter),
        (server_names(&[]), Alert::DecodeError),
        (vec![0, 9, 0, 0, 1, b'a'], Alert::DecodeError),
        (vec![], Alert::DecodeError),
    ] {
        assert_eq!(of(&names), Parsed::Broken(alert), "{names:?}");
    }
    let unknown_kind = [&[0, 5, 9, 0, 2][..], b"xx"].concat();
    assert_eq!(of(&unknown_kind), Parsed::Hello { name: None }, "names of other kinds are none of ours");
}

#[test]
fn early_data_is_told_from_the_handshake() {
    let hello = real(Some("app.test"));
    let with = |more: &[u8]| is_handshake_only(&[&hello[..], more].concat());
    assert!(with(b"") && with(&[20, 3, 3, 0, 1, 1]) && with(&[20, 3, 3]) && with(&[22, 3, 3, 0, 9, 1]));
    assert!(!with(&[23]) && !with(&[23, 3, 3, 0, 1, 7]) && !with(&[20, 3, 3, 0, 1, 1, 23, 3]));
}

#[test]
fn an_alert_is_known_again() {
    assert!(Alert::UnrecognizedName.is_all_of(&[21, 3, 3, 0, 2, 2, 112]));
    assert!(!Alert::UnrecognizedName.is_all_of(&[21, 3, 3, 0, 2, 2, 80]));
    assert!(!Alert::UnrecognizedName.is_all_of(&[21, 3, 3, 0, 2, 2, 112, 22]));
    assert_eq!(Alert::InternalError.record(), [21, 3, 1, 0, 2, 2, 80]);
}

proptest! {
    #[test]
    fn garbage_never_panics_and_is_never_awaited_for_ever(bytes: Vec<u8>, kind in 0..3_u8) {
        let begin: &[u8] = match kind { 0 => b"", 1 => &[22, 3, 1, 0x40, 0, 1, 0], _ => &[22, 3, 1, 0, 200, 1, 0, 0, 196] };
        let bytes = [begin, &bytes].concat();
        std::hint::black_box(parse(&bytes));
        let long = [&bytes[..], &vec![22; LONGEST]].concat();
        prop_assert_ne!(parse(&long), Parsed::Incomplete);
    }

    #[test]
    fn a_damaged_hello_never_panics(at: usize, value: u8, cut: usize) {
        let mut hello = made(Some(&[(0, &server_names(&[b"app.test"])), (10, &[0, 2, 0, 29])]));
        let at = at % hello.len();
        hello[at] = value;
        std::hint::black_box(parse(&hello));
        let cut = cut % hello.len();
        std::hint::black_box(parse(&hello[..cut]));
    }

    #[test]
    fn any_split_into_records_is_the_same_hello(sizes in prop::collection::vec(1..400_usize, 1..40)) {
        let hello = made(Some(&[(0, &server_names(&[b"app.test"])), (21, &[0; 500])]));
        let (mut rest, mut out, mut sizes) = (&hello[5..], Vec::new(), sizes.into_iter().cycle());
        while !rest.is_empty() {
            let (part, after) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
            out.extend_from_slice(&[22, 3, 3]);
            out.extend_from_slice(&u16::try_from(part.len()).expect("short").to_be_bytes());
            out.extend_from_slice(part);
            rest = after;
        }
        prop_assert_eq!(parse(&out), named("app.test"));
    }
}

#[test]
fn ssl_2_is_told_from_what_is_not_tls_however_slowly_it_comes() {
    let asks = [0x80, 0x2e, 1, 3, 1, 0, 0x15];
    for n in 0..4 {
        assert_eq!(parse(&asks[..n]), Parsed::Incomplete, "{n} bytes");
    }
    assert_eq!(parse(&asks), Parsed::Broken(Alert::ProtocolVersion));
    assert_eq!(parse(&[0x80, 0x2e, 2]), Parsed::Foreign);
}

#[test]
fn a_name_with_two_dots_at_its_end_is_refused() {
    let name = |name: &[u8]| {
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("short").to_be_bytes();
        let entry = [&[0][..], &length(name), name].concat();
        let list = [&length(&entry)[..], &entry].concat();
        parse(&made(Some(&[(0, &list)])))
    };
    assert_eq!(name(b"a.test."), named("a.test"));
    assert_eq!(name(b"a.test.."), Parsed::Broken(Alert::IllegalParameter));
}
