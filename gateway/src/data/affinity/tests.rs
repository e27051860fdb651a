use std::{net::IpAddr, time::Duration};

use frp_gateway_config::{
    model::{AffinityCookie, SameSite, Secure},
    secret::Secret,
};
use proptest::prelude::*;

use super::{Opened, Sealer, Session, cookie_values, key, strip};
use crate::http1::{HeadLimits, RequestHead};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";
const NOW: u64 = 1_800_000_600;
const NONCE: [u8; 24] = [7; 24];
const SESSION: Session = Session { member: 0x0123_4567_89ab_cdef, issued: NOW - 600, used: NOW };
/// Computed by another implementation of HKDF and XChaCha20-Poly1305, for [`KEY`], pool `shop`, cookie `gw`.
const VALUE: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH7rNsFVkp2MH0XZ9M3xhmqv8hxN-KRZ2kVw6jC3VB1zNLsWHscfN2o0g";

fn config() -> AffinityCookie {
    AffinityCookie {
        name: "gw".into(),
        key: Secret::new(KEY),
        old_key: None,
        ttl: None,
        idle: None,
        path: "/".into(),
        domain: None,
        secure: Secure::Auto,
        http_only: true,
        same_site: SameSite::Lax,
        strict: false,
    }
}

fn sealer(change: impl FnOnce(&mut AffinityCookie)) -> Sealer {
    let mut config = config();
    change(&mut config);
    Sealer::new(&config, "shop")
}

fn seal(sealer: &Sealer, session: Session) -> Vec<u8> {
    let mut out = Vec::new();
    sealer.seal(session, NONCE, &mut out);
    out
}

fn good(session: Session) -> Opened {
    Opened::Session { session, renew: false }
}

fn worn(session: Session) -> Opened {
    Opened::Session { session, renew: true }
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn the_format_is_what_another_implementation_computes() {
    let sealer = sealer(|_| {});
    assert_eq!(String::from_utf8(seal(&sealer, SESSION)).unwrap(), VALUE);
    assert_eq!(sealer.open(VALUE.as_bytes(), NOW), good(SESSION));
}

#[test]
fn replicas_agree_and_a_restart_keeps_every_session() {
    let (before, after) = (sealer(|_| {}), sealer(|_| {}));
    assert_eq!(seal(&before, SESSION), seal(&after, SESSION));
    assert_eq!(after.open(&seal(&before, SESSION), NOW), good(SESSION));
}

#[test]
fn sealing_appends_and_the_value_is_short() {
    let mut out = b"before".to_vec();
    sealer(|_| {}).seal(SESSION, NONCE, &mut out);
    let value = out.strip_prefix(b"before").unwrap();
    assert_eq!(value.len(), 87);
    assert_eq!(sealer(|_| {}).open(value, NOW), good(SESSION));
}

#[test]
fn no_flipped_bit_and_no_other_length_opens() {
    let sealer = sealer(|config| config.old_key = Some(Secret::new(OTHER_KEY)));
    let value = seal(&sealer, SESSION);
    for bit in 0..value.len() * 8 {
        let mut forged = value.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(sealer.open(&forged, NOW), Opened::None, "bit {bit}");
    }
    for length in 0..value.len() {
        assert_eq!(sealer.open(&value[..length], NOW), Opened::None, "cut to {length}");
    }
    for tail in ["A", "=", "==", " ", "AAAA", ";"] {
        let longer = [&value, tail.as_bytes()].concat();
        assert_eq!(sealer.open(&longer, NOW), Opened::None, "with {tail:?} after it");
    }
}

#[test]
fn a_cookie_of_another_pool_name_or_key_is_none() {
    let ours = sealer(|_| {});
    let pool = Sealer::new(&config(), "shop-canary");
    let name = sealer(|config| config.name = "gw2".into());
    let key = sealer(|config| config.key = Secret::new(OTHER_KEY));
    // Where pool ends and name begins matters.
    let shifted = Sealer::new(&AffinityCookie { name: "pgw".into(), ..config() }, "sho");
    for (what, other) in [("pool", pool), ("name", name), ("key", key), ("border", shifted)] {
        assert_eq!(ours.open(&seal(&other, SESSION), NOW), Opened::None, "another {what}");
        assert_eq!(
            other.open(&seal(&ours, SESSION), NOW),
            Opened::None,
            "another {what}, the other way round"
        );
    }
}

#[test]
fn the_old_key_opens_and_renews_and_a_third_does_not() {
    let third = "third key third key third key 32";
    let rotated = sealer(|config| {
        config.key = Secret::new(OTHER_KEY);
        config.old_key = Some(Secret::new(KEY));
    });
    assert_eq!(rotated.open(&seal(&sealer(|_| {}), SESSION), NOW), worn(SESSION));
    assert_eq!(rotated.open(&seal(&rotated, SESSION), NOW), good(SESSION));
    assert_eq!(
        rotated.open(&seal(&sealer(|config| config.key = Secret::new(third)), SESSION), NOW),
        Opened::None
    );
}

#[test]
fn a_rotation_in_two_steps_loses_no_session_on_gateways_that_are_a_step_apart() {
    let keys = |key: &str, old: Option<&str>| {
        sealer(|config| {
            config.key = Secret::new(key);
            config.old_key = old.map(Secret::new);
        })
    };
    let steps =
        [keys(KEY, None), keys(KEY, Some(OTHER_KEY)), keys(OTHER_KEY, Some(KEY)), keys(OTHER_KEY, None)];
    for (step, pair) in steps.windows(2).enumerate().take(2) {
        for (from, to) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            assert_ne!(
                to.open(&seal(from, SESSION), NOW),
                Opened::None,
                "between steps {step} and {}",
                step + 1
            );
        }
    }
}

