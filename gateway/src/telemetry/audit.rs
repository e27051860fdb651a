//! The audit log: one JSON line per login, claim, refusal, takeover and loss of a tunnel, and per change of configuration. Never a
//! secret: no token, key, run id, password or plugin path.

use std::{io, net::IpAddr, time::SystemTime};

use frp_gateway_config::model::AccessLog;
use serde::Serialize;

use crate::{
    control::effect::Notice,
    data::access_log::rfc3339,
    frps::{heard::Heard, plugin::Told},
    snapshot::Listener,
    telemetry::lines::Lines,
    tls::{ClientIdentity, client::Unwelcome},
};

/// Where audit lines go. Never blocks: a destination that is too slow loses lines, which are counted.
#[derive(Debug, Clone)]
pub struct AuditHandle(Lines);

/// One line.
#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    time: String,
    event: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    frps: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    proxy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    domains: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    address: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    listener: &'a str,
    /// Whose certificate it is, its serial number and who has signed it.
    #[serde(skip_serializing_if = "str::is_empty")]
    client: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    serial: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    issuer: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    way: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
}

/// What happened to a client that has shown a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Certified<'a> {
    /// `client_refused`, `client_cut`, or `client`: one of FRP that was let in.
    pub event: &'a str,
    /// Where.
    pub listener: &'a Listener,
    /// From where it came.
    pub peer: IpAddr,
    /// Who it is.
    pub client: &'a ClientIdentity,
    /// Why.
    pub reason: Option<Unwelcome>,
    /// Where a client of FRP was placed.
    pub frps: &'a str,
    /// What a client of FRP says its user is.
    pub user: Option<&'a str>,
}

impl AuditHandle {
    /// No log, until switched.
    #[must_use]
    pub fn off() -> Self {
        Self(Lines::off("audit log"))
    }

    /// Changes the destination of the lines to come.
    ///
    /// # Errors
    /// The file can't be opened for appending; the old destination stays.
    pub fn switch(&self, target: &AccessLog) -> io::Result<()> {
        self.0.switch(target)
    }

    /// Opens the file anew, after a rotation moved it away.
    pub fn reopen(&self) {
        self.0.reopen();
    }

    /// Waits, for at most a second, until the lines so far are written. Blocks.
    pub fn flush(&self) {
        self.0.flush();
    }

    /// Lines lost because the destination was too slow or failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    /// A plugin call and what was answered.
    pub fn heard(&self, told: &Told) {
        if !self.0.is_on() {
            return;
        }
        let by = if told.by_agent { "agent" } else { "frps" };
        let line = Line { frps: &told.frps, by, ..Line::default() };
        self.write(match &told.heard {
            Heard::Login { user, address, refused, client_id: _, knows_token: _ } => Line {
                event: if refused.is_some() { "login_refused" } else { "login" },
                user: Some(user),
                address,
                reason: refused.as_deref(),
                ..line
            },
            Heard::Claim { name, user, kind, domains, taken_over, refused } => Line {
                event: match (refused, taken_over) {
                    (Some(_), _) => "claim_refused",
                    (None, true) => "takeover",
                    (None, false) => "claim",
                },
                proxy: name,
                user: Some(user),
                kind,
                domains,
                reason: refused.as_deref(),
                ..line
            },
            Heard::Closing { name, user } => Line { event: "closing", proxy: name, user: Some(user), ..line },
        });
    }

    /// A client with a certificate of an authority that is trusted.
    pub fn certified(&self, told: Certified<'_>) {
        if !self.0.is_on() {
            return;
        }
        let Certified { event, listener, peer, client, reason, frps, user } = told;
        self.write(Line {
            event,
            listener: &listener.name,
            address: &peer.to_string(),
            client: &client.name,
            serial: &client.serial,
            issuer: &client.issuer,
            reason: reason.map(Unwelcome::label),
            frps,
            user,
            by: "gateway",
            ..Line::default()
        });
    }

