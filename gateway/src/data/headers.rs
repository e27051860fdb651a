//! What the gateway changes in heads: hop-by-hop fields end here, forwarding fields tell the truth.

use std::{io::Write, net::IpAddr};

use frp_gateway_config::model::Protocol;

use super::affinity::{cookie_values, strip};
use crate::{
    frps::Rewrite,
    http1::{Field, Known, RequestBody, RequestHead, ResponseBody, ResponseHead, TargetForm, Version},
    snapshot::Listener,
    tls::{ClientIdentity, identity::is_client_field},
};

/// Our name in `Via`, and the header that tells our own answers from an application's.
pub const VIA: &str = "1.1 frp-gateway";
/// Set on every answer the gateway makes itself, and on none that it passes on.
pub const OWN_ANSWER: &str = "x-frp-gateway";

/// How a request goes on.
#[derive(Debug, Clone, Copy)]
pub struct Onward<'a> {
    /// The listener it came through.
    pub listener: &'a Listener,
    /// Who sent it.
    pub peer: IpAddr,
    /// Whose certificate its connection has shown.
    pub client: Option<&'a ClientIdentity>,
    /// Pass the protocol change on.
    pub upgrade: bool,
    /// Our own cookie, which the application doesn't see.
    pub hide_cookie: Option<&'a [u8]>,
    /// What the tunnel wants changed, as frps would have done it.
    pub rewrite: Option<&'a Rewrite>,
    /// frps's vhost has no part in it.
    pub direct: bool,
    /// Ask for `100 Continue` although the visitor didn't: nothing is known of the tunnel, so the body waits.
    pub ask_first: bool,
}

