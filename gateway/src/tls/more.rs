//! Certificates that no file of the configuration names.

use std::{future::Future, pin::Pin, sync::Arc, time::SystemTime};

use rustls::sign::CertifiedKey;

use super::view::CertificateView;

/// Certificates that come at run time. Asked during handshakes: answers must not wait, and should not allocate.
///
/// Names are in lower case, without a final dot, and were sent by whoever connects: anything that a DNS name can be.
pub trait MoreCertificates: std::fmt::Debug + Send + Sync {
    /// The certificate for a name that no file covers. Only listeners with `acme: true` ask.
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>>;

    /// The certificate that proves to the authority that the name is ours (RFC 8737), while such a proof is under way.
    fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>>;

    /// Looks whether somebody else has such a proof under way, so that [`Self::challenge`] has it when this ends. Asked only where
    /// an authority wants to see one that isn't known. Default: nobody has.
    fn look_for_challenge<'a>(&'a self, _name: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(std::future::ready(()))
    }

    /// How orders have ended since the start, by words for metrics. Default none.
    fn orders(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// When the first of them is due to be renewed; in the past while that doesn't succeed. Default never.
    fn next_renewal(&self) -> Option<SystemTime> {
        None
    }

    /// What operators are shown. Default nothing.
    fn shown(&self) -> Vec<CertificateView> {
        Vec::new()
    }
}