#[test]
fn a_session_ends_when_its_ttl_is_over() {
    let sealer = sealer(|config| config.ttl = seconds(3600));
    let session = Session { issued: NOW, used: NOW, member: 1 };
    let value = seal(&sealer, session);
    assert_eq!(sealer.open(&value, NOW + 3599), good(session));
    assert_eq!(sealer.open(&value, NOW + 3600), Opened::None);
    // Using it doesn't prolong it.
    let session = Session { used: NOW + 3590, ..session };
    assert_eq!(sealer.open(&seal(&sealer, session), NOW + 3600), Opened::None);
}

#[test]
fn a_session_ends_when_it_was_idle_and_is_renewed_from_a_quarter_on() {
    let sealer = sealer(|config| config.idle = seconds(600));
    let value = seal(&sealer, SESSION);
    for (later, opened) in [
        (0, good(SESSION)),
        (150, good(SESSION)),
        (151, worn(SESSION)),
        (599, worn(SESSION)),
        (600, Opened::None),
        (u64::MAX - NOW, Opened::None),
    ] {
        assert_eq!(sealer.open(&value, NOW + later), opened, "{later} s later");
    }
}

#[test]
fn without_ttl_and_idle_a_session_never_ends() {
    let sealer = sealer(|_| {});
    assert_eq!(sealer.open(&seal(&sealer, SESSION), u64::MAX), good(SESSION));
}

#[test]
fn fractions_of_a_second_are_rounded_up() {
    let sealer = sealer(|config| {
        config.ttl = Some(Duration::from_millis(1500));
        config.idle = Some(Duration::from_millis(1));
    });
    let session = Session { issued: NOW - 1, used: NOW, member: 1 };
    assert_eq!(sealer.open(&seal(&sealer, session), NOW), good(session));
}

