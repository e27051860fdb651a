//! Reads one answer off a stream and checks it: 200, `Content-Length` framing, no byte too many.

use memchr::memmem;

/// The answer being read. Reused for the next one with [`Reply::reset`].
#[derive(Debug, Default)]
pub struct Reply {
    head: Vec<u8>,
    missing: Option<usize>, // body bytes; None while in the head
    closes: bool,
}

impl Reply {
    /// Takes what a read returned; `true` once the answer is complete.
    ///
    /// # Errors
    /// A status other than 200, no `Content-Length`, or bytes past the end, as text for the report.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, String> {
        if self.missing.is_none() {
            let seen = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = memmem::find(&self.head, b"\r\n\r\n").map(|at| at + 4) else { return Ok(false) };
            self.head.truncate(end);
            bytes = &bytes[end - seen..];
            self.read_head()?;
        }
        let missing = self.missing.unwrap_or(0);
        if bytes.len() > missing {
            return Err(format!("{} bytes after the end of an answer", bytes.len() - missing));
        }
        self.missing = Some(missing - bytes.len());
        Ok(missing == bytes.len())
    }

    /// Whether the whole answer has been read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing == Some(0)
    }

    /// Whether the answer said `Connection: close`.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.closes
    }

    /// Forgets this answer, keeps the buffer.
    pub fn reset(&mut self) {
        self.head.clear();
        self.missing = None;
        self.closes = false;
    }

    fn read_head(&mut self) -> Result<(), String> {
        let head = String::from_utf8_lossy(&self.head);
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            return Err(format!("answer is {status:?}"));
        }
        let mut length = None;
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                self.closes = value.trim().eq_ignore_ascii_case("close");
            }
        }
        self.missing = Some(length.ok_or("answer has no Content-Length")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Reply;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: close\r\n\r\nhello";

    #[test]
    fn an_answer_is_complete_however_it_is_cut() {
        for cut in 1..ANSWER.len() {
            let mut reply = Reply::default();
            assert_eq!(reply.feed(&ANSWER[..cut]), Ok(false), "cut at {cut}");
            assert_eq!(reply.feed(&ANSWER[cut..]), Ok(true), "cut at {cut}");
            assert!(reply.closes() && reply.is_complete(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_a_plain_200_is_an_error() {
        for answer in [
            &b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        ] {
            assert!(Reply::default().feed(answer).is_err(), "{}", String::from_utf8_lossy(answer));
        }
    }
}
