//! One plugin call → its answer. Pure: a function of the call, the policy file and what is known at the moment, without I/O, since
//! frps sets no deadline on the call and its frpc waits meanwhile.
//!
//! frps decodes a changed content onto an empty value: what isn't sent back is lost. So the whole object goes back, unknown keys
//! included, or `unchange`.

use std::time::SystemTime;

use frp_gateway_config::{
    model::{self, Config},
    secret::Secret,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::{
    ProxyKind,
    claims::{self, ClaimAbout},
    heard::Heard,
    seal::Seals,
    takeover::{self, Asked, Not},
};
use crate::frp_wire::Proof;

/// All that decides, compiled from a configuration.
#[derive(Debug)]
pub struct Rules {
    seals: Seals,
    frps: Vec<(String, model::FrpsPlugin, Option<String>)>,
    takeover: model::Takeover,
    claims: model::Claims,
    agent_token: Option<Secret>,
    /// `auth.token` by name of the frps.
    tokens: Vec<(String, Secret)>,
}

/// A call as it arrives.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// `op` of the query.
    pub op: &'a str,
    /// `X-Frp-Reqid`.
    pub id: &'a str,
    /// JSON.
    pub body: &'a [u8],
}

/// What is known beyond the policy file.
pub struct Context<'a> {
    /// `subDomainHost` of the frps as it told: `None` = not known yet, empty = it has none.
    pub subdomain_host: Option<&'a str>,
    /// Whether somebody else has what is claimed: the reason to refuse.
    pub conflict: &'a dyn Fn(&Question<'_>) -> Option<String>,
    /// The time, by which a login's key is fresh.
    pub now: SystemTime,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("subdomain_host", &self.subdomain_host).finish_non_exhaustive()
    }
}

/// An http claim that policy allows; the question is whether the host is free.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Name of the frps.
    pub frps: &'a str,
    /// Name of the proxy.
    pub name: &'a str,
    /// User of FRP.
    pub user: &'a str,
    /// Domains, lower case.
    pub domains: &'a [String],
    /// They are server names of an https proxy.
    pub tls: bool,
    /// Path prefixes; `[""]` for none.
    pub locations: &'a [String],
    /// `routeByHTTPUser`; empty = none.
    pub http_user: &'a str,
    /// FRP group and the digest of its key, when it has both.
    pub group: Option<(&'a str, &'a str)>,
}

/// What to answer, and what it tells.
#[derive(Debug)]
pub struct Decision {
    /// JSON.
    pub answer: Vec<u8>,
    /// For directory and audit log.
    pub heard: Option<Heard>,
    /// How it ended: `unchanged`, `taken_over`, `refused`, `left`, `invalid`.
    pub result: &'static str,
    /// Why it was left to frps, or is invalid; for the log.
    pub why: Option<&'static str>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    op: String,
    content: Option<Map<String, Value>>,
}

impl Rules {
    /// From a configuration; `None` when nobody calls us.
    #[must_use]
    pub fn new(config: &Config) -> Option<Self> {
        let plugin = config.plugin.as_ref()?;
        let frps = config.frps.iter();
        Some(Self {
            seals: Seals::new(&plugin.key, plugin.old_key.as_ref()),
            frps: frps
                .filter_map(|frps| {
                    Some((frps.name.clone(), frps.plugin.clone()?, frps.subdomain_host.clone()))
                })
                .collect(),
            takeover: config.takeover.clone(),
            claims: config.claims.clone(),
            agent_token: plugin.agent_token.clone(),
            tokens: config
                .frps
                .iter()
                .filter_map(|frps| Some((frps.name.clone(), frps.token.clone()?)))
                .collect(),
        })
    }

    /// Which frps calls `/frps/SECRET`. All secrets are compared, each in constant time.
    #[must_use]
    pub fn frps_of(&self, secret: &str) -> Option<&str> {
        let mut found = None;
        for (name, plugin, _) in &self.frps {
            if plugin.secret.expose().as_bytes().ct_eq(secret.as_bytes()).into() {
                found = Some(name.as_str());
            }
        }
        found
    }

    /// Whether an agent may report with this bearer token.
    #[must_use]
    pub fn is_agent(&self, token: &str) -> bool {
        self.agent_token
            .as_ref()
            .is_some_and(|wanted| wanted.expose().as_bytes().ct_eq(token.as_bytes()).into())
    }

