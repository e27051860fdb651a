//! JSON of frps's admin API, as far as we read it. Unknown fields are ignored, missing ones and nulls are defaults:
//! versions differ, and a field we don't need must never cost us the listing.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::{Listing, Proxy, ProxyKind, claim};

/// `GET /api/v2/proxies`: the envelope around a page (frp 0.71).
#[derive(Debug, Deserialize)]
pub struct V2Envelope<T> {
    /// What was asked for; null in an error.
    pub data: Option<T>,
}

/// One page.
#[derive(Debug, Deserialize)]
pub struct V2Page {
    /// Number of proxies over all pages.
    pub total: usize,
    /// The proxies of this page. One that isn't as we know them costs us only itself.
    #[serde(default, deserialize_with = "or_default")]
    pub items: Vec<OrUnknown<V2Proxy>>,
}

/// Something of the right shape, or whatever it is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum OrUnknown<T> {
    /// As we know it.
    Known(T),
    /// Something else.
    Unknown(serde::de::IgnoredAny),
}

impl<T> OrUnknown<T> {
    /// What we know.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Unknown(_) => None,
        }
    }
}

/// One proxy, v2.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct V2Proxy {
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    user: String,
    #[serde(default, rename = "clientID", deserialize_with = "or_default")]
    client_id: String,
    #[serde(default, deserialize_with = "or_default")]
    spec: V2Spec,
    #[serde(default, deserialize_with = "or_default")]
    status: V2Status,
}

#[derive(Debug, Default, Deserialize)]
struct V2Spec {
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    kind: String,
    http: Option<Conf>,
    https: Option<Conf>,
    tcp: Option<Conf>,
    udp: Option<Conf>,
    tcpmux: Option<Conf>,
    stcp: Option<Conf>,
    sudp: Option<Conf>,
    xtcp: Option<Conf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct V2Status {
    #[serde(default, deserialize_with = "or_default")]
    phase: String,
    #[serde(default, deserialize_with = "or_default")]
    last_start_at: i64,
}

/// `GET /api/proxy/TYPE` (every version).
#[derive(Debug, Deserialize)]
pub struct V1List {
    /// Null where there is none; an answer without the key is none of frps's.
    #[serde(deserialize_with = "or_default")]
    proxies: Vec<OrUnknown<V1Proxy>>,
}

/// One proxy, v1. `GET /api/proxy/TYPE/NAME` gives one alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct V1Proxy {
    name: String,
    /// Null while the proxy is offline.
    conf: Option<Conf>,
    #[serde(default, deserialize_with = "or_default")]
    status: String,
    /// `11-23 02:12:04`: without a year or zone.
    #[serde(default, deserialize_with = "or_default")]
    last_start_time: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conf {
    #[serde(default, deserialize_with = "or_default")]
    custom_domains: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    subdomain: String,
    #[serde(default, deserialize_with = "or_default")]
    locations: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    metadatas: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    load_balancer: LoadBalancer,
    #[serde(default, deserialize_with = "or_default")]
    remote_port: u16,
}

#[derive(Debug, Default, Clone, Deserialize)]
struct LoadBalancer {
    #[serde(default, deserialize_with = "or_default")]
    group: String,
}

/// `GET /api/serverinfo` (every version).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    /// `subDomainHost` of frps; empty when not set.
    #[serde(default, deserialize_with = "or_default")]
    pub subdomain_host: String,
}

/// A proxy that is online, whose subdomain is not yet joined with the server's host.
#[derive(Debug, Clone)]
pub struct Live {
    proxy: Proxy,
    subdomain: String,
}

impl V2Proxy {
    /// The proxy, if it is online and of a type we know.
    #[must_use]
    pub fn live(self) -> Option<Live> {
        if self.status.phase != "online" {
            return None;
        }
        let spec = self.spec;
        let of = |kind| match kind {
            ProxyKind::Http => spec.http.as_ref(),
            ProxyKind::Https => spec.https.as_ref(),
            ProxyKind::Tcp => spec.tcp.as_ref(),
            ProxyKind::Udp => spec.udp.as_ref(),
            ProxyKind::Tcpmux => spec.tcpmux.as_ref(),
            ProxyKind::Stcp => spec.stcp.as_ref(),
            ProxyKind::Sudp => spec.sudp.as_ref(),
            ProxyKind::Xtcp => spec.xtcp.as_ref(),
        };
        // The word says it; where there is none, the part that is there.
        let kind = ProxyKind::of_word(&spec.kind).or_else(|| {
            ProxyKind::ALL.into_iter().find(|kind| spec.kind.is_empty() && of(*kind).is_some())
        })?;
        let conf = of(kind).cloned();
        let mut live = Live::new(self.name, kind, conf?, self.status.last_start_at.to_string());
        (live.proxy.user, live.proxy.client_id) = (self.user, self.client_id);
        Some(live)
    }
}

impl V1Proxy {
    /// The proxy, if it is online.
    #[must_use]
    pub fn live(self, kind: ProxyKind) -> Option<Live> {
        let conf = self.conf.filter(|_| self.status == "online")?;
        Some(Live::new(self.name, kind, conf, self.last_start_time))
    }
}

