//! HTTP Basic authentication (RFC 7617), for tunnels that want it: frps would have asked, so we do.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{frps::BasicAuth, http1::RequestHead};

/// Longest field that is looked at, bytes.
const LONGEST: usize = 8 * 1024;

/// Whether the request carries what `wanted` wants.
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
    let field =
        head.fields.iter().find(|field| field.name.of(wire).eq_ignore_ascii_case(b"authorization"))?;
    let value = field.value.of(wire);
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || rest.len() > LONGEST {
        return None;
    }
    STANDARD.decode(rest).ok().filter(|credentials| credentials.contains(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::HeadLimits;

    fn parsed(fields: &str) -> (RequestHead, Vec<u8>) {
        let wire = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        let limits = HeadLimits { head_bytes: 65536, line_bytes: 8192, fields: 100 };
        assert_eq!(head.parse(&wire, &limits).ok(), Some(true));
        (head, wire)
    }

    #[test]
    fn only_the_right_credentials_are_admitted() {
        let wanted = BasicAuth::of("salt", "carol", "s3:cret");
        let admitted = |fields: &str| {
            let (head, wire) = parsed(fields);
            admits(&wanted, &head, &wire)
        };
        let basic = |text: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(text));
        assert!(admitted(&basic("carol:s3:cret")));
        assert!(admitted(&basic("carol:s3:cret").replace("Basic", "bAsIC")));
        for wrong in [
            String::new(),
            basic("carol:s3"),
            basic("dave:s3:cret"),
            basic("carol"),
            "Authorization: Basic !!!\r\n".into(),
            "Authorization: Bearer x\r\n".into(),
            "Authorization: Ba\r\n".into(),
            format!("{}{}", basic("dave:x"), basic("carol:s3:cret")),
        ] {
            assert!(!admitted(&wrong), "{wrong}");
        }
    }

    #[test]
    fn a_user_is_known_by_the_name_alone() {
        let (head, wire) = parsed(&format!("Authorization: Basic {}\r\n", STANDARD.encode("carol:x")));
        assert!(
            is_user("carol", &head, &wire) && !is_user("caro", &head, &wire) && !is_user("", &head, &wire)
        );
    }
}
