//! `frp-gateway ca` as its operator meets it, and its certificates as rustls and openssl judge them.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests are outside of them; a skipped check says so"
)]

#[path = "common/ca.rs"]
mod authority;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use authority::{Ca, leaf};
use rcgen::KeyPair;
use rustls::{
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject},
    server::danger::ClientCertVerifier,
};

/// Nothing, or why not.
fn judge(verifier: &Arc<dyn ClientCertVerifier>, leaf: &CertificateDer<'_>) -> Result<(), String> {
    verifier.verify_client_cert(leaf, &[], UnixTime::now()).map(drop).map_err(|error| format!("{error:?}"))
}

fn is_pair(certificate: &CertificateDer<'_>, key: &str) -> bool {
    let key = KeyPair::from_pem(key).expect("a whole key");
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).expect("a whole certificate");
    *parsed.public_key().subject_public_key.data == *key.public_key_raw()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
        & 0o777
}

#[test]
fn three_hundred_clients_are_issued_in_one_go_and_every_one_is_accepted() {
    let ca = Ca::new();
    let begun = Instant::now();
    let said = ca.ok(&["issue", "--count", "300", "--prefix", "edge-"]);
    let took = begun.elapsed();
    eprintln!("300 certificates in {took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(said.starts_with("issued 300 certificates in "), "{said}");
    let verifier = ca.verifier();
    for n in 1..=300 {
        let name = format!("edge-{n:03}");
        let leaf = ca.leaf(&name);
        assert_eq!(judge(&verifier, &leaf), Ok(()), "{name}");
        assert!(is_pair(&leaf, &ca.text(&format!("issued/{name}/key.pem"))), "{name}");
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).expect("a certificate");
        let names = parsed.subject_alternative_name().expect("readable").expect("there").value;
        let uri = format!("spiffe://frp/{name}");
        assert_eq!(names.general_names, [x509_parser::prelude::GeneralName::URI(&uri)], "{name}");
    }
    let serials: std::collections::BTreeSet<_> =
        ca.list().iter().map(|line| line["serial"].to_string()).collect();
    assert_eq!(serials.len(), 300, "each has its own");
    let before = ca.text("index.json");
    let again = ca.ok(&["issue", "--count", "300", "--prefix", "edge-"]);
    assert!(again.starts_with("kept 300 certificates in "), "{again}");
    assert_eq!(ca.text("index.json"), before, "asking again changes nothing");
}

#[test]
fn keys_are_for_their_owner_only_and_never_printed() {
    let ca = Ca::new();
    let said = ca.ok(&["issue", "a"]) + &ca.ok(&["show", "a"]) + &ca.ok(&["list"]) + &ca.ok(&["renew", "a"]);
    assert!(!said.contains("PRIVATE"), "{said}");
    for key in ["roots/1/key.pem", "issued/a/key.pem"] {
        assert_eq!(mode(&ca.path(key)), 0o600, "{key}");
    }
    assert_eq!(mode(&ca.path("roots")), 0o700);
    for file in ["trust.pem", "crl.pem", "issued/a/cert.pem", "issued/a/ca.pem"] {
        assert_eq!(mode(&ca.path(file)), 0o644, "{file}");
    }
    for file in ["index.json", "trust.pem", "crl.pem", "issued/a/cert.pem", "issued/a/ca.pem"] {
        assert!(!ca.text(file).contains("PRIVATE"), "{file}");
    }
    // Given to the gateway's group, it stays so.
    fs::set_permissions(ca.path("issued/a/key.pem"), fs::Permissions::from_mode(0o640)).expect("set");
    ca.ok(&["renew", "a"]);
    assert_eq!(mode(&ca.path("issued/a/key.pem")), 0o640);
}

#[test]
fn every_kind_of_key_signs_what_rustls_takes() {
    for kind in ["p256", "p384", "ed25519"] {
        let ca = Ca::with(&["--key", kind, "--name", "Test", "--trust-domain", "frp.test"]);
        ca.ok(&["issue", "a"]);
        assert_eq!(judge(&ca.verifier(), &ca.leaf("a")), Ok(()), "{kind}");
        ca.ok(&["revoke", "a"]);
        assert!(judge(&ca.verifier(), &ca.leaf("a")).is_err_and(|why| why.contains("Revoked")), "{kind}");
    }
}

