//! Loopback ports for processes that cannot report back which port the system gave them (frps and frpc).

use std::{
    env,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
};

use super::LabError;

/// Ports that are free now and stay ours until this value is dropped.
///
/// They are taken below the range from which the system serves `bind(0)` and outgoing connections, so nobody gets one by
/// accident between our look and the process's bind. Other users of this type, in any process, are kept away by a
/// lock on one file per port; the system drops the locks with the process.
#[derive(Debug, Default)]
pub struct FreePorts {
    locks: Vec<File>,
}

impl FreePorts {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One port.
    ///
    /// # Errors
    /// When the whole range is taken or the lock files can't be made.
    pub fn take(&mut self) -> Result<u16, LabError> {
        self.block(1)
    }

    /// The first of `count` consecutive ports (at least one).
    ///
    /// # Errors
    /// When there is no such block or the lock files can't be made.
    pub fn block(&mut self, count: u16) -> Result<u16, LabError> {
        let folder = env::temp_dir().join(format!("frp-lab-ports-{}", rustix::process::getuid().as_raw()));
        fs::create_dir_all(&folder).map_err(LabError::io("make the folder of port locks"))?;
        let lock = |port: u16| -> Option<File> {
            let file = File::create(folder.join(port.to_string())).ok()?;
            file.try_lock().ok()?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
            Some(file)
        };
        let (low, high) = range();
        let width = u64::from(high - low);
        let offset = RandomState::new().hash_one(0_u8) % width;
        let mut held = Vec::new();
        let mut next = low + u16::try_from(offset).expect("less than the width of a u16 range");
        // Twice around: a block may start just before the random offset.
        for _ in 0..2 * width {
            match lock(next) {
                Some(file) => held.push(file),
                None => held.clear(),
            }
            next += 1;
            if held.len() >= usize::from(count.max(1)) {
                self.locks.append(&mut held);
                return Ok(next - count.max(1));
            }
            if next >= high {
                held.clear();
                next = low;
            }
        }
        Err(LabError::Timeout {
            what: format!("{count} consecutive free ports"),
            after: std::time::Duration::ZERO,
            detail: format!("none in {low}..{high}"),
        })
    }
}

/// From 12000 to the start of the system's own range; all above 12000 when that leaves too little.
fn range() -> (u16, u16) {
    let system = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let start =
        system.as_deref().and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(32768);
    if start >= 14000 { (12000, start) } else { (12000, u16::MAX) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_while_its_holder_lives() {
        let mut one = FreePorts::new();
        let mut other = FreePorts::new();
        let mut seen = HashSet::new();
        for _ in 0..50 {
            assert!(seen.insert(one.take().unwrap()));
            assert!(seen.insert(other.take().unwrap()));
        }
    }

    #[test]
    fn a_block_is_consecutive_and_bindable() {
        let mut ports = FreePorts::new();
        let first = ports.block(20).unwrap();
        for port in first..first + 20 {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_given() {
        let mut ports = FreePorts::new();
        let port = ports.take().unwrap();
        drop(ports);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let mut all = FreePorts::new();
        for _ in 0..200 {
            assert_ne!(all.take().unwrap(), port);
        }
    }
}