    /// Whether that frps has us for a plugin.
    #[must_use]
    pub fn knows(&self, frps: &str) -> bool {
        self.frps.iter().any(|(name, _, _)| name == frps)
    }

    /// Decides on a call of `frps`.
    #[must_use]
    pub fn decide(&self, frps: &str, call: Call<'_>, context: &Context<'_>) -> Decision {
        let Ok(Body { op, content: given }) = serde_json::from_slice::<Body>(call.body) else {
            return invalid("its body is no JSON object as frps sends it");
        };
        // The query and the body name the operation; a call where they differ is not one of frps.
        if !op.is_empty() && !call.op.is_empty() && op != call.op {
            return invalid("query and body name different operations");
        }
        let op = if op.is_empty() { call.op } else { &op };
        let no_content = given.is_none();
        let content = given.unwrap_or_default();
        match op {
            "Login" | "NewProxy" | "CloseProxy" if no_content => invalid("it has no content"),
            "Login" => self.login(frps, &content, context.now),
            "NewProxy" => self.new_proxy(frps, call.id, content, context),
            "CloseProxy" => {
                let name = word(&content, "proxy_name");
                if name.is_empty() {
                    return invalid("the proxy has no name");
                }
                let user = content.get("user").and_then(Value::as_object).map(|user| word(user, "user"));
                let heard = Heard::Closing { name, user: user.unwrap_or_default() };
                unchanged(Some(heard))
            }
            // Not asked for, and harmless.
            "Ping" | "NewWorkConn" | "NewUserConn" => Decision {
                why: Some(
                    "its ops should be Login, NewProxy and CloseProxy only: with others, tunnels die when we are away",
                ),
                ..unchanged(None)
            },
            _ => invalid("its operation is unknown"),
        }
    }

    fn login(&self, frps: &str, content: &Map<String, Value>, now: SystemTime) -> Decision {
        let user = word(content, "user");
        let metas = content.get("metas").and_then(Value::as_object).into_iter().flatten();
        let metas =
            metas.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        let refused = claims::check_login(&self.claims, frps, &user, &metas).err();
        let time = content.get("timestamp").and_then(Value::as_i64).unwrap_or_default();
        let proof = Proof::new(word(content, "privilege_key"), time);
        let token = self.tokens.iter().find(|(name, _)| name == frps);
        let heard = Heard::Login {
            user,
            client_id: word(content, "client_id"),
            address: word(content, "client_address"),
            refused: refused.clone(),
            knows_token: refused.is_none()
                && token.is_some_and(|(_, token)| proof.is_of(token.expose(), now)),
        };
        match refused {
            Some(reason) => refuse(&reason, Some(heard)),
            None => unchanged(Some(heard)),
        }
    }

