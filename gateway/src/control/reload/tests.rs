//! Each way in which people and machines replace a file.

use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::control::testing::{Rig, until, yaml};

/// [`Rig`] with a watched file.
struct Watched {
    rig: Rig,
    watching: tokio::task::JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Watched {
    fn new(rig: Rig, path: &Path) -> Self {
        let watching = tokio::spawn(watch(path.to_owned(), Content::of(path), rig.handle.clone()));
        Self { rig, watching }
    }

    async fn generation(&self, wanted: u64) {
        until("the change is in force", || self.rig.handle.state().generation == wanted).await;
    }
}

fn version(n: u32) -> String {
    yaml("").replace("shop.test", &format!("v{n}.test"))
}

async fn plain() -> Watched {
    let rig = Rig::start(&version(1)).await;
    let path = rig.path();
    Watched::new(rig, &path)
}

#[tokio::test]
async fn a_write_in_place_is_seen() {
    let watched = plain().await;
    fs::write(watched.rig.path(), version(2)).unwrap();
    watched.generation(2).await;
}

#[tokio::test]
async fn an_editor_that_renames_is_seen_again_and_again() {
    let watched = plain().await;
    for n in 2..5 {
        let new = watched.rig.folder.path().join("gateway.yaml~");
        fs::write(&new, version(n)).unwrap();
        fs::rename(&new, watched.rig.path()).unwrap();
        watched.generation(n.into()).await;
    }
}

#[tokio::test]
async fn a_kubernetes_symlink_swap_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for n in 1..=3 {
        fs::create_dir(at(&format!("..{n}"))).unwrap();
        fs::write(at(&format!("..{n}/gateway.yaml")), version(n)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/gateway.yaml", at("gateway.yaml")).unwrap();
    let swap = [2, 3].map(|n| (format!("..{n}"), at(&format!("..tmp{n}")), at("..data")));
    let path = at("gateway.yaml");
    let watched = Watched::new(Rig::start_in(folder, path.clone()).await, &path);
    for (generation, (target, new, data)) in (2..).zip(swap) {
        symlink(target, &new).unwrap();
        fs::rename(&new, &data).unwrap();
        watched.generation(generation).await;
    }
}

#[tokio::test]
async fn a_burst_of_writes_ends_in_the_last_one() {
    let watched = plain().await;
    for n in 2..50 {
        fs::write(watched.rig.path(), version(n)).unwrap();
    }
    until("the last write is in force", || {
        let state = watched.rig.handle.state();
        format!("{:?}", state.config).contains("v49.test")
    })
    .await;
    let reloads = &watched.rig.handle.state().reloads;
    assert!(reloads.changed + reloads.failed < 10, "a burst is one change or a few: {reloads:?}");
}

#[tokio::test]
async fn other_files_in_the_folder_cause_nothing() {
    let watched = plain().await;
    fs::write(watched.rig.folder.path().join("other.yaml"), "x").unwrap();
    fs::write(watched.rig.path(), version(2)).unwrap();
    watched.generation(2).await;
    let reloads = &watched.rig.handle.state().reloads;
    assert_eq!((reloads.changed, reloads.unchanged, reloads.failed), (2, 0, 0));
}

#[tokio::test]
async fn a_file_that_goes_away_is_a_refused_reload_and_its_return_a_good_one() {
    let watched = plain().await;
    fs::remove_file(watched.rig.path()).unwrap();
    until("the loss is told", || watched.rig.handle.state().reloads.failed == 1).await;
    assert_eq!(watched.rig.handle.state().generation, 1, "the old configuration stays");
    fs::write(watched.rig.path(), version(1)).unwrap();
    until("the return is told", || watched.rig.handle.state().reloads.unchanged == 1).await;
}
