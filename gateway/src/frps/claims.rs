//! Who may claim what, and what of a tunnel's metadata counts. Pure. A refusal is a text that the frpc's user reads in its log.

use std::collections::BTreeMap;

use frp_gateway_config::model::{ClaimRule, Claims, DomainPattern, MetadataKey, PoolProtocol, ProxyHeader};
use subtle::ConstantTimeEq;

use super::{ProxyKind, claim::METADATA_PREFIX};

/// Metadata of a login that proves who the user is.
const TOKEN: &str = "gw_token";
/// Most labels of one tunnel.
const MOST_LABELS: usize = 32;
/// Longest label or zone, bytes.
const LONGEST: usize = 63;
/// Largest weight and priority.
const MOST_WEIGHT: u32 = 65_535;
const MOST_PRIORITY: u32 = 7;

/// A claim as policy looks at it.
#[derive(Debug, Clone, Copy)]
pub struct ClaimAbout<'a> {
    /// Name of the proxy as frps lists it.
    pub name: &'a str,
    /// User of FRP.
    pub user: &'a str,
    /// Type, before any takeover.
    pub kind: ProxyKind,
    /// Domains, lower case.
    pub domains: &'a [String],
    /// Remote port; `None` or 0 = frps chooses, or the type has none.
    pub port: Option<u16>,
    /// What the frpc says about it.
    pub metadatas: &'a BTreeMap<String, String>,
}

/// What an frpc says about its tunnel, as far as policy lets it count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelSettings {
    /// `gw_weight`.
    pub weight: Option<u32>,
    /// `gw_zone`.
    pub zone: Option<String>,
    /// `gw_priority`.
    pub priority: Option<u32>,
    /// `gw_protocol`.
    pub protocol: Option<PoolProtocol>,
    /// `gw_proxy_protocol`.
    pub proxy_protocol: Option<ProxyHeader>,
    /// `gw_label_NAME`.
    pub labels: BTreeMap<String, String>,
    /// What was ignored, and why; for people.
    pub faults: Vec<String>,
}

/// Whether a login is allowed; `metas` are those of the whole frpc.
///
/// # Errors
/// The reason, as the frpc's user reads it.
pub fn check_login(
    claims: &Claims,
    frps: &str,
    user: &str,
    metas: &BTreeMap<String, String>,
) -> Result<(), String> {
    let Some(token) = rule(claims, frps, user).and_then(|rule| rule.token.as_ref()) else { return Ok(()) };
    match metas.get(TOKEN) {
        Some(given) if given.as_bytes().ct_eq(token.expose().as_bytes()).into() => Ok(()),
        Some(_) => Err(format!("{}: metadatas.{TOKEN} is wrong", whom(user))),
        None => Err(format!("{} has to show a token: set metadatas.{TOKEN} in frpc.toml", whom(user))),
    }
}

/// Whether the claim is allowed.
///
/// # Errors
/// The reason, as the frpc's user reads it.
pub fn check_claim(claims: &Claims, frps: &str, about: &ClaimAbout<'_>) -> Result<(), String> {
    let whom = whom(about.user);
    let Some(rule) = rule(claims, frps, about.user) else {
        return if claims.allow { Ok(()) } else { Err(format!("{whom} may claim nothing here")) };
    };
    if let Some(reason) = &rule.refuse {
        return Err(format!("{whom} may claim nothing here: {reason}"));
    }
    if let Some(allowed) = &rule.domains
        && let Some(domain) =
            about.domains.iter().find(|domain| !allowed.iter().any(|one| one.contains(domain)))
    {
        let allowed: Vec<_> = allowed.iter().map(written).collect();
        return Err(format!("{whom} may not claim {domain}, only {}", listed(&allowed)));
    }
    if let (Some(allowed), ProxyKind::Tcp | ProxyKind::Udp, Some(port @ 1..)) =
        (&rule.ports, about.kind, about.port)
        && !allowed.iter().any(|(from, to)| (*from..=*to).contains(&port))
    {
        let range =
            |(from, to): &(u16, u16)| if from == to { from.to_string() } else { format!("{from}-{to}") };
        let allowed: Vec<_> = allowed.iter().map(range).collect();
        return Err(format!("{whom} may not claim port {port}, only {}", listed(&allowed)));
    }
    if let Some(most) = rule.max_weight
        && let Some(Ok(weight)) = about.metadatas.get("gw_weight").map(|weight| weight.parse::<u32>())
        && weight > most
    {
        return Err(format!("{whom} may not claim weight {weight}, at most {most} (metadatas.gw_weight)"));
    }
    Ok(())
}

