//! Basic authentication.

use crate::{frps::BasicAuth, http1::RequestHead};

/// Whether the request carries what `wanted` wants.
#[must_use]
pub fn admits(_wanted: &BasicAuth, _head: &RequestHead, _wire: &[u8]) -> bool {
    false
}

/// Whether the request authenticates as `user`, whatever the password.
#[must_use]
pub fn is_user(_user: &str, _head: &RequestHead, _wire: &[u8]) -> bool {
    false
}
