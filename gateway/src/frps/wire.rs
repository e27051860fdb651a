//! JSON of frps's admin API, as far as we read it. Unknown fields are ignored, missing ones and nulls are defaults:
//! versions differ, and a field we don't need must never cost us the listing.

use serde::{Deserialize, Deserializer};

use super::{Listing, Proxy};

/// `GET /api/v2/proxies`: the envelope around a page (frp 0.71).
#[derive(Debug, Deserialize)]
pub struct V2Envelope {
    /// The page; null in an error.
    pub data: Option<V2Page>,
}

/// One page.
#[derive(Debug, Deserialize)]
pub struct V2Page {
    /// Number of proxies over all pages.
    pub total: usize,
    /// The proxies of this page.
    #[serde(default, deserialize_with = "or_default")]
    pub items: Vec<V2Proxy>,
}

/// One proxy, v2.
#[derive(Debug, Deserialize)]
pub struct V2Proxy {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    spec: V2Spec,
    #[serde(default, deserialize_with = "or_default")]
    status: V2Status,
}

#[derive(Debug, Default, Deserialize)]
struct V2Spec {
    http: Option<Domains>,
}

#[derive(Debug, Default, Deserialize)]
struct V2Status {
    #[serde(default, deserialize_with = "or_default")]
    phase: String,
}

/// `GET /api/proxy/http` (every version).
#[derive(Debug, Deserialize)]
pub struct V1List {
    #[serde(default, deserialize_with = "or_default")]
    proxies: Vec<V1Proxy>,
}

#[derive(Debug, Deserialize)]
struct V1Proxy {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    /// Null while the proxy is offline.
    conf: Option<Domains>,
    #[serde(default, deserialize_with = "or_default")]
    status: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Domains {
    #[serde(default, deserialize_with = "or_default")]
    custom_domains: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    subdomain: String,
    #[serde(default, deserialize_with = "or_default")]
    locations: Vec<String>,
}

/// `GET /api/serverinfo` (every version).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    /// `subDomainHost` of frps; empty when not set.
    #[serde(default, deserialize_with = "or_default")]
    pub subdomain_host: String,
}

/// A live http proxy whose subdomain is not yet joined with the server's host.
#[derive(Debug, Clone)]
pub struct Live {
    name: String,
    domains: Domains,
}

impl V2Proxy {
    /// The proxy, if it is an http one and online.
    #[must_use]
    pub fn live(self) -> Option<Live> {
        let domains = self.spec.http.filter(|_| self.status.phase == "online")?;
        Some(Live { name: self.name, domains })
    }
}

impl V1List {
    /// Proxies that are online.
    #[must_use]
    pub fn live(self) -> Vec<Live> {
        let online = self.proxies.into_iter().filter(|proxy| proxy.status == "online");
        online.filter_map(|proxy| Some(Live { name: proxy.name, domains: proxy.conf? })).collect()
    }
}

impl Live {
    /// Whether its domains can't be told without [`ServerInfo::subdomain_host`].
    #[must_use]
    pub fn has_subdomain(&self) -> bool {
        !self.domains.subdomain.is_empty()
    }
}

impl Listing {
    /// Joins subdomains with `subdomain_host` and sorts. A subdomain without a host is left out: it can't be asked for.
    #[must_use]
    pub fn new(live: Vec<Live>, subdomain_host: &str) -> Self {
        let mut proxies: Vec<_> = live
            .into_iter()
            .map(|Live { name, domains }| {
                let mut all: Vec<_> =
                    domains.custom_domains.iter().map(|domain| domain.to_ascii_lowercase()).collect();
                if !domains.subdomain.is_empty() && !subdomain_host.is_empty() {
                    all.push(format!("{}.{subdomain_host}", domains.subdomain).to_ascii_lowercase());
                }
                let mut locations = domains.locations;
                if locations.is_empty() {
                    locations.push(String::new());
                }
                for list in [&mut all, &mut locations] {
                    list.sort();
                    list.dedup();
                }
                Proxy { name, domains: all, locations, ..Proxy::default() }
            })
            .collect();
        proxies.sort();
        // Paging is no snapshot: a change between two pages may repeat a proxy.
        proxies.dedup();
        Self { proxies, subdomain_host: None }
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
        let page: V2Envelope = serde_json::from_str(
            r#"{"code":200,"msg":"success","data":{"total":4,"page":1,"pageSize":50,"items":[
            {"name":"alice.web","user":"alice","clientID":"edge-1","spec":{"type":"http","http":{"annotations":{"note":"hello"},
            "transport":{"useEncryption":false},"loadBalancer":{"group":""},"customDomains":["App.test","app2.test"],"locations":["/","/api"]}},
            "status":{"phase":"online","curConns":1}},
            {"name":"bob.sub","spec":{"type":"http","http":{"subdomain":"Bob"}},"status":{"phase":"online"}},
            {"name":"gone","spec":{"type":"http","http":{}},"status":{"phase":"offline"}},
            {"name":"raw","spec":{"type":"tcp","tcp":{"remotePort":20860}},"status":{"phase":"online"}}]}}"#,
        )
        .unwrap();
        let live: Vec<_> = page.data.unwrap().items.into_iter().filter_map(V2Proxy::live).collect();
        assert!(live.iter().any(Live::has_subdomain));
        let proxy = |name: &str, domains: &[&str], locations: &[&str]| Proxy {
            name: name.into(),
            domains: domains.iter().map(ToString::to_string).collect(),
            locations: locations.iter().map(ToString::to_string).collect(),
            ..Proxy::default()
        };
        assert_eq!(
            Listing::new(live, "frp.test").proxies,
            [
                proxy("alice.web", &["app.test", "app2.test"], &["/", "/api"]),
                proxy("bob.sub", &["bob.frp.test"], &[""]),
            ]
        );
    }

    #[test]
    fn nulls_and_unknown_fields_cost_nothing() {
        let list: V1List = serde_json::from_str(
            r#"{"proxies":[{"name":"a","conf":null,"status":"offline"},{"name":"b","conf":{"customDomains":null,
            "subdomain":"x","surprise":{"deep":[1]}},"status":"online","todayTrafficIn":1}],"more":1}"#,
        )
        .unwrap();
        let live = list.live();
        assert_eq!(live.len(), 1);
        assert_eq!(Listing::new(live, "").proxies[0].domains, [] as [&str; 0], "no host, no name to ask for");
        let empty: V1List = serde_json::from_str(r#"{"proxies":null}"#).unwrap();
        assert!(empty.live().is_empty());
    }
}
