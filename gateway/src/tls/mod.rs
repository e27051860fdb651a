//! Certificates of listeners that end TLS: read, checked, watched, and chosen by the name that a client asks for.
//!
//! Reading order: [`Terminator`] (what a listener has), [`names`] (who gets which certificate), [`pair`] and [`leaf`] (what a
//! certificate and its key must be), [`ocsp`] (what is stapled), [`store`] (what is in force, and how a reload changes it),
//! [`keeper`] (files that change), [`more`] (certificates that come at run time), [`view`] (what operators see).
//!
//! Who may connect with which certificate of their own is decided in [`client`]; who that is, in [`identity`].

pub mod client;
mod clients;
mod files;
pub mod identity;
pub mod keeper;
pub mod leaf;
pub mod more;
pub mod names;
pub mod ocsp;
pub mod outbound;
pub mod pair;
pub mod store;
mod terminator;
pub mod view;

#[cfg(test)]
pub(crate) mod testing;

use std::sync::{Arc, LazyLock};

use rustls::{
    CipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
};

pub use self::{
    client::ClientGate,
    identity::ClientIdentity,
    more::MoreCertificates,
    outbound::Outbound,
    store::Store,
    terminator::{ACME_TLS_ALPN, Refused, Settings, Terminator, UNRECOGNIZED_NAME},
};

/// What ends TLS at a listener. Lives as long as the listener; what is in it changes.
pub type TlsSlot = Arc<Terminator>;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = aws_lc_rs::default_provider();
    // 128 bits are beyond anybody's reach, and cost less than 256. Else in the order that rustls has.
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
    Arc::new(provider)
});

const fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The cryptography of the whole process.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}