#[test]
fn what_to_paste_is_said_with_absolute_paths() {
    let ca = Ca::new();
    let said = ca.ok(&["issue", "a"]);
    let home = ca.path("issued/a");
    for (key, file) in [("certFile", "cert"), ("keyFile", "key"), ("trustedCaFile", "ca")] {
        let line = format!("transport.tls.{key} = \"{}\"\n", home.join(file).with_extension("pem").display());
        assert!(said.contains(&line), "{line} in {said}");
        assert!(home.join(file).with_extension("pem").exists(), "{file}");
    }
    let (trust, crl) = (ca.path("trust.pem"), ca.path("crl.pem"));
    let yaml = format!("client_auth: {{ trust: \"{}\", crl: \"{}\" }}", trust.display(), crl.display());
    assert!(said.contains(&yaml), "{yaml} in {said}");
    let said = ca.ok(&["issue", "gate.test", "--server"]);
    assert!(said.contains("certificates: [{ cert: \"") && !said.contains("frpc.toml"), "{said}");
}

#[test]
fn names_come_from_a_file_and_hosts_and_uris_are_filled_in() {
    let ca = Ca::new();
    fs::write(ca.folder.path().join("names"), "# the fleet\nseoul-1\n\nbusan-1  # new\nseoul-1\n")
        .expect("written");
    ca.ok(&[
        "issue",
        "--from",
        "names",
        "--client",
        "--server",
        "--dns",
        "{name}.edge.test",
        "--dns",
        "*.{name}.test",
        "--ip",
        "::1",
        "--uri",
        "spiffe://x.test/edge/{name}",
        "--days",
        "10",
    ]);
    let all = ca.list();
    let names: Vec<_> = all.iter().filter_map(|line| line["name"].as_str()).collect();
    assert_eq!(names, ["seoul-1", "busan-1"]);
    assert_eq!(all[1]["dns"], serde_json::json!(["busan-1.edge.test", "*.busan-1.test"]));
    assert_eq!(all[1]["uri"], "spiffe://x.test/edge/busan-1");
    assert_eq!(all[1]["uses"], serde_json::json!(["client", "server"]));
    assert_eq!((&all[1]["days_left"], &all[1]["state"]), (&9.into(), &"valid".into()));
}

#[test]
fn a_revoked_name_is_refused_with_all_its_certificates_and_nobody_else_is() {
    let ca = Ca::new();
    ca.ok(&["issue", "a", "b", "c"]);
    let first = ca.leaf("a");
    ca.ok(&["renew", "a"]);
    assert_eq!(judge(&ca.verifier(), &first), Ok(()), "a renewal leaves the old one to its end");
    let said = ca.ok(&["revoke", "a", "--reason", "key-compromise"]);
    assert_eq!(said.matches("revoked a  serial ").count(), 2, "{said}");
    let verifier = ca.verifier();
    for leaf in [&first, &ca.leaf("a")] {
        let judged = judge(&verifier, leaf);
        assert!(judged.as_ref().is_err_and(|why| why.contains("Revoked")), "{judged:?}");
    }
    assert_eq!((judge(&verifier, &ca.leaf("b")), judge(&verifier, &ca.leaf("c"))), (Ok(()), Ok(())));
    // One certificate by its serial number, as other tools write it.
    let serial = ca.serial("b").to_uppercase();
    let digits: Vec<_> = serial.as_bytes().chunks(2).map(|two| String::from_utf8_lossy(two)).collect();
    ca.ok(&["revoke", &digits.join(":")]);
    assert!(judge(&ca.verifier(), &ca.leaf("b")).is_err());
    // Renewing everyone leaves the revoked out; they come back by name only.
    let said = ca.ok(&["renew", "--all"]);
    assert!(said.starts_with("renewed c ") && said.lines().count() == 1, "{said}");
    ca.ok(&["issue", "a", "--renew"]);
    assert_eq!(judge(&ca.verifier(), &ca.leaf("a")), Ok(()));
    assert!(judge(&ca.verifier(), &first).is_err(), "what was revoked stays revoked");
}