    /// A change of state.
    pub fn notice(&self, notice: &Notice) {
        if !self.0.is_on() {
            return;
        }
        let line = Line { by: "gateway", ..Line::default() };
        match notice {
            Notice::Tunnel { event, frps, name, user, domains, way, reason } => self.write(Line {
                event: event.word(),
                frps,
                proxy: name,
                user: Some(user),
                domains,
                way,
                reason: reason.as_deref(),
                ..line
            }),
            Notice::Reloaded { generation, changes } => {
                let changes = changes.to_string();
                let generation = Some(*generation);
                self.write(Line { event: "reloaded", generation, reason: Some(&changes), ..line });
            }
            Notice::Refused { faults } => {
                let codes: Vec<_> =
                    faults.iter().filter_map(|fault| fault.diagnostic["code"].as_str()).collect();
                self.write(Line { event: "reload_refused", reason: Some(&codes.join(", ")), ..line });
            }
            Notice::FrpsAnswers { frps, .. } => self.write(Line { event: "frps_answers", frps, ..line }),
            Notice::FrpsSilent { frps, reason, .. } => {
                self.write(Line { event: "frps_silent", frps, reason: Some(reason), ..line });
            }
            Notice::NothingChanged | Notice::NeedsRestart { .. } => {}
        }
    }

    /// A client that was moved to another frps; `to` is empty when it did not come up there.
    pub fn moved(&self, frps: &str, to: &str, user: &str, tunnels: usize) {
        if self.0.is_on() {
            let event = if to.is_empty() { "move_failed" } else { "moved" };
            let reason = format!("{tunnels} tunnels{}{to}", if to.is_empty() { "" } else { " to " });
            let line = Line {
                event,
                by: "gateway",
                frps,
                user: Some(user),
                reason: Some(&reason),
                ..Line::default()
            };
            self.write(line);
        }
    }

    /// A certificate of the authority: `certificate_issued`, `_renewed`, `_failed` or `_refused`.
    pub fn certificate(&self, event: &str, name: &str, user: Option<&str>, reason: Option<&str>) {
        if self.0.is_on() {
            let domains = &[name.to_owned()];
            self.write(Line { event, by: "acme", user, domains, reason, ..Line::default() });
        }
    }

    /// Something an operator asked for.
    pub fn asked(&self, event: &str) {
        if self.0.is_on() {
            self.write(Line { event, by: "admin", ..Line::default() });
        }
    }

    /// Something an operator asked for, or what came of it, in words.
    pub fn asked_with(&self, event: &str, reason: &str) {
        if self.0.is_on() {
            self.write(Line { event, by: "admin", reason: Some(reason), ..Line::default() });
        }
    }

    fn write(&self, mut line: Line<'_>) {
        line.time = rfc3339(SystemTime::now());
        if let Ok(mut text) = serde_json::to_vec(&line) {
            text.push(b'\n');
            self.0.line(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::control::effect::TunnelEvent;

    #[test]
    fn what_happens_is_one_json_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = AuditHandle::off();
        let told = |heard| Told { frps: "a".into(), heard, by_agent: false };
        audit.heard(&told(Heard::Closing { name: "early".into(), user: String::new() }));
        audit.switch(&AccessLog::File(path.clone())).unwrap();
        audit.heard(&told(Heard::Login {
            user: "alice".into(),
            client_id: String::new(),
            address: "10.0.0.1:5".into(),
            refused: None,
            knows_token: false,
        }));
        audit.heard(&told(Heard::Claim {
            name: "alice.web".into(),
            user: "alice".into(),
            kind: "http".into(),
            domains: vec!["x.test".into()],
            taken_over: false,
            refused: Some("no \"x\" for you".into()),
        }));
        audit.notice(&Notice::Tunnel {
            event: TunnelEvent::Gone,
            frps: "a".into(),
            name: "alice.web".into(),
            user: "alice".into(),
            domains: vec!["x.test".into()],
            way: "takeover",
            reason: None,
        });
        audit.notice(&Notice::NothingChanged);
        let deadline = Instant::now() + Duration::from_secs(10);
        let lines = loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<serde_json::Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if lines.len() >= 3 {
                break lines;
            }
            assert!(Instant::now() < deadline, "{text}");
            std::thread::yield_now();
        };
        let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(events, ["login", "claim_refused", "gone"], "nothing before it was switched on");
        assert_eq!(lines[1]["reason"], "no \"x\" for you");
        assert_eq!((&lines[2]["way"], &lines[2]["by"]), (&"takeover".into(), &"gateway".into()));
        assert!(lines.iter().all(|line| line["time"].as_str().unwrap().ends_with('Z')));
    }
}