/// What counts of a tunnel's `metadatas`; a weight above the user's largest counts as that.
#[must_use]
pub fn settings(
    claims: &Claims,
    frps: &str,
    user: &str,
    metadatas: &BTreeMap<String, String>,
) -> TunnelSettings {
    let mut settings = TunnelSettings::default();
    let rule = rule(claims, frps, user);
    let ours =
        metadatas.iter().filter_map(|(key, value)| Some((key, key.strip_prefix(METADATA_PREFIX)?, value)));
    for (key, word, value) in ours {
        if key == TOKEN {
            continue;
        }
        let (kind, label) = match word {
            "weight" => (MetadataKey::Weight, ""),
            "zone" => (MetadataKey::Zone, ""),
            "priority" => (MetadataKey::Priority, ""),
            "protocol" => (MetadataKey::Protocol, ""),
            "proxy_protocol" => (MetadataKey::ProxyProtocol, ""),
            word => match word.strip_prefix("label_") {
                Some(label) => (MetadataKey::Labels, label),
                None => {
                    let known =
                        "gw_weight, gw_zone, gw_priority, gw_protocol, gw_proxy_protocol, gw_label_NAME";
                    settings.faults.push(format!("nothing is called {key:?}; there are {known}"));
                    continue;
                }
            },
        };
        if let Some(counted) = rule.and_then(|rule| rule.metadata.as_ref())
            && !counted.contains(&kind)
        {
            settings.faults.push(format!("{key} doesn't count: {} may not set it", whom(user)));
            continue;
        }
        if let Err(fault) = settings.take(kind, label, value) {
            settings.faults.push(format!("{key} = {value:?} doesn't count: {fault}"));
        }
    }
    if let (Some(weight), Some(most)) = (settings.weight, rule.and_then(|rule| rule.max_weight))
        && weight > most
    {
        settings.weight = Some(most);
        settings
            .faults
            .push(format!("gw_weight = {weight} counts as {most}, the most that {} may have", whom(user)));
    }
    settings
}

impl TunnelSettings {
    fn take(&mut self, kind: MetadataKey, label: &str, value: &str) -> Result<(), String> {
        let number = |most: u32| match value.parse::<u32>() {
            Ok(number) if number <= most => Ok(number),
            Ok(_) | Err(_) => Err(format!("it has to be a number from 0 to {most}")),
        };
        let is_name = |text: &str| {
            !text.is_empty()
                && text.len() <= LONGEST
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        match kind {
            MetadataKey::Weight => self.weight = Some(number(MOST_WEIGHT)?),
            MetadataKey::Priority => self.priority = Some(number(MOST_PRIORITY)?),
            MetadataKey::Protocol => match value {
                "h1" => self.protocol = Some(PoolProtocol::H1),
                "h2c" => self.protocol = Some(PoolProtocol::H2c),
                _ => return Err("it has to be h1 or h2c".into()),
            },
            MetadataKey::ProxyProtocol => match value {
                "v1" => self.proxy_protocol = Some(ProxyHeader::V1),
                "v2" => self.proxy_protocol = Some(ProxyHeader::V2),
                _ => return Err("it has to be v1 or v2".into()),
            },
            MetadataKey::Zone if is_name(value) => self.zone = Some(value.to_owned()),
            MetadataKey::Labels if is_name(label) && (value.is_empty() || is_name(value)) => {
                if self.labels.len() >= MOST_LABELS {
                    return Err(format!("a tunnel has at most {MOST_LABELS} labels"));
                }
                self.labels.insert(label.to_owned(), value.to_owned());
            }
            MetadataKey::Zone | MetadataKey::Labels => {
                return Err(format!("at most {LONGEST} letters, digits and . _ -"));
            }
        }
        Ok(())
    }
}

/// The first rule about `user` on `frps`.
fn rule<'a>(claims: &'a Claims, frps: &str, user: &str) -> Option<&'a ClaimRule> {
    claims.rules.iter().find(|rule| {
        (rule.frps.is_empty() || rule.frps.iter().any(|name| name == frps))
            && rule.users.iter().any(|pattern| pattern.fits(user))
    })
}

fn whom(user: &str) -> String {
    if user.is_empty() { "an frpc without a user".into() } else { format!("user {user:?}") }
}

fn written(pattern: &DomainPattern) -> String {
    match pattern {
        DomainPattern::Any => "*".into(),
        DomainPattern::Exact(name) => name.clone(),
        DomainPattern::Below(suffix) => format!("*.{suffix}"),
    }
}