#[test]
fn a_clock_a_minute_ahead_is_believed_and_no_more() {
    let sealer = sealer(|config| {
        config.ttl = seconds(3600);
        config.idle = seconds(600);
    });
    for ahead in [1, 59, 60] {
        let session = Session { issued: NOW + ahead, used: NOW + ahead, member: 1 };
        assert_eq!(sealer.open(&seal(&sealer, session), NOW), good(session), "{ahead} s ahead");
    }
    for (issued, used) in [(NOW + 61, NOW), (NOW, NOW + 61), (u64::MAX, u64::MAX)] {
        let session = Session { issued, used, member: 1 };
        assert_eq!(sealer.open(&seal(&sealer, session), NOW), Opened::None, "issued {issued} used {used}");
    }
    // Our own clock stands at the epoch.
    assert_eq!(sealer.open(&seal(&sealer, SESSION), 0), Opened::None);
}

#[test]
fn nothing_in_a_value_or_in_debug_output_can_be_read() {
    let sealer = sealer(|_| {});
    let value = seal(&sealer, SESSION);
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &value).unwrap();
    let numbers = [SESSION.member, SESSION.issued, SESSION.used];
    let readable = [b"shop".to_vec(), b"gw".to_vec()]
        .into_iter()
        .chain(numbers.map(|number| number.to_le_bytes().to_vec()))
        .chain(numbers.map(|number| number.to_be_bytes().to_vec()));
    for text in readable {
        let found = |place: &[u8]| place.windows(text.len()).any(|window| window == text);
        assert!(!found(&bytes) && !found(&value), "{text:?} stands in {bytes:?}");
    }
    let mut other = Vec::new();
    sealer.seal(SESSION, [8; 24], &mut other);
    let same = value[32..].iter().zip(&other[32..]).filter(|(a, b)| a == b).count();
    assert!(same < 10, "two nonces give {same} of 55 equal characters: {value:?} {other:?}");
    assert!(!format!("{sealer:?}").contains(KEY), "{sealer:?}");
}

#[test]
fn set_cookie_lines_are_exactly_these() {
    let line = |config: AffinityCookie, https: bool| {
        let mut out = b"X: y\r\n".to_vec();
        Sealer::new(&config, "shop").set_cookie(SESSION, NONCE, https, &mut out);
        String::from_utf8(out).unwrap().replace(VALUE, "VALUE")
    };
    let plain = config();
    assert_eq!(
        line(plain.clone(), false),
        "X: y\r\nSet-Cookie: gw=VALUE; Path=/; HttpOnly; SameSite=Lax\r\n"
    );
    assert_eq!(line(plain, true), "X: y\r\nSet-Cookie: gw=VALUE; Path=/; Secure; HttpOnly; SameSite=Lax\r\n");
    assert_eq!(
        line(AffinityCookie { ttl: seconds(3600), ..config() }, false),
        "X: y\r\nSet-Cookie: gw=VALUE; Path=/; Max-Age=3000; HttpOnly; SameSite=Lax\r\n",
        "600 s of it are over"
    );
    assert_eq!(
        line(AffinityCookie { ttl: seconds(60), ..config() }, false),
        "X: y\r\nSet-Cookie: gw=VALUE; Path=/; Max-Age=0; HttpOnly; SameSite=Lax\r\n"
    );
    assert_eq!(
        line(AffinityCookie { secure: Secure::Never, idle: seconds(60), ..config() }, true),
        "X: y\r\nSet-Cookie: gw=VALUE; Path=/; HttpOnly; SameSite=Lax\r\n"
    );
    let all = AffinityCookie {
        path: "/shop".into(),
        domain: Some("example.com".into()),
        ttl: seconds(86_400),
        secure: Secure::Always,
        http_only: false,
        same_site: SameSite::None,
        ..config()
    };
    assert_eq!(
        line(all, false),
        "X: y\r\nSet-Cookie: gw=VALUE; Path=/shop; Domain=example.com; Max-Age=85800; Secure; SameSite=None\r\n"
    );
    assert_eq!(
        line(AffinityCookie { same_site: SameSite::Strict, ..config() }, false),
        "X: y\r\nSet-Cookie: gw=VALUE; Path=/; HttpOnly; SameSite=Strict\r\n"
    );
}

