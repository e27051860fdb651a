//! Is an frps frozen? A stopped process, a hung machine: connections come up, the kernel answers, and nothing ever follows. Nobody
//! tells, and FRP itself takes up to a minute to notice.
//!
//! Each frps with an admin API is asked for `/healthz` twice a second. When that stays silent, its control port (else its vhost port) is
//! knocked at with bytes that a live frps answers by closing: only when both are silent is it frozen. An admin API that is down,
//! slow or walled off alone proves nothing, and its tunnels serve on. Then nothing more is sent there, what waits for an answer of it
//! is given up (and sent elsewhere where it may be), and the clients that came through us are cut loose: they dial again at once.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

use super::task::Board;
use crate::{
    clock,
    snapshot::{Published, Snapshot},
};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// How long `/healthz` may take. It takes no lock of frps and is answered in well under a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the closing of a connection that makes no sense may take.
const KNOCK: Duration = Duration::from_millis(700);

/// What an answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Bytes, an end, or a refusal: somebody is there, or nobody is.
    Answered,
    /// Nothing at all.
    Silent,
}

/// Watches one frps until aborted.
pub async fn watch(frps: String, board: Board, published: Published) {
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut frozen = Frozen { frps, published, is: false };
    loop {
        every.tick().await;
        let Some(places) = places(&board, &frozen.frps) else { continue };
        let silent = ask(&places.admin, HEALTHZ, PATIENCE).await == Sign::Silent;
        if silent && !frozen.is && is_frozen(&places).await {
            let cut = frozen.begin();
            tracing::warn!(
                frps = &*frozen.frps,
                clients = cut,
                "frps is frozen: connections come up and nothing answers; its clients are cut loose to dial again"
            );
        } else if !silent && frozen.is {
            tracing::info!(frps = &*frozen.frps, "frps answers again");
            frozen.end();
        } else if frozen.is {
            frozen.go_on();
        }
    }
}

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: frps\r\nConnection: close\r\n\r\n";
/// No version of yamux, no TLS, no message of FRP: frps closes at once.
const NONSENSE: &[u8] = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\r\n\r\n";

/// Where an frps can be asked.
#[derive(Debug)]
struct Places {
    admin: String,
    /// `host:port` and what to say there.
    other: Option<(String, &'static [u8])>,
}

fn places(board: &Board, frps: &str) -> Option<Places> {
    let state = board.load();
    let frps = state.config.as_ref()?.frps.iter().find(|known| known.name == frps)?;
    let admin = frps.admin.as_ref()?.url.strip_prefix("http://")?.to_owned();
    let host = if frps.host.contains(':') { format!("[{}]", frps.host) } else { frps.host.clone() };
    let control = frps.control_port.map(|port| (format!("{host}:{port}"), NONSENSE));
    let other = control.or_else(|| frps.vhost_http_port.map(|port| (format!("{host}:{port}"), HEALTHZ)));
    Some(Places { admin, other })
}

async fn is_frozen(places: &Places) -> bool {
    match &places.other {
        Some((address, words)) => ask(address, words, KNOCK).await == Sign::Silent,
        // There is nobody else to ask: a silent admin API alone proves nothing.
        None => false,
    }
}

/// Connects, says `words` and waits for any sign.
async fn ask(address: &str, words: &[u8], patience: Duration) -> Sign {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(words).await?;
        stream.read(&mut [0; 64]).await
    };
    match timeout(patience, exchange).await {
        Ok(Ok(_)) => Sign::Answered,
        // Refused or reset, by somebody who is awake; or our own lack of something.
        Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => Sign::Answered,
        Ok(Err(_)) | Err(_) => Sign::Silent,
    }
}

/// What is done about it. Dropping it undoes it.
#[derive(Debug)]
struct Frozen {
    frps: String,
    published: Published,
    is: bool,
}

impl Frozen {
    /// Returns how many clients were cut loose.
    fn begin(&mut self) -> usize {
        self.is = true;
        self.go_on();
        let relays = &self.published.load().relays;
        relays.of(&self.frps).iter().filter(|relay| relays.cut(relay.id)).count()
    }

    /// What was published meanwhile is of the same frps.
    fn go_on(&self) {
        let snapshot = self.published.load();
        mark(&snapshot, &self.frps, true);
        for frps in snapshot.frps.iter().filter(|known| *known.live.name == *self.frps) {
            // Nobody is to be placed there; that it is down is news once.
            frps.live.failed(clock::now());
        }
    }

    fn end(&mut self) {
        self.is = false;
        mark(&self.published.load(), &self.frps, false);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.is {
            self.end();
        }
    }
}

/// Marks all endpoints of an frps.
fn mark(snapshot: &Snapshot, frps: &str, frozen: bool) {
    for pool in snapshot.every_pool() {
        for member in pool.members.iter().filter(|member| *member.endpoint.id.frps == *frps) {
            member.endpoint.set_frozen(frozen);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn silence_is_told_from_an_answer_an_end_and_a_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let short = Duration::from_millis(100);
        assert_eq!(ask(&address, HEALTHZ, short).await, Sign::Silent, "the kernel alone let us in");
        let (silent, _) = listener.accept().await.unwrap();
        let asked = tokio::spawn({
            let address = address.clone();
            async move { ask(&address, NONSENSE, Duration::from_secs(10)).await }
        });
        let (closing, _) = listener.accept().await.unwrap();
        drop(closing);
        assert_eq!(asked.await.unwrap(), Sign::Answered, "an end is a sign");
        drop((silent, listener));
        let nobody: SocketAddr = address.parse().unwrap();
        assert_eq!(ask(&nobody.to_string(), HEALTHZ, short).await, Sign::Answered, "so is a refusal");
    }
}
