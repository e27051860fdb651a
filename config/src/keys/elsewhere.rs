//! Keys that exist, but not where they are looked for: what to write instead.

const OWN_POOL: &str = "give the domain a pool of its own and a route to it: \
    pools: [ { name: NAME, tunnels: { domain: … }, … } ]";
const OF_THE_LISTENER: &str =
    "it belongs to the listener that all frps call: plugin: { … } at the top of the file";
const OF_THE_FRPS: &str =
    "each frps has a secret of its own: frps: [ { name: …, plugin: { secret: … } } ]; what seals is \"key\"";
const TAKEOVER_RULE: &str = "write it into a rule: rules: [ { users: …, http: true } ]";
const CLAIMS_RULE: &str = "write it into a rule: rules: [ { users: …, domains: … } ]";
const POOL_SELECTOR: &str =
    "which tunnels make up a pool stands in the pool: pools: [ { name: NAME, tunnels: { domain: … } } ]";
const OF_THE_POOLS: &str = "settings of the pools stand one level deeper: tunnels: { pool: { … } }";
const WITHIN_TUNNELS: &str = "write it into the selector: tunnels: { domain: … }";

const OF_THE_TLS: &str = "write it under tls: tls: { … }";
const IN_THE_LIST: &str =
    "write it into the list: certificates: [ { cert: /path/chain.pem, key: /path/key.pem } ]";
const OF_CLIENT_AUTH: &str = "write it under client_auth: client_auth: { trust: /path/authority.pem }";
const OF_EXTERNAL_ACCOUNT: &str =
    "write it under external_account: external_account: { key_id: …, hmac_key: \"${NAME}\" }";