impl V1List {
    /// Proxies that are online; all of one type.
    pub fn live(self, kind: ProxyKind) -> impl Iterator<Item = Live> {
        self.proxies.into_iter().filter_map(move |proxy| proxy.known()?.live(kind))
    }
}

impl Live {
    fn new(name: String, kind: ProxyKind, mut conf: Conf, started: String) -> Self {
        conf.custom_domains.iter_mut().for_each(|domain| domain.make_ascii_lowercase());
        let has_port = matches!(kind, ProxyKind::Tcp | ProxyKind::Udp) && conf.remote_port > 0;
        if conf.locations.is_empty() {
            conf.locations.push(String::new());
        }
        conf.locations.sort();
        conf.locations.dedup();
        let proxy = Proxy {
            name,
            kind,
            user: String::new(),
            client_id: String::new(),
            domains: conf.custom_domains,
            locations: conf.locations,
            group: conf.load_balancer.group,
            metadatas: conf.metadatas,
            port: has_port.then_some(conf.remote_port),
            sealed: conf.annotations.remove(claim::ANNOTATION),
            started,
        };
        Self { proxy, subdomain: conf.subdomain }
    }

    /// The proxy with its whole domains. A subdomain without a host is left out: it can't be asked for.
    #[must_use]
    pub fn joined(self, subdomain_host: &str) -> Proxy {
        let Self { mut proxy, subdomain } = self;
        if !subdomain.is_empty() && !subdomain_host.is_empty() {
            proxy.domains.push(format!("{subdomain}.{subdomain_host}").to_ascii_lowercase());
        }
        proxy.domains.sort();
        proxy.domains.dedup();
        proxy
    }
}

impl Listing {
    /// Joins subdomains with `subdomain_host` and sorts.
    #[must_use]
    pub fn new(live: Vec<Live>, subdomain_host: &str) -> Self {
        let mut proxies: Vec<_> = live.into_iter().map(|live| live.joined(subdomain_host)).collect();
        proxies.sort();
        // Paging is no snapshot: a change between two pages may repeat a proxy.
        proxies.dedup_by(|one, other| one.name == other.name);
        Self { proxies, subdomain_host: Some(subdomain_host.to_ascii_lowercase()) }
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_page_of_frp_0_71_gives_its_online_http_proxies() {
        let page: V2Envelope<V2Page> = serde_json::from_str(
            r#"{"code":200,"msg":"success","data":{"total":5,"page":1,"pageSize":50,"items":[
            {"name":"alice.web","user":"alice","clientID":"edge-1","spec":{"type":"http","http":{"annotations":{"note":"hello"},
            "transport":{"useEncryption":false},"loadBalancer":{"group":""},"customDomains":["App.test","app2.test"],"locations":["/","/api"]}},
            "status":{"phase":"online","curConns":1}},
            {"name":"bob.sub","spec":{"type":"http","http":{"subdomain":"Bob"}},"status":{"phase":"online"}},
            {"name":"gone","spec":{"type":"http","http":{}},"status":{"phase":"offline"}},
            7,{"name":7},{"name":"raw","spec":{"type":"tcp","tcp":{"remotePort":20860}},"status":{"phase":"online"}}]}}"#,
        )
        .unwrap();
        let items = page.data.unwrap().items.into_iter();
        let live: Vec<_> = items.filter_map(|item| item.known()?.live()).collect();
        let listing = Listing::new(live, "frp.test");
        let shown: Vec<_> = listing
            .proxies
            .iter()
            .map(|proxy| {
                (
                    &*proxy.name,
                    proxy.kind.word(),
                    proxy.domains.join(" "),
                    proxy.locations.join(" "),
                    proxy.port,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("alice.web", "http", "app.test app2.test".into(), "/ /api".into(), None),
                ("bob.sub", "http", "bob.frp.test".into(), String::new(), None),
                ("raw", "tcp", String::new(), String::new(), Some(20860)),
            ]
        );
        assert_eq!((&*listing.proxies[0].user, &*listing.proxies[0].client_id), ("alice", "edge-1"));
    }

    #[test]
    fn nulls_and_unknown_fields_cost_nothing() {
        let list: V1List = serde_json::from_str(
            r#"{"proxies":[{"name":"a","conf":null,"status":"offline"},{"name":"b","conf":{"customDomains":null,
            "subdomain":"x","surprise":{"deep":[1]}},"status":"online","todayTrafficIn":1}],"more":1}"#,
        )
        .unwrap();
        let live: Vec<_> = list.live(ProxyKind::Http).collect();
        assert_eq!(live.len(), 1);
        assert_eq!(Listing::new(live, "").proxies[0].domains, [] as [&str; 0], "no host, no name to ask for");
        let empty: V1List = serde_json::from_str(r#"{"proxies":null}"#).unwrap();
        assert_eq!(empty.live(ProxyKind::Http).count(), 0);
    }
}
