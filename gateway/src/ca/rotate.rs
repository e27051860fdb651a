//! Replacing the root while everything goes on: both are trusted for a while.

use time::OffsetDateTime;

use super::{
    Authority, CaError, files,
    index::{RootState, Standing},
};

/// Names that a message lists.
const SHOWN: usize = 5;

impl Authority {
    /// Makes a new root, which signs from now on. `trust.pem` and every name's `ca.pem` hold both. Returns (old, new).
    ///
    /// # Errors
    /// A rotation is under way; files.
    pub fn begin_rotation(&mut self, now: OffsetDateTime) -> Result<(u32, u32), CaError> {
        if let Some(root) = self.index.leaving() {
            return Err(CaError::Rotating(root.number));
        }
        let mut old = 0;
        for root in self.index.roots.iter_mut().filter(|root| root.state == RootState::Signing) {
            root.state = RootState::Leaving;
            old = root.number;
        }
        let new = self.add_root(now)?;
        self.sign_lists(now)?;
        self.save()?;
        self.spread_trust()?;
        Ok((old, new))
    }

    /// Ends the trust in the old root and destroys its key. Returns its number.
    ///
    /// # Errors
    /// No rotation is under way; names whose newest certificate is the old root's, unless `force`; files.
    pub fn finish_rotation(&mut self, force: bool, now: OffsetDateTime) -> Result<u32, CaError> {
        let Some(root) = self.index.leaving().map(|root| root.number) else {
            return Err(CaError::NotRotating);
        };
        let mut names: Vec<String> = self
            .index
            .newest()
            .into_values()
            .filter(|entry| {
                let standing = self.index.standing(entry, now);
                entry.root == root && matches!(standing, Standing::Valid | Standing::Ending)
            })
            .map(|entry| entry.name.clone())
            .collect();
        if !names.is_empty() && !force {
            names.sort();
            let total = names.len();
            names.truncate(SHOWN);
            return Err(CaError::InUse { root, total, names });
        }
        for one in self.index.roots.iter_mut().filter(|one| one.number == root) {
            one.state = RootState::Gone;
        }
        self.sign_lists(now)?;
        self.save()?;
        self.spread_trust()?;
        files::remove(&self.root_folder(root).join("key.pem"))?;
        Ok(root)
    }
}
