//! `frp-gateway ca …`: arguments in, lines out. Exit codes are `cli`'s.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use frp_gateway_config::units;
use time::OffsetDateTime;

use super::{
    Authority, CaError, Founding,
    index::{Entry, KeyKind, Reason},
    issue::{Done, Renewal, Wish},
    names, text,
};
use crate::client::table::Colour;

/// More certificates than this are summed up in one line.
const LISTED: usize = 10;

/// What follows `frp-gateway ca`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder of the authority. Its keys can make certificates that everyone trusts: keep it where only operators can read.
    #[arg(long, value_name = "FOLDER", default_value = "ca", env = "FRP_GATEWAY_CA", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority: a root, its key, an empty revocation list. Refuses to write over one.
    Init {
        /// What its roots are called.
        #[arg(long, default_value = "frp-gateway CA")]
        name: String,
        /// How long a root is valid.
        #[arg(long, default_value = "3650", value_parser = days())]
        days: u32,
        /// What keys are made, for roots and leaves.
        #[arg(long, value_enum, default_value = "p256")]
        key: KeyKind,
        /// Clients get the URI `spiffe://DOMAIN/NAME`.
        #[arg(long, value_name = "DOMAIN", default_value = "frp")]
        trust_domain: String,
    },
    /// Issue certificates; names that have one that says the same keep it.
    Issue {
        /// For whom: a folder `issued/NAME` with cert.pem, key.pem and ca.pem for each.
        #[arg(required_unless_present_any = ["count", "from"])]
        names: Vec<String>,
        /// For those who dial: frpc, visitors. The default; with --server for both.
        #[arg(long)]
        client: bool,
        /// For those who are dialled: gateways, frps. For the host NAME unless --dns or --ip is given.
        #[arg(long)]
        server: bool,
        /// A DNS name in it; may be repeated; `{name}` is replaced.
        #[arg(long, value_name = "HOST")]
        dns: Vec<String>,
        /// An address in it; may be repeated.
        #[arg(long)]
        ip: Vec<IpAddr>,
        /// The URI in it; `{name}` is replaced. Default for clients: `spiffe://`, the trust domain, `/NAME`.
        #[arg(long, conflicts_with = "trust_domain")]
        uri: Option<String>,
        /// Another trust domain than the authority's.
        #[arg(long, value_name = "DOMAIN")]
        trust_domain: Option<String>,
        /// How long they are valid; renewals too.
        #[arg(long, default_value = "90", value_parser = days())]
        days: u32,
        /// As many as this: PREFIX1, PREFIX2 …
        #[arg(long, value_name = "N", requires = "prefix")]
        count: Option<u32>,
        /// What numbered names begin with.
        #[arg(long, requires = "count")]
        prefix: Option<String>,
        /// A file with one name per line; `#` begins a comment.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Give a new certificate and key to names that have one, too, revoked or not.
        #[arg(long)]
        renew: bool,
    },
    /// Replace certificates by ones that say the same and end later. The old ones stay valid to their end.
    Renew {
        /// Whose.
        #[arg(required_unless_present_any = ["all", "within"])]
        names: Vec<String>,
        /// Everyone's that isn't revoked.
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Only those that end within this: 30d, 12h.
        #[arg(long, value_name = "DURATION", value_parser = within)]
        within: Option<Duration>,
        /// Keep the keys. Default: new ones.
        #[arg(long)]
        keep_key: bool,
    },
    /// Revoke every certificate of a name, or the one with a serial number, and sign the revocation list.
    Revoke {
        /// Names or serial numbers.
        #[arg(required = true, value_name = "NAME|SERIAL")]
        which: Vec<String>,
        /// Why.
        #[arg(long, value_enum, default_value = "unspecified")]
        reason: Reason,
    },
    /// Sign the revocation list anew, before it ends. Once a day is well.
    Crl {
        /// How long it is valid, and those of later commands. Default: as before, 7 at first.
        #[arg(long, value_parser = days())]
        days: Option<u32>,
    },
    /// Make a new root beside the old one: both are trusted, the new one signs. --finish ends the trust in the old one.
    Rotate {
        /// End the trust in the old root, and destroy its key.
        #[arg(long)]
        finish: bool,
        /// Even though certificates of the old root are in use.
        #[arg(long, requires = "finish")]
        force: bool,
    },
    /// All certificates.
    List {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// The certificates of one name, and how to use them.
    Show {
        /// Whose, or a serial number.
        name: String,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

/// A duration as in the configuration.
fn within(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).map_err(|error| error.help)
}

/// Does what the arguments say; lines go to stdout.
///
/// # Errors
/// Everything that [`Authority`] refuses or fails at.
pub fn run(arguments: &Arguments) -> Result<(), CaError> {
    let now = OffsetDateTime::now_utc();
    let folder = &arguments.dir;
    match &arguments.command {
        Command::Init { name, days, key, trust_domain } => {
            let founding =
                Founding { name: name.clone(), days: *days, key: *key, trust_domain: trust_domain.clone() };
            let authority = Authority::found(folder, &founding, now)?;
            say(&format!("made a certificate authority in {}", folder.display()));
            say(text::standing_of(&authority).trim_end());
            say(
                "back up this folder, and let nobody read roots/: its keys make certificates that everyone trusts",
            );
        }
        Command::Issue { .. } => issue(arguments, now)?,
        Command::Renew { names, all: _, within, keep_key } => {
            let mut authority = Authority::open(folder)?;
            let names = names::collect(names, None, None)?;
            let renewal = Renewal { names, within: *within, keep_key: *keep_key };
            let renewed = authority.renew(&renewal, now)?;
            list("renewed", &renewed, &authority);
        }
        Command::Revoke { which, reason } => {
            let mut authority = Authority::open(folder)?;
            let revoked = authority.revoke(which, *reason, now)?;
            for entry in &revoked {
                say(&format!("revoked {}  serial {}  ({reason})", entry.name, entry.serial));
            }
            say(&format!("list {} in {}", authority.index.crl.number, authority.crl().display()));
        }
        Command::Crl { days } => {
            let mut authority = Authority::open(folder)?;
            let (number, next) = authority.refresh_lists(*days, now)?;
            let path = authority.crl();
            say(&format!("list {number} in {}, valid until {}", path.display(), text::moment(next)));
        }
        Command::Rotate { finish: false, .. } => {
            let mut authority = Authority::open(folder)?;
            let (old, new) = authority.begin_rotation(now)?;
            say(&format!(
                "root {new} signs from now on; root {old} is trusted beside it\n\
                 1. bring {}, crl.pem and every ca.pem to where they are read (gateways watch theirs)\n\
                 2. `frp-gateway ca renew --all`, and bring the certificates to their owners\n\
                 3. have the frpc dial again: `frp-gateway drain --wait` and `undrain`, one frps after the other\n\
                 4. `frp-gateway ca rotate --finish`, and bring the files of step 1 once more",
                authority.trust().display()
            ));
        }
        Command::Rotate { finish: true, force } => {
            let mut authority = Authority::open(folder)?;
            let old = authority.finish_rotation(*force, now)?;
            say(&format!("root {old} isn't trusted any more, its key is gone"));
        }
        Command::List { json } => {
            let authority = Authority::look(folder)?;
            if *json {
                authority.certificates(now).for_each(|(entry, state)| as_json(entry, state, now));
            } else {
                say(text::standing_of(&authority).trim_end());
                say(text::table(authority.certificates(now), now, Colour::of_stdout()).trim_end());
            }
        }
        Command::Show { name, json } => show(&Authority::look(folder)?, name, *json, now)?,
    }
    Ok(())
}

fn issue(arguments: &Arguments, now: OffsetDateTime) -> Result<(), CaError> {
    let Command::Issue {
        names,
        client,
        server,
        dns,
        ip,
        uri,
        trust_domain,
        days,
        count,
        prefix,
        from,
        renew,
    } = &arguments.command
    else {
        return Ok(());
    };
    let numbered = count.zip(prefix.as_deref());
    let names = names::collect(names, from.as_deref(), numbered)?;
    if names.is_empty() {
        let file = from.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        return Err(CaError::argument(format!("{file}: no names in it"), "one name per line"));
    }
    if names.len() > 1 && uri.as_ref().is_some_and(|uri| !uri.contains("{name}")) {
        let said =
            format!("{} certificates would have one --uri, so nobody could tell them apart", names.len());
        return Err(CaError::argument(
            said,
            "write {name} where the name belongs: spiffe://frp.example.com/{name}",
        ));
    }
    let wish = Wish {
        names,
        client: *client,
        server: *server,
        dns: dns.clone(),
        ip: ip.clone(),
        uri: uri.clone(),
        trust_domain: trust_domain.clone(),
        days: *days,
        renew: *renew,
    };
    let mut authority = Authority::open(&arguments.dir)?;
    let done = authority.issue(&wish, now)?;
    let of = |which: Done| {
        let of = done.iter().filter(|(_, what)| *what == which).map(|(entry, _)| entry.clone());
        of.collect::<Vec<_>>()
    };
    let (issued, kept) = (of(Done::Issued), of(Done::Kept));
    if !issued.is_empty() || kept.is_empty() {
        list("issued", &issued, &authority);
    }
    if !kept.is_empty() {
        list("kept", &kept, &authority);
    }
    let cut = now + time::Duration::days(i64::from(*days) - 1);
    if issued.iter().any(|entry| entry.not_after < cut) {
        complain(
            "note: they end with their root, before their time; `frp-gateway ca rotate` makes a new root",
        );
    }
    let all: Vec<_> = done.iter().map(|(entry, _)| entry).collect();
    say(text::hints(&authority, &all).trim_end());
    Ok(())
}

fn show(authority: &Authority, name: &str, json: bool, now: OffsetDateTime) -> Result<(), CaError> {
    let digits = name.replace(':', "").to_ascii_lowercase();
    let of_name = |entry: &Entry| entry.name == name || entry.serial == digits;
    let shown: Vec<_> = authority.certificates(now).filter(|(entry, _)| of_name(entry)).collect();
    let Some((newest, _)) = shown.last().copied() else {
        return Err(CaError::Unknown(vec![name.to_owned()]));
    };
    if json {
        shown.into_iter().for_each(|(entry, state)| as_json(entry, state, now));
        return Ok(());
    }
    say(text::table(shown.iter().copied(), now, Colour::of_stdout()).trim_end());
    if let Some(revoked) = newest.revoked {
        say(&format!("revoked {} ({})", text::moment(revoked.at), revoked.reason));
    } else {
        say(&format!("files in {}", authority.issued(&newest.name).display()));
        say(text::hints(authority, &[newest]).trim_end());
    }
    Ok(())
}

fn list(verb: &str, entries: &[Entry], authority: &Authority) {
    if entries.len() > LISTED || entries.is_empty() {
        let issued = authority.folder.join("issued");
        say(&format!("{verb} {} certificates in {}", entries.len(), issued.display()));
        return;
    }
    for entry in entries {
        let (serial, ends) = (&entry.serial, text::moment(entry.not_after));
        let home = authority.issued(&entry.name);
        say(&format!("{verb} {}  serial {serial}  until {ends}  in {}", entry.name, home.display()));
    }
}

fn as_json(entry: &Entry, state: super::Standing, now: OffsetDateTime) {
    if let Ok(line) = serde_json::to_string(&text::Line::new(entry, state, now)) {
        say(&line);
    }
}

/// A line of result. A reader that went away (`| head`) is no failure of ours.
fn say(line: &str) {
    drop(writeln!(io::stdout(), "{line}"));
}

fn complain(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}