/// Numbers of the lists in `crl.pem`.
fn list_numbers(ca: &Ca) -> Vec<u64> {
    let lists = CertificateRevocationListDer::pem_file_iter(ca.path("crl.pem")).expect("readable");
    lists
        .map(|list| {
            let list = list.expect("PEM");
            let (_, list) = x509_parser::parse_x509_crl(&list).expect("a list");
            list.crl_number().and_then(|number| u64::try_from(number.clone()).ok()).expect("a number")
        })
        .collect()
}

#[test]
fn every_list_has_a_greater_number_and_a_new_end() {
    let ca = Ca::new();
    let mut last = list_numbers(&ca)[0];
    ca.ok(&["issue", "a"]);
    for arguments in [&["crl"][..], &["revoke", "a"], &["crl", "--days", "30"], &["rotate"], &["crl"]] {
        ca.ok(arguments);
        let numbers = list_numbers(&ca);
        assert!(numbers.iter().all(|number| *number > last), "{arguments:?}: {numbers:?} after {last}");
        last = numbers[0];
    }
    let said = ca.ok(&["crl"]);
    assert!(said.contains("valid until "), "{said}");
}

#[test]
fn while_the_root_changes_old_and_new_leaves_are_accepted_then_only_new_ones() {
    let ca = Ca::new();
    ca.ok(&["issue", "a", "b", "c"]);
    let old: Vec<_> = ["a", "b", "c"].map(|name| ca.leaf(name)).into();
    let old_trust = ca.folder.path().join("old.pem");
    fs::copy(ca.path("trust.pem"), &old_trust).expect("copied");
    ca.ok(&["rotate"]);
    assert_eq!(ca.text("issued/a/ca.pem"), ca.text("trust.pem"), "everyone gets both roots");
    assert_eq!(ca.text("trust.pem").matches("BEGIN CERTIFICATE").count(), 2);
    ca.ok(&["renew", "a", "b"]);
    let verifier = ca.verifier();
    for leaf in old.iter().chain([&ca.leaf("a"), &ca.leaf("b")]) {
        assert_eq!(judge(&verifier, leaf), Ok(()));
    }
    assert!(judge(&ca.verifier_by(&old_trust), &ca.leaf("a")).is_err(), "a new leaf needs the new root");
    // Revocation goes on for both.
    ca.ok(&["revoke", "b"]);
    let verifier = ca.verifier();
    assert!(judge(&verifier, &old[1]).is_err() && judge(&verifier, &ca.leaf("b")).is_err());
    let said = ca.refused(&["rotate"]);
    assert!(said.contains("root 1 is still trusted beside the new one"), "{said}");
    let said = ca.refused(&["rotate", "--finish"]);
    assert!(said.contains("1 certificate of root 1 still in use: c\n"), "{said}");
    ca.ok(&["renew", "--all"]);
    ca.ok(&["rotate", "--finish"]);
    assert!(!ca.path("roots/1/key.pem").exists(), "the old key is gone");
    let verifier = ca.verifier();
    for leaf in &old {
        let judged = judge(&verifier, leaf);
        assert!(judged.as_ref().is_err_and(|why| why.contains("UnknownIssuer")), "{judged:?}");
    }
    assert_eq!((judge(&verifier, &ca.leaf("a")), judge(&verifier, &ca.leaf("c"))), (Ok(()), Ok(())));
    assert_eq!(ca.text("issued/a/ca.pem"), ca.text("trust.pem"));
    let said = ca.refused(&["rotate", "--finish"]);
    assert!(said.contains("no rotation is under way"), "{said}");
    // And once more.
    ca.ok(&["rotate"]);
    ca.ok(&["rotate", "--finish", "--force"]);
    assert!(judge(&ca.verifier(), &ca.leaf("a")).is_err());
    assert!(ca.list().iter().any(|line| line["state"] == "untrusted"));
    ca.ok(&["issue", "a"]);
    assert_eq!(judge(&ca.verifier(), &ca.leaf("a")), Ok(()));
}

