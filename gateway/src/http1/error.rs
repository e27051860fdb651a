//! Why a head is refused: one table of variants, labels and statuses.

use std::fmt;

macro_rules! head_errors {
    ($($(#[doc = $doc:literal])+ $name:ident = $status:literal, $label:literal;)+) => {
        /// A head that is malformed, ambiguous or too large.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum HeadError {
            $($(#[doc = $doc])+ $name,)+
        }

        impl HeadError {
            /// All of them, for tables of counters.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Status of the answer to such a request. A response with such a fault is a 502, whatever the fault.
            #[must_use]
            pub const fn status(&self) -> u16 {
                match self {
                    $(Self::$name => $status,)+
                }
            }

            /// Stable name, for logs and metric labels.
            #[must_use]
            pub const fn label(&self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

head_errors! {
    /// LF without CR.
    BareLf = 400, "bare_lf";
    /// CR without LF.
    BareCr = 400, "bare_cr";
    /// NUL or another control byte.
    ControlByte = 400, "control_byte";
    /// The first bytes of a TLS handshake, on a listener for plain text.
    TlsHandshake = 400, "tls_handshake";
    /// The method is no token, or longer than 32 bytes.
    Method = 400, "method";
    /// The first line has not exactly its parts, separated by one space each.
    FirstLine = 400, "first_line";
    /// The target has bytes it must not have, or a form that doesn't fit the method.
    Target = 400, "target";
    /// The first line is longer than allowed.
    LineTooLong = 414, "line_too_long";
    /// Neither `HTTP/1.0` nor `HTTP/1.1`.
    Version = 505, "version";
    /// An HTTP/2 preface.
    Http2Preface = 505, "http2_preface";
    /// The status is no three-digit number from 100.
    Status = 400, "status";
    /// A field name is empty or no token.
    FieldName = 400, "field_name";
    /// Space between a field name and its colon.
    SpaceBeforeColon = 400, "space_before_colon";
    /// A field continues on the next line, or the first field line begins with space.
    ObsFold = 400, "obs_fold";
    /// A line without a colon.
    NoColon = 400, "no_colon";
    /// More fields than allowed.
    TooManyFields = 431, "too_many_fields";
    /// The head is larger than allowed.
    HeadTooLarge = 431, "head_too_large";
    /// No Host in HTTP/1.1.
    NoHost = 400, "no_host";
    /// More than one Host, be they equal.
    RepeatedHost = 400, "repeated_host";
    /// Host is no `name[:port]`.
    InvalidHost = 400, "invalid_host";
    /// Host and the target's authority differ.
    HostMismatch = 400, "host_mismatch";
    /// Content-Length is not 1 to 19 plain digits, or above 2^63 − 1.
    ContentLength = 400, "content_length";
    /// More than one Content-Length, be they equal.
    RepeatedContentLength = 400, "repeated_content_length";
    /// A Content-Length above 0 where no content can be (1xx, 204).
    ContentLengthForbidden = 400, "content_length_forbidden";
    /// Content-Length and Transfer-Encoding.
    LengthAndTransferEncoding = 400, "length_and_transfer_encoding";
    /// More than one Transfer-Encoding.
    RepeatedTransferEncoding = 400, "repeated_transfer_encoding";
    /// A transfer coding other than exactly `chunked`.
    TransferCoding = 501, "transfer_coding";
    /// Transfer-Encoding where it is not allowed (HTTP/1.0, 1xx, 204).
    TransferEncodingForbidden = 400, "transfer_encoding_forbidden";
    /// A name that differs from a framing field's only by `_` for `-`.
    LookalikeName = 400, "lookalike_name";
    /// Connection has an option that is no token, or too many of them.
    ConnectionOption = 400, "connection_option";
    /// Connection names a field that is not hop-by-hop.
    ConnectionNominates = 400, "connection_nominates";
    /// An expectation other than `100-continue`.
    Expectation = 417, "expectation";
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for HeadError {}

/// Why reading stops before the end of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// What is there is right so far.
    NeedMore,
    /// It can't become right.
    Bad(HeadError),
}

impl From<HeadError> for Stop {
    fn from(error: HeadError) -> Self {
        Self::Bad(error)
    }
}
