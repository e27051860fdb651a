//! `NewProxy` of an http (or https) proxy → the content of a private tcp proxy that carries the original, sealed. A pure function of request
//! and keys, so that gateways and agents answer alike and need no memory.
//!
//! What frps would have refused is refused here with its own words, since frps no longer sees the domains. What the gateway could
//! not do exactly as frps would is left to frps.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    HttpClaim, ProxyKind, Rewrite,
    claim::{ANNOTATION, ANNOTATION_PREFIX},
    seal::Seals,
};

/// Keys of an http proxy that mean nothing to a tcp proxy, or would bring it into a group.
const DROPPED: [&str; 13] = [
    "custom_domains",
    "subdomain",
    "locations",
    "http_user",
    "http_pwd",
    "host_header_rewrite",
    "headers",
    "response_headers",
    "route_by_http_user",
    "group",
    "group_key",
    "remote_port",
    "multiplexer",
];

/// Header fields that frame a message or belong to one connection: a set of these, or of any `proxy-…`, is left to frps.
const NOT_SETTABLE: [&str; 9] = [
    "connection",
    "transfer-encoding",
    "content-length",
    "host",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "expect",
];

/// The content of a `NewProxy` call, as far as we read it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Name as frps will list it.
    pub name: String,
    /// Type; `None` = one that we don't know.
    pub kind: Option<ProxyKind>,
    /// User of FRP.
    pub user: String,
    /// Metadata of its login.
    pub login_metas: BTreeMap<String, String>,
    /// Metadata of the proxy.
    pub metas: BTreeMap<String, String>,
    /// Custom domains, lower case.
    pub custom_domains: Vec<String>,
    /// Subdomain, lower case; empty = none.
    pub subdomain: String,
    /// Remote port; 0 = frps chooses.
    pub remote_port: u16,
}

/// Why a proxy stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Not {
    /// frps would refuse it: so do we.
    Refused(String),
    /// frps serves it by its own vhost.
    Left(&'static str),
}

impl Asked {
    /// Reads the content. `None` when it has no name.
    #[must_use]
    pub fn read(content: &Map<String, Value>) -> Option<Self> {
        let name = text(content, "proxy_name");
        if name.is_empty() {
            return None;
        }
        let login = content.get("user").and_then(Value::as_object);
        Some(Self {
            name: name.to_owned(),
            // frps takes an absent type for tcp.
            kind: match text(content, "proxy_type") {
                "" => Some(ProxyKind::Tcp),
                word => ProxyKind::of_word(word),
            },
            user: login.map_or("", |login| text(login, "user")).to_owned(),
            login_metas: login.map(|login| pairs(login, "metas")).unwrap_or_default(),
            metas: pairs(content, "metas"),
            custom_domains: texts(content, "custom_domains")
                .map(|domain| domain.trim_end_matches('.').to_ascii_lowercase())
                .collect(),
            subdomain: text(content, "subdomain").to_ascii_lowercase(),
            remote_port: content
                .get("remote_port")
                .and_then(Value::as_u64)
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(0),
        })
    }

    /// Every domain it asks for. `subdomain_host`: `None` = not known, empty = frps has none.
    ///
    /// # Errors
    /// What frps would say, in its words.
    pub fn domains(&self, subdomain_host: Option<&str>) -> Result<Vec<String>, String> {
        let host = subdomain_host.unwrap_or_default();
        let labels = |name: &str| name.split('.').count();
        if !host.is_empty()
            && let Some(domain) = self
                .custom_domains
                .iter()
                .find(|domain| labels(domain) > labels(host) && domain.contains(host))
        {
            return Err(format!("custom domain [{domain}] should not belong to subdomain host [{host}]"));
        }
        let mut domains = self.custom_domains.clone();
        if !self.subdomain.is_empty() {
            if subdomain_host == Some("") {
                return Err("subdomain is not supported because this feature is not enabled in server".into());
            }
            if self.subdomain.contains(['.', '*']) {
                return Err("'.' and '*' are not supported in subdomain".into());
            }
            if !host.is_empty() {
                // frps tells its host as it was written; routes and patterns are lower case.
                domains.push(format!("{}.{}", self.subdomain, host.to_ascii_lowercase()));
            }
        }
        domains.sort();
        domains.dedup();
        Ok(domains)
    }
}

