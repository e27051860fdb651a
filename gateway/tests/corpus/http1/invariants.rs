//! What holds for any bytes at all. Shared by the property tests, the replay of the fuzz corpus and the fuzz targets.

use frp_gateway::http1::{
    Chunk, ChunkError, ChunkedDecoder, Field, HeadError, HeadLimits, Known, Method, RequestBody, RequestHead,
    ResponseBody, ResponseHead, Scan, Span, TargetForm, Version,
};

/// Bounds of all tests here and in the tables.
pub(crate) const LIMITS: HeadLimits = HeadLimits { head_bytes: 16 * 1024, line_bytes: 4 * 1024, fields: 64 };

/// Parses a request head, and checks everything that must be true of it.
pub(crate) fn request(bytes: &[u8]) -> Result<Option<RequestHead>, HeadError> {
    let mut head = RequestHead::default();
    let result = head.parse(bytes, &LIMITS);
    for cut in cuts(bytes) {
        // Reused, as connections reuse it.
        let mut part = RequestHead::default();
        let early = part.parse(
            b"POST /old?x HTTP/1.1\r\nHost: old\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
            &LIMITS,
        );
        assert_eq!(early, Ok(true));
        match part.parse(&bytes[..cut], &LIMITS) {
            Ok(false) => {
                assert!(result != Ok(true) || cut < head.len, "complete at {}, but not at {cut}", head.len)
            }
            other => {
                assert_eq!(other, result, "what comes after byte {cut} changes the verdict");
                if other == Ok(true) {
                    assert_eq!(format!("{part:?}"), format!("{head:?}"), "or the meaning, at {cut}");
                }
            }
        }
    }
    if !result? {
        return Ok(None);
    }
    assert!(head.len <= bytes.len().min(LIMITS.head_bytes));
    assert!(bytes[..head.len].ends_with(b"\r\n\r\n"));
    for span in
        [head.method_span, head.target, head.path, head.host, head.host_name].into_iter().chain(head.query)
    {
        assert!(span.start <= span.end && span.end as usize <= head.len, "{span:?} of {}", head.len);
    }
    fields(&head.fields, &bytes[..head.len]);
    let of = |span: Span| span.of(bytes);
    let count = |known: Known| head.fields.iter().filter(|field| field.known == known).count();
    assert!(!head.method_span.is_empty() && !head.target.is_empty());
    assert!(of(head.host).starts_with(of(head.host_name)));
    assert!(!head.host_name.is_empty() || (head.version == Version::Http10 && count(Known::Host) == 0));
    let hosts = if head.version == Version::Http11 { 1..=1 } else { 0..=1 };
    assert!(hosts.contains(&count(Known::Host)));
    let framed = (count(Known::ContentLength), count(Known::TransferEncoding));
    match head.body {
        RequestBody::None => assert_eq!(framed, (0, 0)),
        RequestBody::Length(_) => assert_eq!(framed, (1, 0)),
        RequestBody::Chunked => assert_eq!((framed, head.version), ((0, 1), Version::Http11)),
    }
    match head.form {
        TargetForm::Origin => {
            assert!(of(head.path).starts_with(b"/"));
            let query = head.query.map(|query| [b"?", of(query)].concat()).unwrap_or_default();
            assert_eq!([of(head.path), &query].concat(), of(head.target));
        }
        TargetForm::Absolute => assert!(of(head.path).starts_with(b"/") && of(head.target).len() > 7),
        TargetForm::Authority => assert_eq!((head.method, head.path.is_empty()), (Method::Connect, true)),
        TargetForm::Asterisk => assert_eq!((head.method, of(head.path)), (Method::Options, &b"*"[..])),
    }
    assert!(!head.upgrade || (head.version == Version::Http11 && count(Known::Upgrade) > 0));
    assert!(!head.expect_continue || (head.version == Version::Http11 && count(Known::Expect) == 1));
    Ok(Some(head))
}

