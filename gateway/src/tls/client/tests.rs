use std::{path::PathBuf, time::UNIX_EPOCH};

use frp_gateway_config::model::Pattern;
use rustls::crypto::aws_lc_rs;

use super::{
    testing::{Authority, Folder},
    *,
};

fn auth(trust: Vec<PathBuf>, crl: Vec<PathBuf>) -> ClientAuth {
    ClientAuth { mode: ClientAuthMode::Required, trust, crl, allow: Vec::new() }
}

fn loaded(auth: &ClientAuth) -> Result<Loaded, Vec<Wrong>> {
    load(auth, &Arc::new(aws_lc_rs::default_provider()), SystemTime::now())
}

fn gate(auth: &ClientAuth) -> Arc<ClientGate> {
    loaded(auth).expect("the files are right").gate
}

fn judge(gate: &ClientGate, chain: &[CertificateDer<'static>]) -> Result<(), Unwelcome> {
    gate.still(&ClientIdentity::of(chain).expect("it can be read"), SystemTime::now())
}

#[test]
fn clients_of_every_authority_that_is_trusted_are_good_and_of_no_other() {
    let folder = Folder::new();
    let (one, two, other) = (Authority::new("one"), Authority::new("two"), Authority::new("other"));
    let both = folder.file("both.pem", &format!("{}{}", one.pem(), two.pem()));
    let gate = gate(&auth(vec![both], Vec::new()));
    assert_eq!(judge(&gate, &[one.client("spiffe://a/1", 1)]), Ok(()));
    assert_eq!(judge(&gate, &[two.client("spiffe://a/2", 1)]), Ok(()));
    assert_eq!(judge(&gate, &[other.client("spiffe://a/3", 1)]), Err(Unwelcome::UnknownIssuer));
    assert_eq!(gate.root_hint_subjects().len(), 2);
}

#[test]
fn who_is_on_a_revocation_list_is_refused_and_issuers_without_one_are_not_asked_for_it() {
    let folder = Folder::new();
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let trust = vec![folder.file("one.pem", &one.pem()), folder.file("two.pem", &two.pem())];
    let gate = gate(&auth(trust, vec![folder.file("one.crl", &one.list(&[7]))]));
    assert_eq!(judge(&gate, &[one.client("spiffe://a/7", 7)]), Err(Unwelcome::Revoked));
    assert_eq!(judge(&gate, &[one.client("spiffe://a/8", 8)]), Ok(()));
    assert_eq!(judge(&gate, &[two.client("spiffe://a/7", 7)]), Ok(()), "it is another authority's number");
}

#[test]
fn the_newest_list_of_an_authority_counts_whatever_the_order_of_files() {
    let folder = Folder::new();
    let one = Authority::new("one");
    let trust = folder.file("one.pem", &one.pem());
    let (old, new) = (
        folder.file("a.crl", &one.list_of(&[], 2025, 4000)),
        folder.file("b.crl", &one.list_of(&[7], 2026, 4000)),
    );
    for files in [vec![old.clone(), new.clone()], vec![new, old]] {
        let gate = gate(&auth(vec![trust.clone()], files));
        assert_eq!(judge(&gate, &[one.client("spiffe://a/7", 7)]), Err(Unwelcome::Revoked));
    }
}

#[test]
fn an_authority_and_its_successor_of_the_same_name_are_trusted_together_each_with_its_list() {
    let folder = Folder::new();
    let (old, new) = (Authority::new("fleet"), Authority::new("fleet"));
    let trust = vec![folder.file("old.pem", &old.pem()), folder.file("new.pem", &new.pem())];
    let lists = vec![folder.file("old.crl", &old.list(&[1])), folder.file("new.crl", &new.list(&[2]))];
    for crl in [lists.clone(), vec![lists[1].clone(), lists[0].clone()]] {
        let gate = gate(&auth(trust.clone(), crl));
        assert_eq!(judge(&gate, &[old.client("spiffe://a/1", 1)]), Err(Unwelcome::Revoked));
        assert_eq!(judge(&gate, &[old.client("spiffe://a/2", 2)]), Ok(()));
        assert_eq!(judge(&gate, &[new.client("spiffe://a/1", 1)]), Ok(()));
        assert_eq!(judge(&gate, &[new.client("spiffe://a/2", 2)]), Err(Unwelcome::Revoked));
    }
}

#[test]
fn lists_of_an_authority_in_between_revoke_too() {
    let folder = Folder::new();
    let root = Authority::new("root");
    let between = root.below("between");
    let trust = vec![folder.file("root.pem", &root.pem())];
    let crl = vec![folder.file("between.crl", &between.list(&[7])), folder.file("root.crl", &root.list(&[]))];
    let gate = gate(&auth(trust, crl));
    let chain = |serial| [between.client("spiffe://a/x", serial), between.der()];
    assert_eq!(judge(&gate, &chain(8)), Ok(()));
    assert_eq!(judge(&gate, &chain(7)), Err(Unwelcome::Revoked));
    assert_eq!(
        judge(&gate, &chain(8)[..1]),
        Err(Unwelcome::UnknownIssuer),
        "what is in between must be shown"
    );
}

#[test]
fn only_those_on_the_list_are_let_in_and_others_are_told_that_it_is_not_the_certificate() {
    let folder = Folder::new();
    let one = Authority::new("one");
    let mut auth = auth(vec![folder.file("one.pem", &one.pem())], Vec::new());
    auth.allow = vec![Identity::Uri(Pattern("spiffe://fleet/frpc/*".into()))];
    let gate = gate(&auth);
    assert_eq!(judge(&gate, &[one.client("spiffe://fleet/frpc/1", 1)]), Ok(()));
    assert_eq!(judge(&gate, &[one.client("spiffe://fleet/admin", 2)]), Err(Unwelcome::NotAllowed));
}

#[test]
fn a_certificate_that_ran_out_or_is_for_servers_is_refused() {
    let folder = Folder::new();
    let one = Authority::new("one");
    let gate = gate(&auth(vec![folder.file("one.pem", &one.pem())], Vec::new()));
    let over = one.client_with("spiffe://a/1", 1, |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    assert_eq!(judge(&gate, &[over]), Err(Unwelcome::Expired));
    let server = one.client_with("spiffe://a/1", 1, |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(judge(&gate, &[server]), Err(Unwelcome::Bad));
    let good = ClientIdentity::of(&[one.client("spiffe://a/1", 1)]).expect("it can be read");
    assert_eq!(gate.still(&good, UNIX_EPOCH), Err(Unwelcome::Expired), "not valid yet then");
}

#[test]
fn an_overdue_list_is_used_with_a_warning() {
    let folder = Folder::new();
    let one = Authority::new("one");
    let crl = folder.file("one.crl", &one.list_of(&[7], 2020, 2021));
    let loaded = loaded(&auth(vec![folder.file("one.pem", &one.pem())], vec![crl])).expect("it is used");
    assert_eq!(judge(&loaded.gate, &[one.client("spiffe://a/7", 7)]), Err(Unwelcome::Revoked));
    assert_eq!(judge(&loaded.gate, &[one.client("spiffe://a/8", 8)]), Ok(()));
    let [warning] = loaded.warnings.as_slice() else { panic!("one warning: {:?}", loaded.warnings) };
    assert_eq!(warning.key, "crl[0]");
    assert!(warning.message.contains("one.crl") && warning.message.contains("2021"), "{}", warning.message);
}

#[test]
fn every_file_that_is_wrong_is_named_with_its_reason() {
    let folder = Folder::new();
    let (one, other) = (Authority::new("one"), Authority::new("one"));
    let right = folder.file("one.pem", &one.pem());
    let cases = [
        (auth(vec![folder.path().join("none.pem")], vec![]), "trust[0]", "none.pem"),
        (
            auth(vec![right.clone(), folder.file("empty.pem", "")], vec![]),
            "trust[1]",
            "no certificate in PEM",
        ),
        (auth(vec![folder.file("cut.pem", &one.pem()[..200])], vec![]), "trust[0]", "cut.pem"),
        (
            auth(vec![right.clone()], vec![folder.file("empty.crl", "")]),
            "crl[0]",
            "no revocation list in PEM",
        ),
        (
            auth(vec![right.clone()], vec![folder.file("cut.crl", &one.list(&[1])[..150])]),
            "crl[0]",
            "cut.crl",
        ),
        (
            auth(vec![right.clone()], vec![folder.file("foreign.crl", &other.list(&[1]))]),
            "crl[0]",
            "not signed by",
        ),
    ];
    for (auth, key, part) in cases {
        let wrong = loaded(&auth).expect_err("it is wrong");
        let [only] = wrong.as_slice() else { panic!("one fault: {wrong:?}") };
        assert!(only.key == key && only.message.contains(part), "{key}, {part}: {only:?}");
    }
    let wrong =
        loaded(&auth(vec![folder.path().join("a")], vec![folder.path().join("b")])).expect_err("both");
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}
