//! What a login shows of the token it knows (`auth.method = "token"`): the hex MD5 of the token followed by the time in seconds.
//!
//! It isn't bound to a connection, so whoever reads one in clear can show it again: only fresh ones count.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;

/// Farthest that the client's clock may be from ours.
const SKEW: Duration = Duration::from_mins(5);

/// `privilege_key` and `timestamp` of a login. Not to be shown: for five minutes it is as good as the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    key: String,
    timestamp: i64,
}

impl Proof {
    /// As a login says it.
    #[must_use]
    pub const fn new(key: String, timestamp: i64) -> Self {
        Self { key, timestamp }
    }

    /// Whether who made it knows this token, and made it within five minutes of `now`. An empty token is none. O(length of the token).
    #[must_use]
    pub fn is_of(&self, token: &str, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let is_fresh = u64::try_from(self.timestamp).is_ok_and(|then| then.abs_diff(now) <= SKEW.as_secs());
        if token.is_empty() || !is_fresh {
            return false;
        }
        let digest = Md5::new().chain_update(token).chain_update(self.timestamp.to_string()).finalize();
        let expected = format!("{:032x}", u128::from_be_bytes(digest.into()));
        self.key.as_bytes().ct_eq(expected.as_bytes()).into()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf %s open-sesame1795399924 | md5sum`
    const KEY: &str = "a363943771a966372bd81263d2937edf";
    const AT: u64 = 1_795_399_924;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn only_the_token_it_was_made_of_and_only_for_five_minutes() {
        let proof = Proof::new(KEY.into(), AT.cast_signed());
        assert!(proof.is_of("open-sesame", at(AT)));
        assert!(proof.is_of("open-sesame", at(AT + 300)) && proof.is_of("open-sesame", at(AT - 300)));
        assert!(!proof.is_of("open-sesame", at(AT + 301)) && !proof.is_of("open-sesame", at(AT - 301)));
        for token in ["", "open-sesam", "Open-sesame", "open-sesame1"] {
            assert!(!proof.is_of(token, at(AT)), "{token:?}");
        }
    }

    #[test]
    fn no_token_proves_nothing_and_nonsense_neither() {
        // MD5 of the time alone is what a client without a token sends.
        let without = Proof::new("a34fd262baa77a5c0f0e7888161a7e6a".into(), AT.cast_signed());
        assert!(!without.is_of("", at(AT)));
        for (key, time) in [("", AT.cast_signed()), (KEY, -1), (KEY, i64::MIN), (KEY, i64::MAX), ("é", 0)] {
            assert!(!Proof::new(key.into(), time).is_of("open-sesame", at(AT)), "{key} {time}");
        }
    }

    #[test]
    fn it_is_not_shown() {
        assert_eq!(format!("{:?}", Proof::new(KEY.into(), 1)), "Proof(…)");
    }
}