    fn new_proxy(
        &self,
        frps: &str,
        call: &str,
        mut content: Map<String, Value>,
        context: &Context<'_>,
    ) -> Decision {
        let Some(asked) = Asked::read(&content) else { return invalid("the proxy has no name") };
        let stripped = takeover::strip_annotations(&mut content);
        let configured =
            self.frps.iter().find(|(name, _, _)| name == frps).and_then(|(_, _, host)| host.as_deref());
        let subdomain_host = configured.or(context.subdomain_host);
        let with_host = match (asked.kind, asked.domains(subdomain_host)) {
            (Some(ProxyKind::Http | ProxyKind::Https | ProxyKind::Tcpmux), domains) => domains,
            (_, _) => Ok(Vec::new()),
        };
        let heard = |domains: &[String], taken_over, refused: Option<String>| {
            Some(Heard::Claim {
                name: asked.name.clone(),
                user: asked.user.clone(),
                kind: asked.kind.map_or_else(|| word(&content, "proxy_type"), |kind| kind.word().to_owned()),
                domains: domains.to_vec(),
                taken_over,
                refused,
            })
        };
        let domains = match with_host {
            Ok(domains) => domains,
            Err(reason) => {
                let heard = heard(&asked.custom_domains, false, Some(reason.clone()));
                return refuse(&reason, heard);
            }
        };
        // A login that happened while we were away was not looked at.
        let allowed =
            claims::check_login(&self.claims, frps, &asked.user, &asked.login_metas).and_then(|()| {
                let about = ClaimAbout {
                    name: &asked.name,
                    user: &asked.user,
                    kind: asked.kind.unwrap_or_default(),
                    domains: &domains,
                    port: Some(asked.remote_port),
                    metadatas: &asked.metas,
                };
                claims::check_claim(&self.claims, frps, &about)
            });
        if let Err(reason) = allowed {
            return refuse(&reason, heard(&domains, false, Some(reason.clone())));
        }
        let mut left = None;
        if let Some(kind @ (ProxyKind::Http | ProxyKind::Https)) = asked.kind {
            if !self.claims.share
                && let Some(reason) = self.conflict(frps, &asked, &content, &domains, context)
            {
                return refuse(&reason, heard(&domains, false, Some(reason.clone())));
            }
            if self.takes_over(frps, &asked.user, &domains, kind) {
                let mut changed = content.clone();
                match takeover::take_over(&mut changed, &asked, (frps, call), subdomain_host, &self.seals) {
                    Ok(_) => {
                        return Decision {
                            answer: change(&changed),
                            heard: heard(&domains, true, None),
                            result: "taken_over",
                            why: None,
                        };
                    }
                    Err(Not::Refused(reason)) => {
                        return refuse(&reason, heard(&domains, false, Some(reason.clone())));
                    }
                    Err(Not::Left(why)) => left = Some(why),
                }
            }
        }
        let heard = heard(&domains, false, None);
        match (stripped, left) {
            (true, why) => Decision { answer: change(&content), heard, result: "left", why },
            (false, Some(_)) => Decision { result: "left", why: left, ..unchanged(heard) },
            (false, None) => unchanged(heard),
        }
    }

    fn conflict(
        &self,
        frps: &str,
        asked: &Asked,
        content: &Map<String, Value>,
        domains: &[String],
        context: &Context<'_>,
    ) -> Option<String> {
        let group = (word(content, "group"), self.seals.group_key(&word(content, "group_key")));
        let mut locations: Vec<String> = content
            .get("locations")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|location| location.as_str().map(ToOwned::to_owned))
            .collect();
        if locations.is_empty() {
            locations.push(String::new());
        }
        (context.conflict)(&Question {
            frps,
            name: &asked.name,
            user: &asked.user,
            domains,
            tls: asked.kind == Some(ProxyKind::Https),
            locations: &locations,
            http_user: content.get("route_by_http_user").and_then(Value::as_str).unwrap_or_default(),
            group: (!group.0.is_empty() && !group.1.is_empty()).then_some((&group.0, &group.1)),
        })
    }

    fn takes_over(&self, frps: &str, user: &str, domains: &[String], kind: ProxyKind) -> bool {
        let fits = |rule: &&model::TakeoverRule| {
            (rule.frps.is_empty() || rule.frps.iter().any(|name| name == frps))
                && (rule.users.is_empty() || rule.users.iter().any(|pattern| pattern.fits(user)))
                && (rule.domains.is_empty()
                    || domains.iter().all(|domain| rule.domains.iter().any(|one| one.contains(domain))))
        };
        let general = (self.takeover.http, self.takeover.https);
        let (http, https) =
            self.takeover.rules.iter().find(fits).map_or(general, |rule| (rule.http, rule.https));
        if kind == ProxyKind::Https { https } else { http }
    }
}

fn unchanged(heard: Option<Heard>) -> Decision {
    Decision {
        answer: br#"{"reject":false,"unchange":true}"#.to_vec(),
        heard,
        result: "unchanged",
        why: None,
    }
}

fn change(content: &Map<String, Value>) -> Vec<u8> {
    json!({ "reject": false, "unchange": false, "content": content }).to_string().into_bytes()
}

fn refuse(reason: &str, heard: Option<Heard>) -> Decision {
    let answer = json!({ "reject": true, "reject_reason": reason }).to_string().into_bytes();
    Decision { answer, heard, result: "refused", why: None }
}

fn invalid(why: &'static str) -> Decision {
    let reason = format!("the gateway doesn't understand this plugin call: {why}");
    Decision { result: "invalid", why: Some(why), ..refuse(&reason, None) }
}

fn word(map: &Map<String, Value>, key: &str) -> String {
    map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
