//! Files that are watched: whether they have changed, and whether what is wrong with them has been so for long.

use std::{
    hash::{DefaultHasher, Hasher as _},
    path::PathBuf,
    time::{Instant, SystemTime},
};

use super::keeper::{Print, WRITE_WAIT};

/// Files as they were when they were read.
#[derive(Debug, Clone)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    prints: Vec<Option<Print>>,
    digest: Option<u64>,
    /// Content that isn't taken: its digest, since when, and whether the log knows.
    suspect: Option<(Option<u64>, Instant, bool)>,
}

/// What is to be done about content that isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    /// It is time to tell.
    pub(super) tell: bool,
    /// It may pass: look again soon.
    pub(super) again: bool,
}

impl Files {
    /// As they are now. To be taken before they are read.
    pub(super) fn new(paths: Vec<PathBuf>, now: SystemTime) -> Self {
        let prints = prints(&paths, now);
        let digest = digest(&paths);
        Self { paths, prints, digest, suspect: None }
    }

    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether they hold the same.
    pub(super) fn hold_the_same(&self, other: &Self) -> bool {
        self.paths == other.paths && self.digest.is_some() && self.digest == other.digest
    }

    /// Whether they surely hold what they held, by how they look from outside.
    pub(super) fn are_as_they_were(&self, now: SystemTime) -> bool {
        let prints = prints(&self.paths, now);
        self.suspect.is_none() && prints.iter().all(Option::is_some) && prints == self.prints
    }

    /// What is in them now isn't taken.
    pub(super) fn suspect(&mut self, now: &Self, at: Instant) -> Doubt {
        let known = self.suspect.filter(|(digest, ..)| *digest == now.digest);
        let (digest, since, told) = known.unwrap_or((now.digest, at, false));
        let tell = !told && at.saturating_duration_since(since) >= WRITE_WAIT;
        self.suspect = Some((digest, since, told || tell));
        Doubt { tell, again: !(told || tell) }
    }
}

fn prints(paths: &[PathBuf], now: SystemTime) -> Vec<Option<Print>> {
    paths.iter().map(|path| Print::of(path, now)).collect()
}

/// Of their content; `None` = one of them can't be read.
fn digest(paths: &[PathBuf]) -> Option<u64> {
    let mut hasher = DefaultHasher::new(); // fixed keys: equal bytes, equal hash
    for path in paths {
        let bytes = std::fs::read(path).ok()?;
        hasher.write_usize(bytes.len());
        hasher.write(&bytes);
    }
    Some(hasher.finish())
}
