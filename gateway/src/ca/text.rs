//! What the commands say. Never a key.

use std::path::Path;

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Authority,
    index::{Entry, Standing, Use},
    issue::describe,
};
use crate::client::table::{Cell, Colour, Table, Tone};

/// `2027-02-21T09:00:00Z`.
pub(super) fn moment(at: OffsetDateTime) -> String {
    let at = at.replace_nanosecond(0).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_else(|_| at.unix_timestamp().to_string())
}

/// One certificate in `list --json` and `show --json`.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    state: Standing,
    /// Whole days until it ends, negative when it has.
    days_left: i64,
}

impl<'a> Line<'a> {
    pub(super) fn new(entry: &'a Entry, state: Standing, now: OffsetDateTime) -> Self {
        Self { entry, state, days_left: (entry.not_after - now).whole_days() }
    }
}

const fn tone(state: Standing) -> Tone {
    match state {
        Standing::Valid => Tone::Good,
        Standing::Ending => Tone::Mind,
        Standing::Expired | Standing::Revoked | Standing::Untrusted => Tone::Bad,
    }
}

/// A table of certificates.
pub(super) fn table<'a>(
    lines: impl Iterator<Item = (&'a Entry, Standing)>,
    now: OffsetDateTime,
    colour: Colour,
) -> String {
    let mut table = Table::new(&["NAME", "SERIAL", "STATE", "ENDS", "DAYS", "ROOT", "FOR"]);
    for (entry, state) in lines {
        table.row(vec![
            Cell::text(&entry.name),
            Cell::text(&entry.serial),
            Cell::text(state.to_string()).tone(tone(state)),
            Cell::text(moment(entry.not_after)),
            Cell::number((entry.not_after - now).whole_days().to_string()),
            Cell::number(entry.root.to_string()),
            Cell::text(describe(&entry.identity)),
        ]);
    }
    let mut text = String::new();
    table.write(&mut text, "", colour);
    text
}

/// Roots and lists, for the head of `list`.
pub(super) fn standing_of(authority: &Authority) -> String {
    let mut text = String::new();
    for root in authority.index.trusted() {
        let does = if authority.index.leaving() == Some(root) { "trusted until --finish" } else { "signs" };
        text += &format!(
            "root {} \"{} {}\" {does}, ends {}\n",
            root.number,
            authority.index.name,
            root.number,
            moment(root.not_after)
        );
    }
    text
}

/// What frpc.toml needs, and what says no to strangers at the gateway.
pub(super) fn hints(authority: &Authority, entries: &[&Entry]) -> String {
    let uses = |one: Use| entries.iter().find(|entry| entry.identity.uses.contains(&one));
    let name_or = |entry: &&Entry| if entries.len() == 1 { entry.name.clone() } else { "NAME".to_owned() };
    let mut text = String::new();
    if let Some(entry) = uses(Use::Client) {
        let home = authority.issued(&name_or(entry));
        text += &format!(
            "\n# frpc.toml (serverAddr must be a name of the gateway's certificate, or transport.tls.serverName)\n\
             transport.tls.certFile = {}\ntransport.tls.keyFile = {}\ntransport.tls.trustedCaFile = {}\n\
             \n# gateway.yaml, in an frp or https listener\n\
             tls:\n  client_auth: {{ trust: {}, crl: {} }}\n",
            quoted(&home.join("cert.pem")),
            quoted(&home.join("key.pem")),
            quoted(&home.join("ca.pem")),
            quoted(&authority.trust()),
            quoted(&authority.crl()),
        );
    }
    if let Some(entry) = uses(Use::Server) {
        let home = authority.issued(&name_or(entry));
        text += &format!(
            "\n# gateway.yaml, in an frp or https listener\n\
             tls:\n  certificates: [{{ cert: {}, key: {} }}]\n",
            quoted(&home.join("cert.pem")),
            quoted(&home.join("key.pem")),
        );
    }
    text
}

/// As TOML and YAML quote it. Absolute: what is pasted is read from elsewhere.
fn quoted(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    serde_json::to_string(&path.to_string_lossy()).unwrap_or_default()
}