#[test]
fn cookies_are_found_however_they_are_written() {
    for (header, expected) in [
        ("gw=1", vec!["1"]),
        ("a=0; gw=1; b=2", vec!["1"]),
        ("a=0;gw=1;b=2", vec!["1"]),
        (" gw\t= 1 ;; ", vec!["1"]),
        ("gw=\"1\"", vec!["1"]),
        ("gw=\"", vec!["\""]),
        ("gw=", vec![""]),
        ("gw=a=b", vec!["a=b"]),
        ("gw=1; x=9; gw=2", vec!["1", "2"]),
        ("GW=1; xgw=2; gwx=3; gw; x=gw=4; =gw", vec![]),
        ("", vec![]),
    ] {
        let found: Vec<_> = cookie_values(header.as_bytes(), b"gw").map(String::from_utf8_lossy).collect();
        assert_eq!(found, expected, "{header:?}");
    }
}

#[test]
fn a_sealed_value_is_found_in_the_line_that_set_it() {
    let sealer = sealer(|_| {});
    let mut line = Vec::new();
    sealer.set_cookie(SESSION, NONCE, true, &mut line);
    let header = line.strip_prefix(b"Set-Cookie: ").unwrap().split(|byte| *byte == b';').next().unwrap();
    let value = cookie_values(header, sealer.name()).next().unwrap();
    assert_eq!(sealer.open(value, NOW), good(SESSION));
}

#[test]
fn stripping_keeps_the_others_byte_for_byte() {
    for (header, expected) in [
        ("gw=1", None),
        (" gw = 1 ; ;gw=2;", None),
        ("gw=1; a=2", Some("a=2")),
        ("a=2; gw=1", Some("a=2")),
        ("a=2; gw=1; b=3", Some("a=2; b=3")),
        ("a=2;gw=1;b=3", Some("a=2;b=3")),
        ("gw=1; a=\"x y\" ;  b=é=; gw=2;c", Some("a=\"x y\" ;  b=é=;c")),
        ("GW=1; gwx=2; gw", Some("GW=1; gwx=2; gw")),
    ] {
        let mut out = b"before ".to_vec();
        let left = strip(header.as_bytes(), b"gw", &mut out);
        let rest = String::from_utf8_lossy(out.strip_prefix(b"before ").unwrap()).into_owned();
        assert_eq!((left, rest.as_str()), (expected.is_some(), expected.unwrap_or_default()), "{header:?}");
    }
}

#[test]
fn a_query_parameter_is_taken_as_written_and_the_first_counts() {
    for (query, expected) in [
        ("user=7", Some("7")),
        ("a=1&user=7&user=8", Some("7")),
        ("user=%37+x=y", Some("%37+x=y")),
        ("user&user=8", None),
        ("user=&user=8", None),
        ("User=7&xuser=8&userx=9&a=user", None),
        ("", None),
    ] {
        let found = key::query(query.as_bytes(), b"user").map(String::from_utf8_lossy);
        assert_eq!(found.as_deref(), expected, "{query:?}");
    }
}

#[test]
fn a_header_is_found_in_any_case_and_the_first_counts() {
    let wire = b"GET / HTTP/1.1\r\nHost: a\r\nX-USER: 7\r\nx-user: 8\r\nX-Empty:\r\n\r\n";
    let mut head = RequestHead::default();
    let limits = HeadLimits { head_bytes: 1024, line_bytes: 1024, fields: 10 };
    assert!(head.parse(wire, &limits).unwrap(), "the head is whole");
    assert_eq!(key::header(&head, wire, b"x-user"), Some(b"7".as_slice()));
    assert_eq!(key::header(&head, wire, b"x-empty"), None);
    assert_eq!(key::header(&head, wire, b"x-none"), None);
}