/// Parses a response head, and checks everything that must be true of it.
pub(crate) fn response(bytes: &[u8], method: Method) -> Result<Option<ResponseHead>, HeadError> {
    let mut head = ResponseHead::default();
    let result = head.parse(bytes, &LIMITS, method);
    for cut in cuts(bytes) {
        let mut part = ResponseHead::default();
        let early = part.parse(b"HTTP/1.0 404 Not Found\r\nContent-Length: 9\r\n\r\n", &LIMITS, Method::Get);
        assert_eq!(early, Ok(true));
        match part.parse(&bytes[..cut], &LIMITS, method) {
            Ok(false) => {
                assert!(result != Ok(true) || cut < head.len, "complete at {}, but not at {cut}", head.len)
            }
            other => {
                assert_eq!(other, result, "what comes after byte {cut} changes the verdict");
                if other == Ok(true) {
                    assert_eq!(format!("{part:?}"), format!("{head:?}"), "or the meaning, at {cut}");
                }
            }
        }
    }
    if !result? {
        return Ok(None);
    }
    assert!(head.len <= bytes.len().min(LIMITS.head_bytes));
    assert!(bytes[..head.len].ends_with(b"\r\n\r\n"));
    assert!((100..=999).contains(&head.status), "{}", head.status);
    assert!(head.reason.end as usize <= head.len);
    fields(&head.fields, &bytes[..head.len]);
    assert!(head.body != ResponseBody::UntilClose || !head.keep_alive);
    assert!(!head.upgrade || head.status == 101);
    Ok(Some(head))
}

fn fields(fields: &[Field], head: &[u8]) {
    assert!(fields.len() <= LIMITS.fields);
    let mut end = 0;
    for field in fields {
        let (name, value) = (field.name, field.value);
        assert!(end <= name.start && name.start < name.end, "{field:?}");
        assert!(name.end < value.start && value.start <= value.end, "{field:?}");
        assert!((value.end as usize) < head.len(), "{field:?}");
        end = value.end;
        assert_eq!(field.known, Known::of(name.of(head)));
        assert!(field.hop || !field.known.is_hop());
        let value = value.of(head);
        assert_eq!(value, trim(value), "white space around a value");
        assert!(value.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f)), "{value:?}");
    }
}

fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
    &value[start..end]
}

/// Where to cut: everywhere in short messages, at some places in long ones.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let step = (bytes.len() / 256).max(1);
    (0..=bytes.len()).step_by(step)
}

/// A chunked body as it was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Payload bytes.
    pub(crate) payload: Vec<u8>,
    /// Bytes taken.
    pub(crate) consumed: usize,
    /// The last one was among them.
    pub(crate) done: bool,
}

/// Decodes a chunked body, whole and in pieces of all sizes, and checks that they agree.
pub(crate) fn chunked(bytes: &[u8]) -> Result<Decoded, ChunkError> {
    let whole = decode(bytes, usize::MAX);
    let (mut pieces, mut piece) = (vec![], 1);
    while piece < bytes.len() {
        pieces.push(piece);
        piece += piece.div_ceil(3);
    }
    for piece in pieces {
        assert_eq!(decode(bytes, piece), whole, "in pieces of {piece}");
        assert_eq!(
            scan(bytes, piece),
            whole.clone().map(|it| (it.consumed, it.done)),
            "scanned in pieces of {piece}"
        );
    }
    assert_eq!(scan(bytes, usize::MAX), whole.clone().map(|it| (it.consumed, it.done)));
    whole
}

/// Feeds a decoder with `piece` more bytes at a time, as a connection would.
fn decode(bytes: &[u8], piece: usize) -> Result<Decoded, ChunkError> {
    let mut decoder = ChunkedDecoder::default();
    let mut out = Decoded { payload: vec![], consumed: 0, done: false };
    let mut here = 0usize;
    loop {
        here = bytes.len().min(here.saturating_add(piece));
        loop {
            let input = &bytes[out.consumed..here];
            match decoder.next(input)? {
                Chunk::Data(n) => {
                    assert!(n > 0);
                    out.payload.extend_from_slice(&input[..n]);
                    out.consumed += n;
                }
                Chunk::Framing(n) => {
                    assert!((1..=input.len()).contains(&n));
                    out.consumed += n;
                }
                Chunk::NeedMore => break,
                Chunk::Done => {
                    out.done = true;
                    return Ok(out);
                }
            }
        }
        if here == bytes.len() {
            return Ok(out);
        }
    }
}

fn scan(bytes: &[u8], piece: usize) -> Result<(usize, bool), ChunkError> {
    let mut decoder = ChunkedDecoder::default();
    let (mut at, mut here) = (0, 0usize);
    loop {
        here = bytes.len().min(here.saturating_add(piece));
        let Scan { consumed, done } = decoder.scan(&bytes[at..here])?;
        at += consumed;
        if done || here == bytes.len() {
            return Ok((at, done));
        }
    }
}
