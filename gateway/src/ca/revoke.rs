//! Revoking, and signing the lists anew before they end.

use time::OffsetDateTime;

use super::{
    Authority, CaError,
    index::{Entry, Reason, Revocation},
};

impl Authority {
    /// Revokes every certificate of a name that hasn't ended, or the one with a serial number, and signs the lists. Returns what was
    /// revoked.
    ///
    /// # Errors
    /// Nothing is called so (nothing is revoked then); it is revoked already; files.
    pub fn revoke(
        &mut self,
        which: &[String],
        reason: Reason,
        now: OffsetDateTime,
    ) -> Result<Vec<Entry>, CaError> {
        let mut chosen = Vec::new();
        let mut unknown = Vec::new();
        for one in which {
            let digits: String = one.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
            let is_meant = |entry: &Entry| entry.name == *one || entry.serial == digits;
            let meant: Vec<_> = (0..self.index.certificates.len())
                .filter(|at| is_meant(&self.index.certificates[*at]))
                .collect();
            let Some(newest) = meant.last() else {
                unknown.push(one.clone());
                continue;
            };
            let open = |at: &usize| {
                let entry = &self.index.certificates[*at];
                entry.revoked.is_none() && entry.not_after > now
            };
            let open: Vec<_> = meant.iter().copied().filter(open).collect();
            if let (true, Some(revoked)) = (open.is_empty(), self.index.certificates[*newest].revoked) {
                return Err(CaError::RevokedAlready { name: one.clone(), reason: revoked.reason });
            }
            // One that has ended can still be marked, so that it isn't renewed by mistake.
            chosen.extend(if open.is_empty() { vec![*newest] } else { open });
        }
        if !unknown.is_empty() {
            return Err(CaError::Unknown(unknown));
        }
        for at in &chosen {
            self.index.certificates[*at].revoked = Some(Revocation { at: now, reason });
        }
        self.sign_lists(now)?;
        self.save()?;
        Ok(chosen.into_iter().map(|at| self.index.certificates[at].clone()).collect())
    }

    /// Signs the lists anew, valid for `days` (and so do all later commands); `None` = as long as before. Also writes `trust.pem` and
    /// every name's `ca.pem` again. Returns the lists' number and end.
    ///
    /// # Errors
    /// Files.
    pub fn refresh_lists(
        &mut self,
        days: Option<u32>,
        now: OffsetDateTime,
    ) -> Result<(u64, OffsetDateTime), CaError> {
        self.index.crl.days = days.unwrap_or(self.index.crl.days);
        self.sign_lists(now)?;
        self.save()?;
        self.spread_trust()?;
        Ok((self.index.crl.number, now + time::Duration::days(self.index.crl.days.into())))
    }
}
