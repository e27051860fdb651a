//! The agent beside an frps, as a process with a file.

use std::{
    env,
    net::SocketAddr,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{LabError, Process, binaries::existing, folder::Folder};
use crate::http;

const START_DEADLINE: Duration = Duration::from_secs(15);

/// A running `frp-gateway agent`. Signals, log and pid come from [`Process`].
#[derive(Debug)]
pub struct Agent {
    process: Process,
    binary: PathBuf,
    listen: SocketAddr,
    folder: Folder,
}

impl Agent {
    /// `BINARY agent -c FILE` with `yaml` in the file, whose `agent.listen` is `listen`; waits until it answers there.
    /// `FRP_GATEWAY_BIN` overrides `binary`.
    ///
    /// # Errors
    /// When the binary is missing, the process ends (bad YAML: the log is in the error) or doesn't answer within 15 s.
    pub async fn start(binary: impl AsRef<Path>, yaml: &str, listen: SocketAddr) -> Result<Self, LabError> {
        let binary = env::var_os("FRP_GATEWAY_BIN").map_or_else(|| binary.as_ref().to_owned(), PathBuf::from);
        let binary = existing(binary, "run cargo build -p frp-gateway")?;
        let folder = Folder::new("agent")?;
        folder.write("agent.yaml", yaml)?;
        let process = spawn(&binary, &folder)?;
        let mut agent = Self { process, binary, listen, folder };
        agent.ready().await?;
        Ok(agent)
    }

    /// Kills it if it still runs and starts it again with the same file.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> Result<(), LabError> {
        self.process.kill9();
        self.process = spawn(&self.binary, &self.folder)?;
        self.ready().await
    }

    async fn ready(&mut self) -> Result<(), LabError> {
        let listen = self.listen;
        let asked =
            async || http::get(listen, "agent", "/healthz").await.ok().filter(|reply| reply.status == 200);
        self.process.until("the agent to answer", START_DEADLINE, asked).await.map(drop)
    }
}

impl Deref for Agent {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn spawn(binary: &Path, folder: &Folder) -> Result<Process, LabError> {
    Process::spawn("agent", binary, folder.path(), |command| {
        command.arg("agent").arg("-c").arg(folder.path().join("agent.yaml"));
    })
}
