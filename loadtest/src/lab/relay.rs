//! A TCP relay that can be told to misbehave: what lies between a gateway and an admin API on a bad day.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use super::{FreePorts, LabError};

/// What a [`Relay`] does with connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weather {
    /// Passes everything on.
    Clear,
    /// Passes everything on; each piece from the far side comes so much later.
    Late(Duration),
    /// Takes connections and never says a word.
    Silent,
    /// Answers whatever comes with this text, then closes.
    Says(String),
    /// Refuses connections.
    Refused,
}

/// A relay on a loopback port of its own. Ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
    _held: FreePorts,
}

impl Relay {
    /// One towards `target`, in clear weather.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(target: SocketAddr) -> Result<Self, LabError> {
        let mut held = FreePorts::new();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, held.take()?));
        let (weather, seen) = watch::channel(Weather::Clear);
        let listener = TcpListener::bind(address).await.map_err(LabError::io("bind a relay"))?;
        let task = tokio::spawn(run(address, target, listener, seen));
        Ok(Self { address, weather, task, _held: held })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather: open connections are cut, those to come get the new one.
    pub fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    address: SocketAddr,
    target: SocketAddr,
    listener: TcpListener,
    mut weather: watch::Receiver<Weather>,
) {
    let mut listener = Some(listener);
    loop {
        let now = weather.borrow_and_update().clone();
        if now == Weather::Refused {
            listener = None;
        } else if listener.is_none() {
            // The port is held for us; only a connection of old times may be in the way for a moment.
            listener = TcpListener::bind(address).await.ok();
        }
        let Some(listener) = listener.as_ref() else {
            tokio::select! {
                changed = weather.changed() => if changed.is_err() { return },
                () = sleep(Duration::from_millis(10)), if now != Weather::Refused => {}
            }
            continue;
        };
        tokio::select! {
            changed = weather.changed() => if changed.is_err() { return },
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let mut weather = weather.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve(stream, target, now) => {}
                        // Also when the relay itself is gone.
                        _ = weather.changed() => {}
                    }
                });
            },
        }
    }
}

async fn serve(mut near: TcpStream, target: SocketAddr, weather: Weather) {
    near.set_nodelay(true).ok();
    match weather {
        Weather::Clear => {
            if let Ok(mut far) = TcpStream::connect(target).await {
                far.set_nodelay(true).ok();
                copy_bidirectional(&mut near, &mut far).await.ok();
            }
        }
        Weather::Late(pause) => {
            let Ok(far) = TcpStream::connect(target).await else { return };
            let ((mut far_reads, mut far_writes), (mut near_reads, mut near_writes)) =
                (far.into_split(), near.into_split());
            let late = async {
                let mut block = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = far_reads.read(&mut block).await {
                    sleep(pause).await;
                    if near_writes.write_all(&block[..count]).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = late => {}
                _ = copy(&mut near_reads, &mut far_writes) => {}
            }
        }
        Weather::Silent => drain(&mut near).await,
        Weather::Says(text) => {
            let mut block = [0; 1024];
            if matches!(near.read(&mut block).await, Ok(1..)) {
                near.write_all(text.as_bytes()).await.ok();
                near.shutdown().await.ok();
                drain(&mut near).await;
            }
        }
        Weather::Refused => {}
    }
}

/// Reads until the other side closes, so that closing resets nothing that is under way.
async fn drain(stream: &mut TcpStream) {
    let mut block = [0; 4096];
    while matches!(stream.read(&mut block).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{demo::DemoApp, http, lab::until};

    #[tokio::test(flavor = "current_thread")]
    async fn each_weather_is_what_it_says_and_cuts_what_was_open() {
        let app = DemoApp::start("app").unwrap();
        let relay = Relay::start(app.addr()).await.unwrap();
        let at = relay.address();
        let mut kept = http::Connection::open(at).await.unwrap();
        let hello = || http::request("GET", "app", "/").body(http::empty());
        assert_eq!(kept.send(hello()).await.unwrap().app(), Some("app"));

        relay.turn(Weather::Says("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".into()));
        until("the kept connection to be cut", http::DEADLINE, async || kept.send(hello()).await.err())
            .await
            .unwrap();
        assert_eq!(http::get(at, "app", "/").await.unwrap().status, 500);

        relay.turn(Weather::Refused);
        until("refusals", http::DEADLINE, async || http::get(at, "app", "/").await.err()).await.unwrap();

        relay.turn(Weather::Silent);
        let answer = until("connections again", http::DEADLINE, async || {
            http::raw(at, b"GET / HTTP/1.1\r\nHost: app\r\n\r\n", Duration::from_millis(50)).await.ok()
        });
        assert_eq!(answer.await.unwrap(), b"");

        relay.turn(Weather::Late(Duration::from_millis(50)));
        let begun = std::time::Instant::now();
        assert_eq!(http::get(at, "app", "/").await.unwrap().app(), Some("app"));
        assert!(begun.elapsed() >= Duration::from_millis(50), "{:?}", begun.elapsed());

        relay.turn(Weather::Clear);
        assert_eq!(http::get(at, "app", "/").await.unwrap().app(), Some("app"));
    }
}
