//! What the sizes of a client's TLS records give away: whether it uses `tcpMux`, and whether it logs in or works.
//!
//! Behind TLS that is passed through, a work connection (`tcpMux = false`) looks like a login, but must reach the frps of its
//! login. With `tcpMux` the first thing a client writes is a yamux header alone, 12 bytes; without, a work connection writes some
//! 40 bytes and a login more than 100. The sizes show in the record headers, which are in clear.

use serde::{Deserialize, Serialize};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A client with `tcpMux`: everything it does is in this connection.
    Mux,
    /// A login without `tcpMux`: work connections will follow.
    Login,
    /// A work connection.
    Work,
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// Payload of the record that ends a client's TLS 1.3 handshake, with SHA-256 and with SHA-384.
const FINISHED: [usize; 2] = [53, 69];
/// Payload of a record with 12 bytes: TLS 1.3, and 1.2 with ChaCha20 and with AES-GCM.
const TWELVE: [usize; 3] = [29, 28, 36];
/// A work connection's message with its run id of at most 64 bytes stays below this, a login above.
const WORK_MOST: usize = 130;
/// Records that are looked at: hello, cipher change, certificates of the client, end of the handshake, data.
const MOST_RECORDS: u8 = 8;

/// Follows a client's TLS records until its purpose is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    header: Vec<u8>,
    /// Bytes of the present record that are still to come.
    skip: usize,
    seen: u8,
    changed: bool,
    /// TLS 1.2, or the end of a TLS 1.3 handshake was seen: the next data decides.
    ready: bool,
    done: bool,
}

impl Records {
    /// Whether there is nothing more to learn.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Looks at the next bytes of the client, without frp's own first byte. O(records).
    pub fn feed(&mut self, mut bytes: &[u8]) -> Option<Purpose> {
        while !self.done && !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (5 - self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if let &[kind, _, _, high, low] = &self.header[..] {
                self.header.clear();
                self.skip = usize::from(u16::from_be_bytes([high, low]));
                if let Some(purpose) = self.record(kind, self.skip) {
                    self.done = true;
                    return Some(purpose);
                }
            }
        }
        None
    }

    fn record(&mut self, kind: u8, length: usize) -> Option<Purpose> {
        self.seen += 1;
        self.done = self.seen >= MOST_RECORDS;
        match kind {
            CHANGE_CIPHER_SPEC => self.changed = true,
            // After the change, in clear: TLS 1.2.
            HANDSHAKE if self.changed => self.ready = true,
            HANDSHAKE => {}
            APPLICATION_DATA if self.ready => {
                return Some(match length {
                    _ if TWELVE.contains(&length) => Purpose::Mux,
                    ..WORK_MOST => Purpose::Work,
                    WORK_MOST.. => Purpose::Login,
                });
            }
            APPLICATION_DATA => self.ready = FINISHED.contains(&length),
            _ => self.done = true,
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(sizes: &[(u8, u16)]) -> Vec<u8> {
        let record = |(kind, length): &(u8, u16)| {
            let [high, low] = length.to_be_bytes();
            [vec![*kind, 3, 3, high, low], vec![0xaa; usize::from(*length)]].concat()
        };
        sizes.iter().flat_map(record).collect()
    }

    fn purpose(sizes: &[(u8, u16)], step: usize) -> Option<Purpose> {
        let (mut all, bytes) = (Records::default(), records(sizes));
        let mut found = None;
        for part in bytes.chunks(step) {
            found = found.or(all.feed(part));
        }
        found
    }

    #[test]
    fn sizes_tell_a_mux_client_from_a_login_and_from_work() {
        for step in [1, 3, 1000] {
            let tls13 = |data| purpose(&[(22, 300), (20, 1), (23, 53), (23, data)], step);
            assert_eq!(tls13(29), Some(Purpose::Mux));
            assert_eq!(tls13(55), Some(Purpose::Work));
            assert_eq!(tls13(240), Some(Purpose::Login));
            let with_certificate =
                purpose(&[(22, 300), (20, 1), (23, 900), (23, 280), (23, 69), (23, 29)], step);
            assert_eq!(with_certificate, Some(Purpose::Mux));
            let tls12 = |data| purpose(&[(22, 300), (22, 70), (20, 1), (22, 40), (23, data)], step);
            assert_eq!(tls12(36), Some(Purpose::Mux));
            assert_eq!(tls12(62), Some(Purpose::Work));
            assert_eq!(purpose(&[(22, 300), (21, 2)], step), None);
        }
    }

    #[test]
    fn looking_ends_by_itself() {
        let mut all = Records::default();
        assert_eq!(all.feed(&records(&[(22, 9); 9])), None);
        assert!(all.is_done());
    }
}
