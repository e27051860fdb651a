//! HTTP Basic authentication (RFC 7617), for tunnels that want it: frps would have asked, so we do.

use base64::{
    Engine,
    alphabet::STANDARD as ALPHABET,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};

use crate::{
    frps::BasicAuth,
    http1::{Known, RequestHead},
};

/// Longest text that is decoded, bytes.
const LONGEST: usize = 8 * 1024;
/// With padding, whatever the bits under it: so Go reads it, and with it frps.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Whether the request carries what `wanted` wants. Also in absolute form, where frps would ask for `Proxy-Authorization`:
/// that is a field for proxies that the visitor chose, and we are none.
///
/// Allocates when there is such a field, not otherwise.
#[must_use]
pub fn admits(wanted: &BasicAuth, head: &RequestHead, wire: &[u8]) -> bool {
    credentials(head, wire).is_some_and(|credentials| wanted.matches(&credentials))
}

/// Whether the request authenticates as `user`, whatever the password.
#[must_use]
pub fn is_user(user: &str, head: &RequestHead, wire: &[u8]) -> bool {
    credentials(head, wire).is_some_and(|credentials| {
        credentials.split(|byte| *byte == b':').next().is_some_and(|name| name == user.as_bytes())
    })
}

/// `user:password` of the first `Authorization` field, as frps reads it; `None` when there is none, or it is another scheme.
fn credentials(head: &RequestHead, wire: &[u8]) -> Option<Vec<u8>> {
    let field = head.fields.iter().find(|field| field.known == Known::Authorization)?;
    let value = field.value.of(wire);
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || rest.len() > LONGEST {
        return None;
    }
    BASE64.decode(rest).ok().filter(|credentials| credentials.contains(&b':'))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::http1::HeadLimits;

    fn parsed(target: &str, fields: &str) -> (RequestHead, Vec<u8>) {
        let wire = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        let limits = HeadLimits { head_bytes: 65536, line_bytes: 8192, fields: 100 };
        assert_eq!(head.parse(&wire, &limits).ok(), Some(true), "{fields:?}");
        (head, wire)
    }

    fn basic(text: impl AsRef<[u8]>) -> String {
        format!("Authorization: Basic {}\r\n", STANDARD.encode(text))
    }

    fn admitted(wanted: &BasicAuth, fields: &str) -> bool {
        let (head, wire) = parsed("/", fields);
        admits(wanted, &head, &wire)
    }

    fn is_carol(fields: &str) -> bool {
        let (head, wire) = parsed("/", fields);
        is_user("carol", &head, &wire)
    }

    #[test]
    fn only_the_right_credentials_are_admitted() {
        let wanted = BasicAuth::of("salt", "carol", "s3:cret");
        let right = basic("carol:s3:cret");
        for right in [
            right.clone(),
            right.replace("Basic", "bAsIC"),
            right.replace("Authorization", "aUTHORIZATION"),
            format!("{right}{}", basic("dave:x")),
        ] {
            assert!(admitted(&wanted, &right), "{right}");
        }
        for wrong in [
            String::new(),
            basic("carol:s3"),
            basic("Carol:s3:cret"),
            basic("dave:s3:cret"),
            basic("carol"),
            basic(""),
            right.replace("Basic ", "Basic  "),
            right.replace("Basic ", "Basic"),
            right.replace("Authorization", "Proxy-Authorization"),
            "Authorization: Basic !!!\r\n".into(),
            "Authorization: Basic \r\n".into(),
            "Authorization: Basic\r\n".into(),
            "Authorization: Bearer x\r\n".into(),
            "Authorization: Ba\r\n".into(),
            "Authorization:\r\n".into(),
            format!("{}{right}", basic("dave:x")),
        ] {
            assert!(!admitted(&wanted, &wrong), "{wrong}");
        }
    }

    #[test]
    fn base64_is_read_as_go_reads_it() {
        let wanted = BasicAuth::of("salt", "c", "pw");
        // The last two of six bits before the padding mean nothing to Go.
        for (text, right) in [
            ("YzpwdA==", false),
            ("Yzpwdw==", true),
            ("Yzpwdx==", true),
            ("Yzpwdw", false),
            ("Yzpwdw=", false),
        ] {
            assert_eq!(admitted(&wanted, &format!("Authorization: Basic {text}\r\n")), right, "{text}");
        }
    }

    #[test]
    fn an_absolute_target_wants_the_same_field() {
        let wanted = BasicAuth::of("salt", "carol", "x");
        let (head, wire) = parsed("http://x/", &basic("carol:x"));
        assert!(admits(&wanted, &head, &wire) && is_user("carol", &head, &wire));
        let (head, wire) = parsed("http://x/", &basic("carol:x").replace("Auth", "Proxy-Auth"));
        assert!(!admits(&wanted, &head, &wire) && !is_user("carol", &head, &wire));
    }

    #[test]
    fn a_user_is_known_by_the_name_alone() {
        let (head, wire) = parsed("/", &basic("carol:x"));
        assert!(
            is_user("carol", &head, &wire) && !is_user("caro", &head, &wire) && !is_user("", &head, &wire)
        );
        assert!(is_carol(&basic("carol:")) && is_carol(&basic(b"carol:\xff\0")), "whatever the password");
        assert!(!is_carol(&basic("carol")), "without a colon it is nobody");
    }

    #[test]
    fn credentials_over_the_bound_are_not_decoded() {
        let password = |length: usize| "x".repeat(length);
        let longest = LONGEST / 4 * 3 - "carol:".len();
        assert!(is_carol(&basic(format!("carol:{}", password(longest)))));
        assert!(!is_carol(&basic(format!("carol:{}", password(longest + 1)))));
    }

    proptest! {
        #[test]
        fn exactly_the_credentials_are_admitted(
            user in "[^:]{0,12}", password in ".{0,12}", other in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let wanted = BasicAuth::of("salt", &user, &password);
            let right = format!("{user}:{password}");
            prop_assert!(admitted(&wanted, &basic(&right)));
            prop_assert_eq!(admitted(&wanted, &basic(&other)), other == right.as_bytes());
        }

        #[test]
        fn garbage_is_nobody(text in "[!-~ ]{0,40}") {
            let wanted = BasicAuth::of("salt", "carol", "x");
            for fields in [format!("Authorization: {text}\r\n"), format!("Authorization: Basic {text}\r\n")] {
                prop_assert!(!admitted(&wanted, &fields), "{}", fields);
            }
        }
    }
}
