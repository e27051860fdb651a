use proptest::prelude::*;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn header(bytes: &[u8]) -> (usize, Option<(SocketAddr, SocketAddr)>) {
    match decode(bytes) {
        Decoded::Header { len, source } => (len, source),
        other => panic!("{other:?} for {:?}", bytes.escape_ascii().to_string()),
    }
}

fn refused(bytes: &[u8]) -> &'static str {
    match decode(bytes) {
        Decoded::Invalid(reason) => reason,
        other => panic!("{other:?} for {:?}", bytes.escape_ascii().to_string()),
    }
}

/// A header of version 2 with this command, family and block.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("a short block").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, block].concat()
}

#[test]
fn the_longest_lines_of_the_specification_are_read() {
    // §2.1 gives these worst cases.
    let (len, source) = header(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\nGET /");
    assert_eq!((len, source.map(|s| s.0)), (56, Some(address("255.255.255.255:65535"))));
    let six = b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let all = address("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
    assert_eq!(header(six), (104, Some((all, all))));
    assert_eq!(header(b"PROXY UNKNOWN\r\n"), (15, None));
    let unknown = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(header(unknown), (107, None), "what follows UNKNOWN is ignored");
    let (len, source) = header(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n");
    assert_eq!((len, source), (47, Some((address("192.168.0.1:56324"), address("192.168.0.11:443")))));
}

#[test]
fn a_line_that_is_not_as_the_specification_wants_is_refused() {
    for wrong in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PROXY\r\n",
        b"PROXY TCP4\r\n",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY TCP4 1.2.3.4\xff 1.2.3.4 1 2\r\n",
    ] {
        refused(wrong);
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    assert_eq!(refused(&endless), "PROXY line longer than 107 bytes");
    assert_eq!(decode(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"), Decoded::Incomplete, "a bare LF ends nothing");
}

#[test]
fn every_prefix_of_a_header_is_incomplete() {
    let mut crc = Vec::new();
    encode(ProxyHeader::V2, address("[2001:db8::1]:1"), address("[2001:db8::2]:2"), &mut crc);
    let mut line = Vec::new();
    encode(ProxyHeader::V1, address("1.2.3.4:5"), address("6.7.8.9:10"), &mut line);
    for whole in [crc, line] {
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]), Decoded::Incomplete, "{cut} of {}", whole.len());
        }
    }
}

#[test]
fn binary_headers_of_every_family_are_read() {
    let four = [&[192, 0, 2, 1, 192, 0, 2, 2][..], &[0xdc, 0x04, 0x01, 0xbb]].concat();
    let wanted = Some((address("192.0.2.1:56324"), address("192.0.2.2:443")));
    for family in [0x11, 0x12] {
        assert_eq!(header(&v2(0x21, family, &four)), (28, wanted), "family {family:#x}");
    }
    let mut six = vec![0; 36];
    (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
    assert_eq!(header(&v2(0x21, 0x21, &six)), (52, Some((address("[::1]:3"), address("[::2]:4")))));
    assert_eq!(header(&v2(0x21, 0x31, &[7; 216])), (232, None), "a unix socket has no address for us");
    assert_eq!(header(&v2(0x21, 0x00, b"whatever")), (24, None), "unspecified");
    assert_eq!(header(&v2(0x20, 0x11, &four)), (28, None), "LOCAL: a health check of the proxy itself");
    assert_eq!(header(&v2(0x20, 0x77, &[])), (16, None), "LOCAL: the family is ignored");
}

#[test]
fn a_binary_header_that_is_not_as_the_specification_wants_is_refused() {
    assert_eq!(refused(&v2(0x22, 0x11, &[0; 12])), "PROXY header of an unknown version or command");
    assert_eq!(refused(&v2(0x11, 0x11, &[0; 12])), "PROXY header of an unknown version or command");
    assert_eq!(refused(&v2(0x21, 0x13, &[0; 12])), "PROXY header of an unknown address family");
    assert_eq!(refused(&v2(0x21, 0x41, &[0; 12])), "PROXY header of an unknown address family");
    assert_eq!(refused(&v2(0x21, 0x11, &[0; 11])), "PROXY header too short for its addresses");
    assert_eq!(refused(&v2(0x21, 0x21, &[0; 12])), "PROXY header too short for its addresses");
    assert_eq!(refused(&v2(0x21, 0x11, &[0; 20 * 1024])[..20]), "PROXY header longer than 16 KiB");
    assert_eq!(refused(&v2(0x21, 0x11, &[0; 14])), "PROXY header ends within a TLV");
    let beyond = [&[0; 12][..], &[0x01, 0, 9, b'h']].concat();
    assert_eq!(refused(&v2(0x21, 0x11, &beyond)), "PROXY header ends within a TLV");
    assert_eq!(refused(b"\r\n\r\n\0\r\nQUIT\r"), "no PROXY protocol header");
}

#[test]
fn tlvs_are_skipped_and_a_checksum_among_them_must_be_right() {
    let authority = [&[0x02, 0, 4][..], b"host"].concat();
    let block =
        [&[10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2][..], &authority, &[0x03, 0, 4, 0, 0, 0, 0], &authority];
    let mut bytes = v2(0x21, 0x11, &block.concat());
    let place = FIXED + 12 + authority.len() + 3;
    let sum = crc32c::crc32c(&bytes);
    bytes[place..place + 4].copy_from_slice(&sum.to_be_bytes());
    let len = bytes.len();
    bytes.extend_from_slice(b"first byte");
    assert_eq!(header(&bytes), (len, Some((address("10.0.0.1:1"), address("10.0.0.2:2")))));
    bytes[FIXED] ^= 1;
    assert_eq!(refused(&bytes), "PROXY header's checksum is wrong");
    assert_eq!(
        refused(&v2(0x21, 0x11, &[&[0; 12][..], &[0x03, 0, 1, 0]].concat())),
        "PROXY header's checksum is not 4 bytes"
    );
}

#[test]
fn the_checksum_is_the_one_of_the_specification() {
    // RFC 3720 §B.4: 32 bytes of zeros.
    assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
}

#[test]
fn an_ipv4_visitor_of_an_ipv6_address_is_told_as_ipv6() {
    let mut out = Vec::new();
    encode(ProxyHeader::V1, address("192.0.2.1:5"), address("[2001:db8::1]:80"), &mut out);
    assert_eq!(out, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 5 80\r\n");
    out.clear();
    encode(ProxyHeader::V1, address("[::ffff:192.0.2.1]:5"), address("[::ffff:192.0.2.2]:80"), &mut out);
    assert_eq!(out, b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n", "mapped addresses are IPv4 ones");
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        from: [u8; 16], to: [u8; 16], ports: (u16, u16), kind in 0..3_u8, second: bool, rest: Vec<u8>,
    ) {
        let ip = |bytes: [u8; 16], four: bool| match four {
            true => IpAddr::from(<[u8; 4]>::try_from(&bytes[..4]).expect("four")),
            false => IpAddr::from(bytes).to_canonical(),
        };
        let from = SocketAddr::new(ip(from, kind != 0), ports.0);
        let to = SocketAddr::new(ip(to, kind == 2), ports.1);
        let version = if second { ProxyHeader::V2 } else { ProxyHeader::V1 };
        let mut bytes = Vec::new();
        encode(version, from, to, &mut bytes);
        let whole = bytes.len();
        prop_assert!(whole <= 107);
        bytes.extend_from_slice(&rest);
        let Decoded::Header { len, source: Some((a, b)) } = decode(&bytes) else {
            return Err(TestCaseError::fail(format!("{:?}", decode(&bytes))));
        };
        let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
        prop_assert_eq!((len, canonical(a), canonical(b)), (whole, from, to));
    }

    #[test]
    fn garbage_never_panics_and_is_never_awaited_for_long(bytes: Vec<u8>, cut in 0..64_usize, kind in 0..3_u8) {
        let begin: &[u8] = match kind { 0 => b"", 1 => WORD, _ => &SIGNATURE };
        let bytes = [begin, &bytes].concat();
        std::hint::black_box(decode(&bytes[..cut.min(bytes.len())]));
        if let Decoded::Header { len, .. } = decode(&bytes) {
            prop_assert!(len <= bytes.len());
        }
        let padded = [&bytes[..], &vec![b'x'; LONGEST]].concat();
        prop_assert_ne!(decode(&padded), Decoded::Incomplete);
    }
}