/// Takes out the annotations under our prefix that an frpc wrote. Returns whether there were any.
pub fn strip_annotations(content: &mut Map<String, Value>) -> bool {
    let Some(annotations) = content.get_mut("annotations").and_then(Value::as_object_mut) else {
        return false;
    };
    let before = annotations.len();
    annotations.retain(|key, _| !key.to_ascii_lowercase().starts_with(ANNOTATION_PREFIX));
    annotations.len() != before
}

/// Makes `content` that of a private tcp proxy. `call`: id of the plugin call.
///
/// # Errors
/// Why it stays as it is.
pub fn take_over(
    content: &mut Map<String, Value>,
    asked: &Asked,
    (frps, call): (&str, &str),
    subdomain_host: Option<&str>,
    seals: &Seals,
) -> Result<HttpClaim, Not> {
    if !asked.subdomain.is_empty() && subdomain_host.is_none() {
        return Err(Not::Left("subDomainHost of its frps isn't known yet"));
    }
    let domains = asked.domains(subdomain_host).map_err(Not::Refused)?;
    if domains.is_empty() {
        return Err(Not::Left("it names no domain"));
    }
    if asked.metas.get("gw_protocol").is_some_and(|protocol| !matches!(protocol.as_str(), "h1" | "h2c")) {
        return Err(Not::Left("its gw_protocol is neither h1 nor h2c"));
    }
    let headers = |key: &str| -> Result<Vec<(String, String)>, Not> {
        let set: Vec<_> = pairs(content, key).into_iter().collect();
        match set.iter().all(|(name, value)| is_settable(name) && is_value(value)) {
            true => Ok(set),
            false => Err(Not::Left("it sets a header field that only frps may set")),
        }
    };
    let host = text(content, "host_header_rewrite");
    if !is_host(host) {
        return Err(Not::Left("its hostHeaderRewrite is no host"));
    }
    let (user, password) = (text(content, "http_user"), text(content, "http_pwd"));
    let mut locations: Vec<String> = texts(content, "locations").map(ToOwned::to_owned).collect();
    locations.sort();
    locations.dedup();
    if locations.is_empty() {
        locations.push(String::new());
    }
    let claim = HttpClaim {
        user: asked.user.clone(),
        client_id: String::new(),
        call: call.to_owned(),
        domains,
        tls: asked.kind == Some(ProxyKind::Https),
        locations,
        route_by_http_user: text(content, "route_by_http_user").to_owned(),
        group: text(content, "group").to_owned(),
        group_key: seals.group_key(text(content, "group_key")),
        rewrite: Rewrite {
            host: host.to_owned(),
            request_headers: headers("headers")?,
            response_headers: headers("response_headers")?,
        },
        // frps asks for them when either is set.
        auth: (!user.is_empty() || !password.is_empty())
            .then(|| seals.basic_auth(frps, &asked.name, user, password)),
    };
    for key in DROPPED {
        content.remove(key);
    }
    content.insert("proxy_type".into(), "tcp".into());
    let sealed = seals.seal(frps, &asked.name, &claim);
    match content.get_mut("annotations").and_then(Value::as_object_mut) {
        Some(annotations) => {
            annotations.insert(ANNOTATION.into(), sealed.into());
        }
        None => {
            content.insert("annotations".into(), serde_json::json!({ ANNOTATION: sealed }));
        }
    }
    Ok(claim)
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn texts<'a>(map: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a str> {
    map.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn pairs(map: &Map<String, Value>, key: &str) -> BTreeMap<String, String> {
    let all = map.get(key).and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// A field name (RFC 9110 §5.6.2) that is not one of those that frame messages.
fn is_settable(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty()
        && name.bytes().all(is_token)
        && !NOT_SETTABLE.iter().any(|other| name.eq_ignore_ascii_case(other))
        && !name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("proxy-"))
}

/// A field value (RFC 9110 §5.5): no control character but the tab.
fn is_value(value: &str) -> bool {
    value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// Empty, or something that can stand in a `Host` field.
fn is_host(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]~%".contains(&byte))
}

#[cfg(test)]
mod tests;
