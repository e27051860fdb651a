//! Why a head is refused: one table of labels and statuses.

/// A head that is malformed, ambiguous or too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.label())]
pub enum HeadError {
    /// LF without CR.
    BareLf,
    /// CR without LF.
    BareCr,
    /// NUL or another control byte.
    ControlByte,
    /// The method is no token, or too long.
    Method,
    /// The first line has not exactly its parts, separated by one space each.
    FirstLine,
    /// The target has bytes it must not have, or a form that doesn't fit the method.
    Target,
    /// The first line is longer than allowed.
    LineTooLong,
    /// Not `HTTP/1.0` or `HTTP/1.1`.
    Version,
    /// An HTTP/2 preface.
    Http2Preface,
    /// The status is no three-digit number from 100.
    Status,
    /// A field name is empty or no token.
    FieldName,
    /// Space between a field name and its colon.
    SpaceBeforeColon,
    /// A field continues on the next line.
    ObsFold,
    /// A line without a colon.
    NoColon,
    /// More fields than allowed.
    TooManyFields,
    /// The head is larger than allowed.
    HeadTooLarge,
    /// No Host.
    NoHost,
    /// More than one Host.
    RepeatedHost,
    /// Host is no `name[:port]`.
    InvalidHost,
    /// Host and the target's authority differ.
    HostMismatch,
    /// Content-Length is not plain digits.
    ContentLength,
    /// More than one Content-Length.
    RepeatedContentLength,
    /// Content-Length and Transfer-Encoding.
    LengthAndTransferEncoding,
    /// More than one Transfer-Encoding.
    RepeatedTransferEncoding,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// Transfer-Encoding where it is not allowed (HTTP/1.0, 1xx, 204).
    TransferEncodingForbidden,
    /// A name that differs from a framing field's only by `_` for `-`.
    LookalikeName,
    /// Connection names a field that is not hop-by-hop.
    ConnectionNominates,
    /// An expectation other than `100-continue`.
    Expectation,
}

impl HeadError {
    /// Status of the answer to such a request.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::LineTooLong => 414,
            Self::Expectation => 417,
            Self::TooManyFields | Self::HeadTooLarge => 431,
            Self::TransferCoding => 501,
            Self::Version | Self::Http2Preface => 505,
            Self::BareLf
            | Self::BareCr
            | Self::ControlByte
            | Self::Method
            | Self::FirstLine
            | Self::Target
            | Self::Status
            | Self::FieldName
            | Self::SpaceBeforeColon
            | Self::ObsFold
            | Self::NoColon
            | Self::NoHost
            | Self::RepeatedHost
            | Self::InvalidHost
            | Self::HostMismatch
            | Self::ContentLength
            | Self::RepeatedContentLength
            | Self::LengthAndTransferEncoding
            | Self::RepeatedTransferEncoding
            | Self::TransferEncodingForbidden
            | Self::LookalikeName
            | Self::ConnectionNominates => 400,
        }
    }

    /// Stable name, for logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::ControlByte => "control_byte",
            Self::Method => "method",
            Self::FirstLine => "first_line",
            Self::Target => "target",
            Self::LineTooLong => "line_too_long",
            Self::Version => "version",
            Self::Http2Preface => "http2_preface",
            Self::Status => "status",
            Self::FieldName => "field_name",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::ObsFold => "obs_fold",
            Self::NoColon => "no_colon",
            Self::TooManyFields => "too_many_fields",
            Self::HeadTooLarge => "head_too_large",
            Self::NoHost => "no_host",
            Self::RepeatedHost => "repeated_host",
            Self::InvalidHost => "invalid_host",
            Self::HostMismatch => "host_mismatch",
            Self::ContentLength => "content_length",
            Self::RepeatedContentLength => "repeated_content_length",
            Self::LengthAndTransferEncoding => "length_and_transfer_encoding",
            Self::RepeatedTransferEncoding => "repeated_transfer_encoding",
            Self::TransferCoding => "transfer_coding",
            Self::TransferEncodingForbidden => "transfer_encoding_forbidden",
            Self::LookalikeName => "lookalike_name",
            Self::ConnectionNominates => "connection_nominates",
            Self::Expectation => "expectation",
        }
    }
}