/// `a, b and 3 more`: the text goes into one log line of somebody else.
fn listed(all: &[String]) -> String {
    const SHOWN: usize = 5;
    match all.len() {
        0 => "nothing of the kind".into(),
        n if n > SHOWN => format!("{} and {} more", all[..SHOWN].join(", "), n - SHOWN),
        _ => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use frp_gateway_config::{model::Pattern, secret::Secret};

    use super::*;

    fn claims() -> Claims {
        let rule = |users: &[&str]| ClaimRule {
            users: users.iter().map(|user| Pattern((*user).into())).collect(),
            frps: Vec::new(),
            token: None,
            refuse: None,
            domains: None,
            ports: None,
            max_weight: None,
            metadata: None,
        };
        Claims {
            allow: true,
            share: false,
            rules: vec![
                ClaimRule {
                    token: Some(Secret::new("alice-token")),
                    domains: Some(vec![
                        DomainPattern::Below("alice.test".into()),
                        DomainPattern::Exact("one.test".into()),
                    ]),
                    ports: Some(vec![(22, 22), (20000, 20100)]),
                    max_weight: Some(10),
                    metadata: Some(vec![MetadataKey::Weight, MetadataKey::Labels]),
                    ..rule(&["alice"])
                },
                ClaimRule { refuse: Some("ask ops for a domain".into()), ..rule(&["guest-*"]) },
            ],
        }
    }

    fn check(
        user: &str,
        domains: &[&str],
        port: Option<u16>,
        metadatas: &[(&str, &str)],
    ) -> Result<(), String> {
        let domains: Vec<_> = domains.iter().map(ToString::to_string).collect();
        let metadatas = map(metadatas);
        let kind = if port.is_some() { ProxyKind::Tcp } else { ProxyKind::Http };
        let about = ClaimAbout { name: "web", user, kind, domains: &domains, port, metadatas: &metadatas };
        check_claim(&claims(), "a", &about)
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_refusal_says_who_wanted_what_and_what_is_allowed() {
        assert_eq!(check("alice", &["x.alice.test", "one.test"], None, &[("gw_weight", "10")]), Ok(()));
        assert_eq!(check("bob", &["shop.test"], None, &[]), Ok(()), "nobody speaks of bob");
        let refused = |user, domains: &[&str], port, metadatas: &[(&str, &str)]| {
            check(user, domains, port, metadatas).unwrap_err()
        };
        assert_eq!(
            refused("alice", &["x.alice.test", "shop.test"], None, &[]),
            "user \"alice\" may not claim shop.test, only *.alice.test, one.test"
        );
        assert_eq!(
            refused("alice", &[], Some(80), &[]),
            "user \"alice\" may not claim port 80, only 22, 20000-20100"
        );
        assert_eq!(check("alice", &[], Some(0), &[]), Ok(()), "frps chooses");
        assert_eq!(
            refused("alice", &[], None, &[("gw_weight", "11")]),
            "user \"alice\" may not claim weight 11, at most 10 (metadatas.gw_weight)"
        );
        assert_eq!(
            refused("guest-7", &[], None, &[]),
            "user \"guest-7\" may claim nothing here: ask ops for a domain"
        );
        let closed = Claims { allow: false, ..claims() };
        let nobody = BTreeMap::new();
        let about = ClaimAbout {
            name: "w",
            user: "",
            kind: ProxyKind::Http,
            domains: &[],
            port: None,
            metadatas: &nobody,
        };
        assert_eq!(
            check_claim(&closed, "a", &about).unwrap_err(),
            "an frpc without a user may claim nothing here"
        );
    }

    #[test]
    fn a_login_shows_its_token_and_no_refusal_shows_it() {
        let login = |user: &str, metas: &[(&str, &str)]| check_login(&claims(), "a", user, &map(metas));
        assert_eq!(login("alice", &[("gw_token", "alice-token")]), Ok(()));
        assert_eq!(login("bob", &[]), Ok(()));
        for metas in [&[][..], &[("gw_token", "alice-tokem")]] {
            let refused = login("alice", metas).unwrap_err();
            assert!(refused.contains("gw_token") && !refused.contains("alice-toke"), "{refused}");
        }
    }

    #[test]
    fn metadata_counts_as_far_as_it_is_right_and_allowed() {
        let all = map(&[
            ("gw_weight", "50"),
            ("gw_zone", "seoul"),
            ("gw_priority", "1"),
            ("gw_label_version", "v2"),
            ("gw_protocol", "h1"),
            ("note", "not ours"),
        ]);
        let bob = settings(&claims(), "a", "bob", &all);
        assert_eq!((bob.weight, bob.zone.as_deref(), bob.priority), (Some(50), Some("seoul"), Some(1)));
        assert_eq!((bob.labels, bob.faults), (map(&[("version", "v2")]), Vec::<String>::new()));
        let alice = settings(&claims(), "a", "alice", &all);
        assert_eq!((alice.weight, alice.zone, alice.priority), (Some(10), None, None));
        assert_eq!(alice.faults.len(), 4, "{:?}", alice.faults);
        let wrong = map(&[
            ("gw_weight", "-1"),
            ("gw_wieght", "5"),
            ("gw_priority", "8"),
            ("gw_protocol", "h3"),
            ("gw_zone", "a b"),
        ]);
        let wrong = settings(&claims(), "a", "bob", &wrong);
        assert_eq!(wrong.faults.len(), 5, "{:?}", wrong.faults);
        assert_eq!(TunnelSettings { faults: Vec::new(), ..wrong }, TunnelSettings::default());
    }
}