#[test]
fn a_reader_never_sees_half_of_a_renewal() {
    let ca = Ca::new();
    ca.ok(&["issue", "a", "b"]);
    let stop = Arc::new(AtomicBool::new(false));
    let home = ca.path("issued/a");
    let reader = {
        let (stop, home) = (Arc::clone(&stop), home.clone());
        thread::spawn(move || {
            let (mut reads, mut seen, mut crossed) = (0_u64, std::collections::BTreeSet::new(), 0_u64);
            while !stop.load(SeqCst) {
                // Through the link once: always a pair, unless two renewals have passed since.
                let live = home.join(fs::read_link(home.join("live")).expect("a link"));
                if let (Ok(certificate), Ok(key)) =
                    (fs::read(live.join("cert.pem")), fs::read_to_string(live.join("key.pem")))
                {
                    let certificate = CertificateDer::from_pem_slice(&certificate).expect("whole");
                    assert!(is_pair(&certificate, &key), "read {reads}");
                    seen.insert(certificate.to_vec());
                }
                // As frpc reads: both are there and whole, always; of one version, or soon so.
                let tries = (0..1000).position(|_| {
                    let key = || fs::read_to_string(home.join("key.pem")).expect("there");
                    is_pair(&leaf(&home.join("cert.pem")), &key())
                });
                crossed += u64::try_from(tries.expect("a pair")).expect("few");
                reads += 1;
            }
            (reads, seen.len(), crossed)
        })
    };
    for _ in 0..40 {
        ca.ok(&["renew", "a"]);
    }
    stop.store(true, SeqCst);
    let (reads, seen, crossed) = reader.join().expect("no read failed");
    eprintln!("{reads} reads, {seen} versions seen, {crossed} across a renewal");
    assert!(seen > 3, "the reader saw {seen} versions");
    let versions = fs::read_dir(&home).expect("readable").flatten();
    let versions = versions.filter(|entry| entry.file_name().to_string_lossy().starts_with('v')).count();
    assert_eq!(versions, 2, "the one in use and the one before");
}

#[test]
fn a_renewal_keeps_what_the_certificate_says_and_the_key_if_asked() {
    let ca = Ca::new();
    ca.ok(&["issue", "a", "--dns", "a.test", "--days", "20"]);
    ca.ok(&["issue", "b", "--days", "60"]);
    let key = ca.text("issued/a/key.pem");
    let said = ca.ok(&["renew", "--within", "30d"]);
    assert!(said.starts_with("renewed a ") && said.lines().count() == 1, "only what ends soon: {said}");
    assert_ne!(ca.text("issued/a/key.pem"), key, "a new key");
    let key = ca.text("issued/a/key.pem");
    let serial = ca.serial("a");
    ca.ok(&["renew", "a", "--keep-key"]);
    assert_eq!(ca.text("issued/a/key.pem"), key);
    assert_ne!(ca.serial("a"), serial);
    let all = ca.list();
    let last = all.last().expect("some");
    assert_eq!((&last["dns"], &last["days"]), (&serde_json::json!(["a.test"]), &20.into()));
    assert!(ca.ok(&["renew", "--within", "1h"]).starts_with("renewed 0 certificates"));
}

#[test]
fn processes_that_change_one_folder_take_turns() {
    let ca = Ca::new();
    thread::scope(|scope| {
        for n in 0..6 {
            let ca = &ca;
            scope.spawn(move || {
                ca.ok(&["issue", "--count", "10", "--prefix", &format!("p{n}-")]);
                ca.ok(&["revoke", &format!("p{n}-01")]);
            });
        }
    });
    let all = ca.list();
    let revoked = all.iter().filter(|line| line["state"] == "revoked").count();
    assert_eq!((all.len(), revoked), (60, 6));
    assert_eq!(list_numbers(&ca), [7], "one list each, and the first");
}

