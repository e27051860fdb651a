//! The requests that every generator sends: a browser-like head, rotated over all hosts of the table.

/// Hosts in every contestant's table: `h0.example.com` … `h999.example.com`. `benches/compare` has the same number.
pub const HOSTS: usize = 1_000;

/// One prebuilt request per host, for `path`; `close` adds `Connection: close`.
///
/// About 350 bytes and six headers each, like the Lua script that `benches/compare` gives to wrk.
#[must_use]
pub fn requests(path: &str, close: bool) -> Vec<Vec<u8>> {
    let connection = if close { "Connection: close\r\n" } else { "" };
    (0..HOSTS)
        .map(|host| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: h{host}.example.com\r\n\
                 User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
                 Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n\
                 Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n\
                 Cookie: session=0123456789abcdef0123456789abcdef\r\n{connection}\r\n"
            )
            .into_bytes()
        })
        .collect()
}