/// Writes the head for the endpoint into `out`.
pub fn request(out: &mut Vec<u8>, head: &RequestHead, wire: &[u8], onward: Onward<'_>) {
    let trusted = is_trusted(onward.listener, onward.peer);
    out.clear();
    out.extend_from_slice(head.method_span.of(wire));
    out.push(b' ');
    match head.form {
        TargetForm::Absolute => {
            out.extend_from_slice(if head.path.is_empty() { b"/" } else { head.path.of(wire) });
            if let Some(query) = head.query {
                out.push(b'?');
                out.extend_from_slice(query.of(wire));
            }
        }
        TargetForm::Origin | TargetForm::Authority | TargetForm::Asterisk => {
            out.extend_from_slice(head.target.of(wire));
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    let set: &[(String, String)] = onward.rewrite.map_or(&[], |rewrite| &rewrite.request_headers);
    match onward.rewrite {
        Some(rewrite) if !rewrite.host.is_empty() => out.extend_from_slice(rewrite.host.as_bytes()),
        Some(_) | None => out.extend_from_slice(head.host.of(wire)),
    }
    out.extend_from_slice(b"\r\n");
    let mut saw = Saw::default();
    let mut trailers = false;
    for field in &head.fields {
        if field.hop || is_set(set, field, wire) {
            trailers |= field.known == Known::Te && wants_trailers(field.value.of(wire));
            continue;
        }
        match field.known {
            Known::Host | Known::TransferEncoding | Known::Connection => continue,
            Known::XForwardedFor
            | Known::XForwardedHost
            | Known::XForwardedProto
            | Known::XForwardedPort
            | Known::Forwarded
            | Known::XRealIp => {
                if !trusted {
                    continue;
                }
                match field.known {
                    // Written below, extended by the peer.
                    Known::XForwardedFor | Known::Forwarded => {
                        saw.note(field.known);
                        continue;
                    }
                    _ => saw.note(field.known),
                }
            }
            Known::Expect if onward.ask_first => continue,
            Known::Http2Settings | Known::XGatewayProto => continue,
            // Nobody speaks of certificates in our name, whoever it is.
            Known::Other if is_client_field(field.name.of(wire)) => continue,
            Known::Cookie if onward.hide_cookie.is_some_and(|name| hide(out, field, wire, name)) => continue,
            known => saw.note(known),
        }
        copy(out, field, wire);
    }
    match head.body {
        RequestBody::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        RequestBody::None | RequestBody::Length(_) => {}
    }
    // What the tunnel sets stands alone, ours included.
    let ours = |name: &str| set.is_empty() || !set.iter().any(|(set, _)| set.eq_ignore_ascii_case(name));
    if ours("x-forwarded-for") {
        out.extend_from_slice(b"X-Forwarded-For: ");
        if saw.forwarded_for {
            join(out, head, wire, Known::XForwardedFor);
        }
        write_ip(out, onward.peer);
        out.extend_from_slice(b"\r\n");
    }
    if !saw.forwarded_proto && ours("x-forwarded-proto") {
        out.extend_from_slice(match onward.listener.protocol {
            Protocol::Https => b"X-Forwarded-Proto: https\r\n".as_slice(),
            Protocol::Http | Protocol::Tcp | Protocol::TlsPassthrough | Protocol::Udp | Protocol::Frp => {
                b"X-Forwarded-Proto: http\r\n".as_slice()
            }
        });
    }
    // frps replaces the field above by `http`, whatever the visitor speaks.
    if !onward.direct && is_https(head, wire, onward.listener, onward.peer) && ours("x-gateway-proto") {
        out.extend_from_slice(b"X-Gateway-Proto: https\r\n");
    }
    if !saw.forwarded_host && ours("x-forwarded-host") {
        out.extend_from_slice(b"X-Forwarded-Host: ");
        out.extend_from_slice(head.host.of(wire));
        out.extend_from_slice(b"\r\n");
    }
    if saw.forwarded && ours("forwarded") {
        out.extend_from_slice(b"Forwarded: ");
        join(out, head, wire, Known::Forwarded);
        // RFC 7239 §6: an IPv6 address is bracketed and quoted.
        write_to(out, |out| match onward.peer {
            IpAddr::V4(ip) => write!(out, "for={ip}"),
            IpAddr::V6(ip) => write!(out, "for=\"[{ip}]\""),
        });
        out.extend_from_slice(b"\r\n");
    }
    if !saw.accept_encoding && !onward.direct && ours("accept-encoding") {
        // Without one, frps asks the application for gzip in our name and unpacks the answer.
        out.extend_from_slice(b"Accept-Encoding: identity\r\n");
    }
    if ours("via") {
        out.extend_from_slice(match head.version {
            Version::Http10 => b"Via: 1.0 frp-gateway\r\n",
            Version::Http11 => b"Via: 1.1 frp-gateway\r\n",
        });
    }
    if let Some(client) = onward.client {
        out.extend_from_slice(&client.fields);
    }
    write_set(out, set, is_client_field);
    if onward.ask_first {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    // Said anew at each hop (RFC 9110 §10.1.4); without it, applications keep their trailers to themselves.
    if trailers && !onward.upgrade {
        out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
    }
    if onward.upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\n");
        for field in head.fields.iter().filter(|field| field.known == Known::Upgrade) {
            copy(out, field, wire);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a `TE` field says that trailers are welcome.
#[must_use]
pub fn wants_trailers(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether what `peer` says about forwarding is believed.
fn is_trusted(listener: &Listener, peer: IpAddr) -> bool {
    listener.trusted_proxies.iter().any(|net| net.contains(&peer))
}

/// The visitor's own address: the peer, or behind trusted proxies the last address in `X-Forwarded-For` that is none of
/// theirs.
#[must_use]
pub fn visitor(head: &RequestHead, wire: &[u8], listener: &Listener, peer: IpAddr) -> IpAddr {
    if listener.trusted_proxies.is_empty() || !is_trusted(listener, peer) {
        return peer;
    }
    let fields = head.fields.iter().rev().filter(|field| field.known == Known::XForwardedFor);
    let mut nearest = peer;
    for entry in fields.flat_map(|field| field.value.of(wire).rsplit(|byte| *byte == b',')) {
        let Some(ip) = std::str::from_utf8(entry.trim_ascii()).ok().and_then(|text| text.parse().ok()) else {
            break;
        };
        nearest = ip;
        if !is_trusted(listener, ip) {
            break;
        }
    }
    nearest
}

/// Whether the visitor speaks HTTPS: to us, or as a trusted proxy tells.
#[must_use]
pub fn is_https(head: &RequestHead, wire: &[u8], listener: &Listener, peer: IpAddr) -> bool {
    let told = |known| head.fields.iter().find(|field| field.known == known);
    match Some(Known::XForwardedProto).filter(|_| is_trusted(listener, peer)).and_then(told) {
        Some(field) => field.value.of(wire).eq_ignore_ascii_case(b"https"),
        None => listener.protocol == Protocol::Https,
    }
}

/// Writes a `Cookie` field without the pairs called `name`; `false` when there is none in it, and nothing was written.
fn hide(out: &mut Vec<u8>, field: &Field, wire: &[u8], name: &[u8]) -> bool {
    let value = field.value.of(wire);
    if cookie_values(value, name).next().is_none() {
        return false;
    }
    let before = out.len();
    out.extend_from_slice(field.name.of(wire));
    out.extend_from_slice(b": ");
    if strip(value, name, out) {
        out.extend_from_slice(b"\r\n");
    } else {
        out.truncate(before);
    }
    true
}

/// How an answer goes to the visitor.
#[derive(Debug, Clone, Copy)]
pub struct Homeward<'a> {
    /// The visitor's version.
    pub version: Version,
    /// The connection stays open.
    pub keep_alive: bool,
    /// The chunk framing is taken off (the visitor speaks 1.0).
    pub strip: bool,
    /// A whole line of our own to go with it, or nothing.
    pub set_cookie: &'a [u8],
    /// What the tunnel wants set, as frps would have done it.
    pub rewrite: Option<&'a Rewrite>,
    /// The route's `Strict-Transport-Security`, a whole line instead of the application's; or nothing.
    pub hsts: &'a [u8],
}

/// Writes the head for the visitor into `out`.
pub fn response(out: &mut Vec<u8>, head: &ResponseHead, wire: &[u8], homeward: Homeward<'_>) {
    out.clear();
    status_line(out, head, wire);
    let set: &[(String, String)] = homeward.rewrite.map_or(&[], |rewrite| &rewrite.response_headers);
    for field in &head.fields {
        match field.known {
            _ if is_set(set, field, wire) => continue,
            Known::TransferEncoding | Known::Connection => continue,
            // RFC 9110 §8.6: none in 204; frps and Go send none, others do.
            Known::ContentLength if head.status == 204 => continue,
            Known::Other if is_own_answer(field.name.of(wire)) => continue,
            Known::Other if !homeward.hsts.is_empty() && is_hsts(field.name.of(wire)) => continue,
            _ if field.hop => continue,
            _ => copy(out, field, wire),
        }
    }
    if head.body == ResponseBody::Chunked && !homeward.strip {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match homeward.hsts {
        [] => write_set(out, set, is_own_answer),
        hsts => {
            write_set(out, set, |name| is_own_answer(name) || is_hsts(name));
            out.extend_from_slice(hsts);
        }
    }
    out.extend_from_slice(homeward.set_cookie);
    if !homeward.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if homeward.version == Version::Http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim (1xx) head, or a 101 with its `Upgrade`. What the tunnel sets goes with a 101 only, as in frps: there an
/// interim head passes before the answer is looked at.
pub fn interim(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    wire: &[u8],
    set_cookie: &[u8],
    rewrite: Option<&Rewrite>,
) {
    out.clear();
    status_line(out, head, wire);
    let set: &[(String, String)] =
        rewrite.filter(|_| head.status == 101).map_or(&[], |rewrite| &rewrite.response_headers);
    for field in &head.fields {
        match field.known {
            _ if is_set(set, field, wire) => continue,
            Known::Upgrade if head.status == 101 => copy(out, field, wire),
            Known::TransferEncoding | Known::ContentLength => continue,
            Known::Other if is_own_answer(field.name.of(wire)) => continue,
            _ if field.hop => continue,
            _ => copy(out, field, wire),
        }
    }
    if head.status == 101 {
        write_set(out, set, is_own_answer);
        out.extend_from_slice(set_cookie);
        out.extend_from_slice(b"Connection: upgrade\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether the tunnel sets a field of that name itself.
fn is_set(set: &[(String, String)], field: &Field, wire: &[u8]) -> bool {
    !set.is_empty() && set.iter().any(|(name, _)| field.name.of(wire).eq_ignore_ascii_case(name.as_bytes()))
}

/// Writes what the tunnel sets. Names in two cases are one field: the last of them counts (in frps, any).
fn write_set(out: &mut Vec<u8>, set: &[(String, String)], except: fn(&[u8]) -> bool) {
    for (index, (name, value)) in set.iter().enumerate() {
        let again = set[index + 1..].iter().any(|(later, _)| later.eq_ignore_ascii_case(name));
        if again || except(name.as_bytes()) {
            continue;
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Ours alone, or an application could pass for the gateway.
fn is_own_answer(name: &[u8]) -> bool {
    name.len() == OWN_ANSWER.len() && name.eq_ignore_ascii_case(OWN_ANSWER.as_bytes())
}

fn is_hsts(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"strict-transport-security")
}

fn status_line(out: &mut Vec<u8>, head: &ResponseHead, wire: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(head.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason.of(wire));
    out.extend_from_slice(b"\r\n");
}

fn copy(out: &mut Vec<u8>, field: &Field, wire: &[u8]) {
    out.extend_from_slice(field.name.of(wire));
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value.of(wire));
    out.extend_from_slice(b"\r\n");
}

/// All values of a field, each followed by `, `.
fn join(out: &mut Vec<u8>, head: &RequestHead, wire: &[u8], known: Known) {
    for field in head.fields.iter().filter(|field| field.known == known && !field.value.is_empty()) {
        out.extend_from_slice(field.value.of(wire));
        out.extend_from_slice(b", ");
    }
}

fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    if let IpAddr::V4(ip) = ip {
        // The formatter is three times as slow.
        let mut digits = itoa::Buffer::new();
        for (index, octet) in ip.octets().into_iter().enumerate() {
            if index > 0 {
                out.push(b'.');
            }
            out.extend_from_slice(digits.format(octet).as_bytes());
        }
    } else {
        write_to(out, |out| write!(out, "{ip}"));
    }
}

fn write_to(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) {
    write(out).expect("writing to a Vec cannot fail");
}

/// Which fields went by.
#[derive(Debug, Default)]
struct Saw {
    forwarded_for: bool,
    forwarded_proto: bool,
    forwarded_host: bool,
    forwarded: bool,
    accept_encoding: bool,
}

impl Saw {
    fn note(&mut self, known: Known) {
        match known {
            Known::XForwardedFor => self.forwarded_for = true,
            Known::XForwardedProto => self.forwarded_proto = true,
            Known::XForwardedHost => self.forwarded_host = true,
            Known::Forwarded => self.forwarded = true,
            Known::AcceptEncoding => self.accept_encoding = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