#[test]
fn what_a_cut_off_command_left_behind_is_made_good() {
    let ca = Ca::new();
    ca.ok(&["issue", "a", "b"]);
    fs::remove_file(ca.path("issued/a/live")).expect("removed");
    fs::create_dir(ca.path("issued/b/v9")).expect("made");
    fs::write(ca.path("trust.pem.new"), "half").expect("written");
    let said = ca.ok(&["issue", "a", "b"]);
    assert!(said.contains("issued a ") && said.contains("kept b "), "{said}");
    assert_eq!(judge(&ca.verifier(), &ca.leaf("a")), Ok(()));
    ca.ok(&["renew", "b"]);
    ca.ok(&["crl"]);
    assert_eq!(judge(&ca.verifier(), &ca.leaf("b")), Ok(()));
}

#[test]
fn whatever_is_out_there_after_a_kill_can_be_revoked_by_its_name() {
    let ca = Ca::new();
    let homes =
        || fs::read_dir(ca.path("issued")).map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let in_use = || homes().iter().filter(|home| home.path().join("cert.pem").exists()).count();
    // Killed at so many folders, or so many that are in use: somewhere between the first file and the last.
    for (round, (folders, live)) in [(1, 999), (60, 999), (999, 1), (999, 60)].into_iter().enumerate() {
        let (prefix, before) = (format!("r{round}-"), 120 * round);
        let mut issuing = Command::new(env!("CARGO_BIN_EXE_frp-gateway"))
            .args(["ca", "issue", "--count", "120", "--prefix", &prefix, "--dir"])
            .arg(ca.path(""))
            .stdout(Stdio::null())
            .spawn()
            .expect("it runs");
        let begun = Instant::now();
        let is_due = || homes().len() >= before + folders || in_use() >= before + live;
        while !is_due() && issuing.try_wait().expect("a child").is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "round {round}: {} folders", homes().len());
        }
        issuing.kill().expect("killed");
        issuing.wait().expect("ended");
        let known: std::collections::BTreeSet<_> =
            ca.list().iter().map(|line| line["serial"].as_str().expect("a text").to_owned()).collect();
        let mut live = 0;
        for home in homes() {
            let Ok(certificate) = CertificateDer::from_pem_file(home.path().join("cert.pem")) else {
                continue;
            };
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("a whole certificate");
            let serial: String = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(
                known.contains(&serial),
                "round {round}: {} is out there, unknown",
                home.path().display()
            );
            live += 1;
        }
        eprintln!("killed with {} folders, {live} in use, {} known", homes().len(), known.len());
        ca.ok(&["issue", "--count", "120", "--prefix", &prefix]);
        let verifier = ca.verifier();
        for n in 1..=120 {
            let name = format!("{prefix}{n:03}");
            let leaf = ca.leaf(&name);
            assert_eq!(judge(&verifier, &leaf), Ok(()), "{name}");
            assert!(is_pair(&leaf, &ca.text(&format!("issued/{name}/key.pem"))), "{name}");
        }
    }
}

