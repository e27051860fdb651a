//! Addresses, networks, host names, URLs, regular expressions.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{At, Ctx, Fault, text};
use crate::{keys::Kind, model::HostMatch};

/// Largest compiled regular expression, bytes. Generous for paths; stops `(a{1000}){1000}`.
const MAX_REGEX: usize = 1 << 20;

/// `ip:port`; no names, because looking one up is not this crate's (nor a bind's) business.
pub(crate) fn address(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<SocketAddr> {
    let value = text(ctx, at, kind)?;
    if let Ok(address) = value.parse() {
        return Some(address);
    }
    let guess = match value.rsplit_once(':') {
        Some(("" | "*", port)) if port.parse::<u16>().is_ok() => {
            format!("write \"0.0.0.0:{port}\", or \"[::]:{port}\" for IPv6 too")
        }
        Some(("localhost", port)) if port.parse::<u16>().is_ok() => format!("write \"127.0.0.1:{port}\""),
        None if value.parse::<u16>().is_ok() => format!("write \"0.0.0.0:{value}\""),
        None if value.parse::<IpAddr>().is_ok() => "add a port, as in \"0.0.0.0:80\"".to_owned(),
        _ => "write IP:PORT with a port from 0 to 65535, as in \"0.0.0.0:80\" or \"[::]:80\"".to_owned(),
    };
    // The guess repeats the value, which must not be when it came out of a variable.
    let guess =
        if at.raw() == Some(&value) { guess } else { "write IP:PORT, as in \"0.0.0.0:80\"".to_owned() };
    ctx.push(Fault::error(at, "bad-address", format!("{} is no address", at.seen())).help(guess));
    None
}

/// `10.0.0.0/8`, or a single address. Bits beyond the prefix are refused: they hint at a slip.
pub(crate) fn network(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<IpNet> {
    let value = text(ctx, at, kind)?;
    if let Ok(address) = value.parse::<IpAddr>() {
        return Some(address.into());
    }
    let help = match value.parse::<IpNet>() {
        Ok(network) if network.trunc() == network => return Some(network),
        Ok(network) => format!("did you mean \"{}\"?", network.trunc()),
        Err(_) => "write ADDRESS/BITS, as in \"10.0.0.0/8\" or \"fd00::/8\"".to_owned(),
    };
    let help = if at.raw() == Some(&value) { help } else { "write ADDRESS/BITS".to_owned() };
    ctx.push(Fault::error(at, "bad-network", format!("{} is no network", at.seen())).help(help));
    None
}

/// An IP address or a DNS name, without port or scheme.
pub(crate) fn host_name(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let value = text(ctx, at, kind)?;
    if value.parse::<IpAddr>().is_ok() || is_host_name(&value) {
        return Some(value);
    }
    let help = if value.contains("://") {
        "write the name or address alone, without scheme and path"
    } else if value.contains(':') {
        "write the name or address alone; ports have keys of their own (control_port, vhost_http_port)"
    } else {
        "write an IP address or a DNS name, as in \"10.0.0.11\" or \"frps.example.com\""
    };
    ctx.push(Fault::error(at, "bad-host", format!("{} is no host", at.seen())).help(help));
    None
}

/// A DNS name, lower-cased: what a cookie's `Domain` may be.
pub(crate) fn domain(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let value = text(ctx, at, kind)?;
    if is_host_name(&value) {
        return Some(value.to_ascii_lowercase());
    }
    let help = if value.starts_with('.') {
        "leave the leading dot out: subdomains are meant anyhow"
    } else if value.parse::<IpAddr>().is_ok() {
        "browsers take no address here: remove the key"
    } else {
        "write a DNS name, as in \"example.com\""
    };
    ctx.push(Fault::error(at, "bad-domain", format!("{} is no domain", at.seen())).help(help));
    None
}

/// A DNS name, lower-cased, without trailing dot: what frps puts subdomains in front of.
pub(crate) fn subdomain_host(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let value = text(ctx, at, kind)?;
    let plain = value.strip_suffix('.').unwrap_or(&value).to_ascii_lowercase();
    if is_host_name(&plain) {
        return Some(plain);
    }
    let help = if plain.starts_with("*.") || plain.starts_with('.') {
        "leave what stands before the first name out: \"frp.example.com\", as subDomainHost says in frps.toml"
    } else {
        "write what subDomainHost says in its frps.toml, as in \"frp.example.com\""
    };
    ctx.push(Fault::error(at, "bad-domain", format!("{} is no domain", at.seen())).help(help));
    None
}

/// A host, perhaps with a port: what stands in a `Host` field.
pub(crate) fn authority(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let value = text(ctx, at, kind)?;
    if is_authority(&value) {
        return Some(value);
    }
    ctx.push(
        Fault::error(at, "bad-host", format!("{} is no host", at.seen())).help(
            "write the Host that the probe sends, as in \"app.example.com\" or \"app.example.com:8080\"",
        ),
    );
    None
}

/// `http://host[:port]`, nothing else.
pub(crate) fn url(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let value = text(ctx, at, kind)?;
    let (what, example) = if at.path.starts_with("agent") {
        ("address of a gateway", "write \"http://host:port\", as in \"http://10.0.0.5:9901\"")
    } else {
        ("admin URL", "write \"http://host:port\", as in \"http://10.0.0.11:7500\"")
    };
    let help = match value.split_once("://") {
        Some(("http", rest)) => {
            let authority = rest.strip_suffix('/').unwrap_or(rest);
            if is_authority(authority) {
                return Some(format!("http://{authority}"));
            }
            if authority.contains('@') {
                "write user and password under their own keys, not into the URL"
            } else if authority.contains('/') {
                "leave the path out: write \"http://host:port\""
            } else {
                example
            }
        }
        Some(("https", _)) => "https is not supported yet: write \"http://host:port\"",
        _ => example,
    };
    ctx.push(Fault::error(at, "bad-url", format!("{} is no {what}", at.seen())).help(help));
    None
}

/// `https://host[:port]/path`, without user, query and fragment.
pub(crate) fn https_url(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    const EXAMPLE: &str =
        "write \"https://host/path\", as in \"https://acme-v02.api.letsencrypt.org/directory\"";
    let value = text(ctx, at, kind)?;
    let help = match value.split_once("://") {
        Some(("https", rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
            let plain = path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains(['?', '#']);
            if is_authority(authority) && plain {
                return Some(value);
            }
            if authority.contains('@') { "leave user and password out" } else { EXAMPLE }
        }
        Some(("http", _)) => "write https: an authority is asked by https alone",
        _ => EXAMPLE,
    };
    ctx.push(Fault::error(at, "bad-url", format!("{} is no https URL", at.seen())).help(help));
    None
}

/// A host of a match: a name, `*.name`, or an address. Lower-cased, with a warning.
pub(crate) fn host_pattern(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<HostMatch> {
    let value = text(ctx, at, kind)?;
    let plain = value.strip_suffix('.').unwrap_or(&value).to_ascii_lowercase();
    let found = if let Some(suffix) = plain.strip_prefix("*.") {
        is_host_name(suffix).then(|| HostMatch::Wildcard(suffix.to_owned()))
    } else {
        let is_address = plain.parse::<std::net::Ipv4Addr>().is_ok() || is_bracketed_v6(&plain);
        (is_address || is_host_name(&plain)).then(|| HostMatch::Exact(plain.clone()))
    };
    if found.is_some() {
        if plain != value {
            ctx.push(
                Fault::warning(at, "normalised", format!("{} is matched as a lower-case name", at.seen()))
                    .help("hosts are compared in lower case, without a trailing dot"),
            );
        }
        return found;
    }
    let of_route = at.path.starts_with("routes");
    let help = if plain == "*" {
        if of_route { "leave \"host\" out to match every host" } else { "write \"*\" for every domain" }
    } else if plain.contains("://") || plain.contains('/') {
        if of_route {
            "write the host alone; the path has a key of its own: match.path"
        } else {
            "write the domain alone, without scheme and path"
        }
    } else if plain.contains('*') {
        "\"*\" stands only for whole labels at the front, as in \"*.example.com\""
    } else if plain.contains(':') && !of_route {
        "leave the port out: a domain has none"
    } else if plain.contains(':') {
        "leave the port out: it is cut off the request's Host before the comparison"
    } else if !plain.is_ascii() {
        "write international names in their ASCII form (xn--…)"
    } else {
        "write a name like \"shop.example.com\" or \"*.example.com\""
    };
    ctx.push(Fault::error(at, "bad-host", format!("{} is no host pattern", at.seen())).help(help));
    None
}

/// A regular expression that compiles when anchored at both ends. A plain text gets a warning.
pub(crate) fn regular_expression(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let pattern = text(ctx, at, kind)?;
    // Alone first: "a)|(b" is only a regular expression once it stands between the anchors' brackets.
    let alone = compile(&pattern);
    if let Err(error) = alone.and_then(|()| compile(&format!("^(?:{pattern})$"))) {
        let reason = match error {
            regex::Error::CompiledTooBig(limit) => format!("it compiles to more than {limit} bytes"),
            other => {
                let text = other.to_string();
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        };
        ctx.push(
            Fault::error(at, "bad-regex", format!("{} is no regular expression: {reason}", at.seen()))
                .help("the syntax is that of Rust's regex crate (no look-around, no back-references)"),
        );
        return None;
    }
    if !pattern.contains(['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$']) {
        ctx.push(
            Fault::warning(at, "regex-is-literal", format!("{} is a plain text", at.seen())).help(
                "write it without \"regex:\" (\"exact:\" for a path): that is faster and means the same",
            ),
        );
    }
    Some(pattern)
}

fn compile(pattern: &str) -> Result<(), regex::Error> {
    regex::RegexBuilder::new(pattern).size_limit(MAX_REGEX).build().map(|_| ())
}

/// A DNS name: labels of letters, digits, `-` and `_`. A last label of digits alone is a mistyped IPv4 address.
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let digits_last = text.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !digits_last
}

fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let good_port = port.is_none_or(|p| {
        p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|number| number != 0)
    });
    let good_host = host.parse::<std::net::Ipv4Addr>().is_ok() || is_bracketed_v6(host) || is_host_name(host);
    good_port && good_host
}

fn is_bracketed_v6(text: &str) -> bool {
    text.strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .is_some_and(|t| t.parse::<std::net::Ipv6Addr>().is_ok())
}
