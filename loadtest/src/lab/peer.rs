//! Another proxy in front of the same fleet, to compare with: any program that takes a configuration file.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    path::Path,
    time::Duration,
};

use super::{FreePorts, LabError, Process, folder::Folder};

const START_DEADLINE: Duration = Duration::from_secs(15);

/// A running peer. Signals and log come from [`Process`].
#[derive(Debug)]
pub struct Peer {
    process: Process,
    address: SocketAddr,
    _folder: Folder,
    _held: FreePorts,
}

impl Peer {
    /// Starts `program`, an absolute path. `config` writes its configuration, given the port to listen on and its folder;
    /// `arguments` are given that file. Returns when the port takes connections.
    ///
    /// # Errors
    /// When the program is missing, ends, or doesn't listen within 15 s.
    pub async fn start(
        name: &str,
        program: &str,
        config: impl FnOnce(u16, &Path) -> String,
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Result<Self, LabError> {
        let mut held = FreePorts::new();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, held.take()?));
        let folder = Folder::new(name)?;
        let text = config(address.port(), folder.path());
        let file = folder.write("peer.conf", &text)?;
        let mut process = Process::spawn(name, Path::new(program), folder.path(), |command| {
            command.args(arguments(&file));
        })?;
        let listens = async || TcpStream::connect(address).ok();
        process.until("it to listen", START_DEADLINE, listens).await?;
        Ok(Self { process, address, _folder: folder, _held: held })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Deref for Peer {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Peer {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