#[test]
fn what_cannot_be_is_said_with_its_remedy() {
    let ca = Ca::new();
    ca.ok(&["issue", "a", "b"]);
    ca.ok(&["revoke", "b"]);
    let before = ca.text("index.json");
    let cases: &[(&[&str], &str)] = &[
        (
            &["init"],
            "frp-gateway: there is a certificate authority in CA already; nothing was changed\n  \
             help: `ca rotate` replaces its root; for another authority take another --dir\n",
        ),
        (
            &["issue", "../x"],
            "frp-gateway: \"../x\" can't be the name of a certificate: it begins with neither a letter nor a digit\n  \
             help: 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit\n",
        ),
        (
            &["issue", "a", "--dns", "x.test"],
            "frp-gateway: what is asked for differs from what is there: a has client spiffe://frp/a, not client x.test \
             spiffe://frp/a\n  help: --renew replaces certificates; the old ones stay valid until they end or are revoked\n",
        ),
        (
            &["issue", "b"],
            "frp-gateway: revoked: b\n  help: `ca issue NAME --renew` gives a revoked name a new certificate\n",
        ),
        (
            &["renew", "nobody", "a"],
            "frp-gateway: no certificate is called nobody\n  help: `frp-gateway ca list` shows all names\n",
        ),
        (&["revoke", "b"], "frp-gateway: b is revoked already (unspecified); nothing was changed\n"),
        (
            &["issue", "c", "d", "--uri", "spiffe://x/y"],
            "frp-gateway: 2 certificates would have one --uri, so nobody could tell them apart\n  \
             help: write {name} where the name belongs: spiffe://frp.example.com/{name}\n",
        ),
        (
            &["issue", "c", "--server", "--dns", "a..b"],
            "frp-gateway: \"a..b\" can't be a DNS name of a certificate\n  \
             help: --dns takes a host such as gate.example.com or *.example.com, --ip an address\n",
        ),
        (
            &["issue", "c", "--trust-domain", "A B"],
            "frp-gateway: \"A B\" can't be a trust domain\n  \
             help: 1 to 255 lower-case letters, digits, '.', '-' and '_', such as frp.example.com\n",
        ),
    ];
    for (arguments, expected) in cases {
        assert_eq!(ca.refused(arguments), *expected, "{arguments:?}");
    }
    assert_eq!(ca.text("index.json"), before, "none of them changed anything");
    for bad in [&["issue"][..], &["issue", "a", "--days", "0"], &["renew"], &["issue", "--count", "3"]] {
        assert_eq!(ca.run(bad).status.code(), Some(2), "{bad:?}");
    }
    let none = Ca { folder: tempfile::tempdir().expect("a folder") };
    let said = none.refused(&["issue", "a"]);
    assert!(
        said.starts_with("frp-gateway: there is no certificate authority in CA\n  help: make one with "),
        "{said}"
    );
    assert!(!none.path("").exists(), "asking made nothing");
    fs::write(ca.path("index.json"), "{").expect("written");
    let damaged = ca.run(&["list"]);
    assert_eq!(damaged.status.code(), Some(1), "{}", String::from_utf8_lossy(&damaged.stderr));
}

/// A second opinion.
#[test]
fn openssl_agrees() {
    let openssl = |arguments: &[&str]| Command::new("openssl").args(arguments).output();
    let Ok(version) = openssl(&["version"]) else {
        eprintln!("skipped: there is no openssl on this machine");
        return;
    };
    let ca = Ca::new();
    ca.ok(&["issue", "a", "b", "c"]);
    ca.ok(&["issue", "gate.test", "--server"]);
    let old = ca.folder.path().join("old.pem");
    fs::copy(ca.path("issued/c/cert.pem"), &old).expect("copied");
    ca.ok(&["revoke", "b"]);
    ca.ok(&["rotate"]);
    ca.ok(&["renew", "c"]);
    let verify = |certificate: &Path, purpose: &str| {
        let text = |path: &Path| path.display().to_string();
        let (trust, crl, certificate) =
            (text(&ca.path("trust.pem")), text(&ca.path("crl.pem")), text(certificate));
        let output = openssl(&[
            "verify",
            "-x509_strict",
            "-crl_check",
            "-purpose",
            purpose,
            "-CAfile",
            &trust,
            "-CRLfile",
            &crl,
            &certificate,
        ])
        .expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let cert = |name: &str| ca.path(&format!("issued/{name}/cert.pem"));
    let judged = [
        (cert("a"), "sslclient", true),
        (cert("c"), "sslclient", true),
        (old, "sslclient", true),
        (cert("gate.test"), "sslserver", true),
        (cert("a"), "sslserver", false),
        (cert("gate.test"), "sslclient", false),
    ];
    for (certificate, purpose, expected) in judged {
        let (ok, said) = verify(&certificate, purpose);
        assert_eq!(ok, expected, "{} as {purpose}: {said}", certificate.display());
    }
    let (ok, said) = verify(&cert("b"), "sslclient");
    assert!(
        !ok && said.contains("certificate revoked"),
        "{said}\n{}",
        String::from_utf8_lossy(&version.stdout)
    );
}
