use std::os::unix::fs::PermissionsExt as _;

use super::*;

const DIRECTORY: &str = "https://acme.test:14000/dir";

fn stored(name: &str) -> Stored {
    Stored { name: name.into(), user: Some("alice".into()), chain: "chain".into(), key: "key".into() }
}

#[test]
fn what_is_kept_is_found_again_and_only_its_owner_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(&folder.path().join("deep/down"), DIRECTORY, 1).unwrap();
    assert_eq!(storage.certificate("a.test").unwrap(), None);
    storage.put_certificate(&stored("a.test")).unwrap();
    let again = Storage::open(&folder.path().join("deep/down"), DIRECTORY, 2).unwrap();
    assert_eq!(again.certificate("a.test").unwrap(), Some(stored("a.test")));
    let names: Vec<_> = again.list().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a.test"], "no temporary file is left or listed");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let root = folder.path().join("deep/down").join(slug(DIRECTORY));
    assert_eq!(mode(&root), 0o700, "{}", root.display());
    assert_eq!(mode(&root.join("certificates/a.test")), 0o600);
    again.remove_certificate("a.test").unwrap();
    again.remove_certificate("a.test").unwrap();
    assert_eq!(storage.certificate("a.test").unwrap(), None);
}

#[test]
fn authorities_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let one = Storage::open(folder.path(), DIRECTORY, 1).unwrap();
    one.put_certificate(&stored("a.test")).unwrap();
    let other = Storage::open(folder.path(), "https://acme.test:14000/dir2", 1).unwrap();
    assert_eq!(other.certificate("a.test").unwrap(), None);
    assert_eq!(slug("https://../../etc").matches('/').count(), 0);
}

#[test]
fn a_damaged_certificate_is_told_and_one_of_another_name_isnt_taken() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path(), DIRECTORY, 1).unwrap();
    fs::write(storage.of_certificate("a.test"), "{\"name\": \"a.te").unwrap();
    assert_eq!(storage.certificate("a.test").unwrap_err().kind(), io::ErrorKind::InvalidData);
    fs::write(storage.of_certificate("a.test"), serde_json::to_vec(&stored("b.test")).unwrap()).unwrap();
    assert_eq!(storage.certificate("a.test").unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn one_gateway_at_a_time_has_a_lock_and_a_stale_one_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let one = Storage::open(folder.path(), DIRECTORY, 1).unwrap();
    let two = Storage::open(folder.path(), DIRECTORY, 2).unwrap();
    let now = SystemTime::now();
    let lock = one.lock("a.test", now).unwrap().expect("nobody has it");
    assert!(two.lock("a.test", now).unwrap().is_none());
    assert!(one.lock("a.test", now).unwrap().is_none(), "nor twice by the same");
    assert!(two.lock("b.test", now).unwrap().is_some());
    let later = now + LEASE + Duration::from_secs(2);
    assert!(lock.renew(later - Duration::from_secs(5)).unwrap());
    assert!(two.lock("a.test", later).unwrap().is_none(), "it was renewed");
    let much_later = later + LEASE;
    let taken = two.lock("a.test", much_later).unwrap().expect("its lease is over");
    assert!(!lock.renew(much_later).unwrap(), "it is lost");
    drop(lock);
    assert!(one.lock("a.test", much_later).unwrap().is_none(), "who lost it doesn't give it back");
    drop(taken);
    assert!(one.lock("a.test", much_later).unwrap().is_some());
}

#[test]
fn a_lock_that_was_half_written_holds_for_a_lease_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path(), DIRECTORY, 1).unwrap();
    fs::write(storage.root.join("locks/a.test"), "").unwrap();
    let now = SystemTime::now();
    assert!(storage.lock("a.test", now).unwrap().is_none());
    assert!(storage.lock("a.test", now + LEASE + Duration::from_secs(5)).unwrap().is_some());
}

#[test]
fn proofs_are_shared_and_their_keys_lead_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let one = Storage::open(folder.path(), DIRECTORY, 1).unwrap();
    let two = Storage::open(folder.path(), DIRECTORY, 2).unwrap();
    one.put_proof("Ab-_9", "Ab-_9.thumb").unwrap();
    assert_eq!(two.proof("Ab-_9").as_deref(), Some("Ab-_9.thumb"));
    for key in ["", ".", "..", "../account.json", "a/b", ".x", "a\0b"] {
        assert_eq!(two.proof(key), None, "{key:?}");
        assert!(one.put_proof(key, "x").is_err(), "{key:?}");
    }
    two.remove_proof("Ab-_9");
    assert_eq!(one.proof("Ab-_9"), None);
}