#[test]
fn an_address_is_cut_to_its_network() {
    let key = |ip: &str, v4: u8, v6: u8| key::source_ip(ip.parse::<IpAddr>().unwrap(), v4, v6);
    let v4 = |bytes: [u8; 4]| {
        let mut key = [0; 17];
        key[0] = 4;
        key[1..5].copy_from_slice(&bytes);
        key
    };
    assert_eq!(key("192.0.2.129", 32, 64), v4([192, 0, 2, 129]));
    assert_eq!(key("192.0.2.129", 24, 64), v4([192, 0, 2, 0]));
    assert_eq!(key("192.0.2.129", 25, 64), v4([192, 0, 2, 128]));
    assert_eq!(key("192.0.2.129", 1, 64), v4([128, 0, 0, 0]));
    assert_eq!(key("192.0.2.129", 0, 0), v4([0; 4]));
    assert_eq!(key("192.0.2.129", 255, 255), v4([192, 0, 2, 129]));
    assert_eq!(key("::ffff:192.0.2.129", 24, 64), v4([192, 0, 2, 0]), "mapped IPv4 is IPv4");

    let mut site = [0; 17];
    site[..9].copy_from_slice(&[6, 0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2]);
    assert_eq!(key("2001:db8:1:2:3:4:5:6", 32, 64), site);
    assert_eq!(key("2001:db8:1:2::", 32, 64), key("2001:db8:1:2:ffff::1", 32, 64));
    assert_ne!(key("2001:db8:1:2::", 32, 64), key("2001:db8:1:3::", 32, 64));
    assert_ne!(key("2001:db8::1", 32, 128), key("2001:db8::2", 32, 128));
    assert_eq!(key("2001:db8::1", 32, 200), key("2001:db8::1", 32, 128));
    assert_ne!(key("::", 32, 0), key("0.0.0.0", 0, 0), "the families never meet");
}

proptest! {
    #[test]
    fn random_bytes_never_open(value in prop::collection::vec(any::<u8>(), 0..200), now: u64) {
        let sealer = sealer(|config| config.old_key = Some(Secret::new(OTHER_KEY)));
        prop_assert_eq!(sealer.open(&value, now), Opened::None);
    }

    #[test]
    fn random_base64_of_the_right_length_never_opens(value in "[A-Za-z0-9_-]{86}[AEIMQUYcgkosw048]", now: u64) {
        let sealer = sealer(|config| config.old_key = Some(Secret::new(OTHER_KEY)));
        prop_assert_eq!(sealer.open(value.as_bytes(), now), Opened::None);
    }

    #[test]
    fn every_session_comes_back_as_it_was(
        member: u64,
        issued in 0..=u64::MAX,
        used in 0..=u64::MAX,
        nonce: [u8; 24],
    ) {
        let sealer = sealer(|_| {});
        let session = Session { member, issued, used };
        let mut value = Vec::new();
        sealer.seal(session, nonce, &mut value);
        prop_assert_eq!(sealer.open(&value, u64::MAX), good(session));
    }

    #[test]
    fn stripping_leaves_exactly_the_other_pairs(
        pairs in prop::collection::vec(("(gw|[a-z]{1,3})", "[!-:<-~]{0,4}"), 0..8),
        space in "[ \t]{0,2}",
    ) {
        let join = |pairs: Vec<&(String, String)>| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.join(&format!(";{space}"))
        };
        let expected = join(pairs.iter().filter(|(name, _)| name != "gw").collect());
        let header = join(pairs.iter().collect());
        let mut out = Vec::new();
        let left = strip(header.as_bytes(), b"gw", &mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected.clone());
        prop_assert_eq!(left, !expected.is_empty());
    }

    #[test]
    fn any_cookie_field_is_read_without_panic_and_stripped_for_good(
        header in prop::collection::vec(prop_oneof![prop::sample::select(b"gw=; \"".to_vec()), any::<u8>()], 0..60),
    ) {
        let mut out = Vec::new();
        let left = strip(&header, b"gw", &mut out);
        prop_assert_eq!(left, !out.is_empty());
        prop_assert_eq!(cookie_values(&out, b"gw").count(), 0, "{:?}", out);
    }
}