/// Title of the section it was found in, key, what to write instead.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "",
        "tls",
        "certificates stand at the listener: listeners: [ { …, protocol: https, tls: { certificates: [ { cert: …, key: … } ] } } ]",
    ),
    ("listeners[]", "certificates", OF_THE_TLS),
    (
        "listeners[]",
        "token",
        "each frps has its own: frps: [ { name: …, control_port: 7000, token: \"${NAME}\" } ]",
    ),
    ("listeners[]", "acme", OF_THE_TLS),
    ("listeners[]", "client_auth", OF_THE_TLS),
    ("listeners[]", "min_version", OF_THE_TLS),
    ("listeners[]", "redirect", "it is of a route: routes: [ { listeners: [NAME], redirect: https } ]"),
    ("listeners[]", "hsts", "it is of a route: routes: [ { …, hsts: on } ]"),
    ("listeners[].tls", "cert", IN_THE_LIST),
    ("listeners[].tls", "key", IN_THE_LIST),
    ("listeners[].tls", "trust", OF_CLIENT_AUTH),
    ("listeners[].tls", "crl", OF_CLIENT_AUTH),
    ("listeners[].tls", "allow", OF_CLIENT_AUTH),
    ("frps[]", "tls", "it is of a pool: pools: [ { …, tls: on } ]"),
    ("pools[]", "http2", "write \"protocol: h2c\""),
    ("acme", "domains", "it is called \"names\" here"),
    ("acme", "key_id", OF_EXTERNAL_ACCOUNT),
    ("acme", "hmac_key", OF_EXTERNAL_ACCOUNT),
    (
        "tunnels.pool",
        "protocol",
        "each tunnel says it for itself: metadatas.gw_protocol = \"h2c\" in its frpc.toml; or give the domain a pool of its own",
    ),
    ("plugin", "secret", OF_THE_FRPS),
    ("plugin", "token", "the token of agents is \"agent_token\""),
    ("frps[].plugin", "key", OF_THE_LISTENER),
    ("frps[].plugin", "old_key", OF_THE_LISTENER),
    ("frps[].plugin", "listen", OF_THE_LISTENER),
    ("frps[].plugin", "allow", OF_THE_LISTENER),
    ("frps[].plugin", "agent_token", OF_THE_LISTENER),
    ("frps[]", "secret", "write plugin: { secret: … }"),
    (
        "agent",
        "secret",
        "the agent answers under the secret of its frps: frps: [ { name: …, plugin: { secret: … } } ]",
    ),
    ("agent", "key", "the agent seals with plugin.key: plugin: { key: … } at the top of the file"),
    ("agent", "agent_token", "it is called \"token\" here: what the gateways have as plugin.agent_token"),
    ("takeover", "frps", TAKEOVER_RULE),
    ("takeover", "users", TAKEOVER_RULE),
    ("takeover", "domains", TAKEOVER_RULE),
    ("claims", "users", CLAIMS_RULE),
    ("claims", "token", CLAIMS_RULE),
    ("claims", "domains", CLAIMS_RULE),
    ("claims", "ports", CLAIMS_RULE),
    ("claims", "max_weight", CLAIMS_RULE),
    ("claims", "metadata", CLAIMS_RULE),
    ("claims", "refuse", "write \"default: refuse\", or a rule: rules: [ { users: …, refuse: REASON } ]"),
    ("tunnels", "domain", POOL_SELECTOR),
    ("tunnels", "user", POOL_SELECTOR),
    ("tunnels", "name", POOL_SELECTOR),
    ("tunnels", "labels", POOL_SELECTOR),
    ("tunnels", "frps", POOL_SELECTOR),
    ("tunnels", "balance", OF_THE_POOLS),
    ("tunnels", "affinity", OF_THE_POOLS),
    ("tunnels", "slow_start", OF_THE_POOLS),
    ("tunnels", "locality", OF_THE_POOLS),
    ("tunnels", "limits", OF_THE_POOLS),
    ("tunnels", "retry", OF_THE_POOLS),
    ("tunnels", "health", OWN_POOL),
    ("tunnels", "outlier", OWN_POOL),
    ("tunnels.pool", "name", "remove it: these pools are named after their host"),
    ("tunnels.pool", "frps", OWN_POOL),
    ("tunnels.pool", "tunnels", OWN_POOL),
    ("tunnels.pool", "health", OWN_POOL),
    ("tunnels.pool", "outlier", OWN_POOL),
    ("tunnels.pool", "panic_threshold", OWN_POOL),
    ("pools[]", "domain", WITHIN_TUNNELS),
    ("pools[]", "user", WITHIN_TUNNELS),
    ("pools[]", "labels", "write it into a selector: tunnels: { labels: … }, or frps: { labels: … }"),
];

/// What to write instead of `key` in the section of this title.
pub(crate) fn elsewhere(title: &str, key: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(section, name, _)| *section == title && *name == key).map(|(.., help)| *help)
}

#[cfg(test)]
mod tests {
    use super::ELSEWHERE;
    use crate::keys::{
        ACME, AGENT, CLAIMS, FRPS, FRPS_PLUGIN, LISTENER, PLUGIN, POOL, ROOT, Section, TAKEOVER, TLS,
        TUNNEL_POOL, TUNNELS,
    };

    #[test]
    fn no_key_is_sent_away_from_where_it_belongs() {
        const SECTIONS: [&Section; 13] = [
            &ACME,
            &AGENT,
            &CLAIMS,
            &FRPS,
            &FRPS_PLUGIN,
            &LISTENER,
            &PLUGIN,
            &POOL,
            &ROOT,
            &TAKEOVER,
            &TLS,
            &TUNNEL_POOL,
            &TUNNELS,
        ];
        for (title, name, _) in ELSEWHERE {
            let section = SECTIONS.iter().find(|section| section.title == *title);
            let section = section.unwrap_or_else(|| panic!("no section is called {title}"));
            assert!(section.keys.iter().all(|key| key.name != *name), "{title} has a key {name}");
            assert!(section.planned.iter().all(|(key, _)| key != name), "{title} plans a key {name}");
        }
    }
}
