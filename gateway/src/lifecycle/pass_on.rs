//! Relayed clients pass from the old process to the new one: the old one's side.
//!
//! As sockets, where both sides of a connection are plain ones here: clients and frps notice nothing. Where TLS ends at this process
//! that can't be: those stay until the last visitor of this process has been served; then the new process has them cut one by one,
//! when their tunnels' requests wait there.

use std::{
    collections::HashSet,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{interval, sleep},
};

use super::{
    channel::{Channel, MOST_CLIENTS, Message},
    successor::Successor,
};
use crate::{
    control::relays::{RelayInfo, Relays},
    data::{
        frp::hand_on::{Offer, Verdict},
        io::{Elapsed, until},
        worker::Workers,
    },
};

/// Longest wait for the new process to say what it took.
const TOOK_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked who is left.
const LOOK: Duration = Duration::from_millis(10);
/// Whoever has not offered itself after so long never will.
const SLOW: Duration = Duration::from_secs(10);
/// Once all others have gone, those that have not logged in may take so long.
const LATECOMERS: Duration = Duration::from_secs(5);
/// A login takes no longer. A client that is cut in the middle of its first one gives up.
const LOGIN: Duration = Duration::from_millis(1500);
/// Between two clients that are cut because nobody fetches them.
const PACE: Duration = Duration::from_millis(50);
/// All of those at most.
const PACE_ALL: Duration = Duration::from_secs(10);

/// Passes clients on until none is left. `served` ends when this process has no more visitors.
pub(super) async fn clients(
    successor: &Successor,
    workers: &Workers,
    relays: &Arc<Relays>,
    mut served: oneshot::Receiver<()>,
) {
    let mut passed = 0;
    if successor.takes_clients {
        let (to, offers) = mpsc::channel(MOST_CLIENTS);
        workers.hand_on(&to);
        let channel = successor.channel();
        passed = Passing { channel, workers, relays, passed }.run(offers, &mut served).await;
    }
    if !served.is_terminated() {
        drop(served.await);
    }
    let left = relays.all();
    tracing::info!(passed, left = left.len(), "clients handed on");
    let pace = PACE.min(PACE_ALL / u32::try_from(left.len()).unwrap_or(u32::MAX).max(1));
    for client in left {
        if relays.cut(client.id) {
            sleep(pace).await;
        }
    }
    workers.end().await;
}

struct Passing<'a> {
    channel: &'a Channel,
    workers: &'a Workers,
    relays: &'a Relays,
    passed: usize,
}

impl Passing<'_> {
    /// Returns when no client is left, or when nothing more can be done for those who are: how many were passed on.
    async fn run(mut self, mut offers: mpsc::Receiver<Offer>, served: &mut oneshot::Receiver<()>) -> usize {
        let Self { channel, workers, relays, .. } = self;
        let (mut batch, mut under_way) = (Vec::new(), None::<Instant>);
        let (mut asked, mut fetched) = (false, None::<Instant>);
        let (begun, mut refused) = (Instant::now(), HashSet::new());
        let mut look = interval(LOOK);
        loop {
            let may_end = served.is_terminated() && under_way.is_none();
            tokio::select! {
                count = offers.recv_many(&mut batch, MOST_CLIENTS), if under_way.is_none() && !offers.is_closed() => {
                    if count > 0 {
                        if let Err(error) = send(channel, &batch).await {
                            tracing::warn!(%error, "clients can't be handed on");
                            break;
                        }
                        under_way = Some(Instant::now() + TOOK_WAIT);
                    }
                }
                said = channel.receive() => match said {
                    Ok(Some((Message::Took(took), _))) => {
                        self.passed += took.len();
                        let all = batch.iter().map(|offer| offer.handed.relay.id);
                        refused.extend(all.filter(|id| !took.contains(id)));
                        settle(&mut batch, |id| took.contains(&id));
                        under_way = None;
                    }
                    Ok(Some((Message::Cut(id), _))) => drop(relays.cut(id)),
                    Ok(Some((Message::Fetched, _))) => fetched = Some(Instant::now()),
                    Ok(Some(_)) => {}
                    // Whatever it hasn't confirmed goes on here.
                    Ok(None) | Err(_) => break,
                },
                Err(Elapsed) = until(under_way, std::future::pending::<()>()), if under_way.is_some() => {
                    // It may relay them, or begin to: two must not.
                    tracing::warn!(clients = batch.len(), "the new process doesn't say whether it took clients");
                    settle(&mut batch, |_| true);
                    break;
                }
                _ = &mut *served, if !served.is_terminated() => {}
                _ = look.tick(), if may_end => {
                    // Those that were dialing when the upgrade began may still come, and go on as the others did.
                    if workers.clients() == 0 || fetched.is_some_and(|at| at.elapsed() >= LATECOMERS) {
                        break;
                    }
                    // Who can pass is not to be cut because it is slow to offer itself.
                    let may_pass = |info: &RelayInfo| !info.tls_ended && !refused.contains(&info.id);
                    let left = relays.all();
                    let waits = left.iter().any(may_pass) && begun.elapsed() < SLOW;
                    if !asked && !waits && !logs_in(&left) {
                        asked = true;
                        if channel.send_file(&Message::Fetch, &relays.inheritance(), &[]).await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
        self.passed
    }
}

async fn send(channel: &Channel, batch: &[Offer]) -> std::io::Result<()> {
    let told: Vec<_> = batch.iter().map(|offer| &offer.handed).collect();
    let sockets: Vec<_> =
        batch.iter().flat_map(|offer| [offer.client.as_fd(), offer.upstream.as_fd()]).collect();
    channel.send_file(&Message::Clients, &told, &sockets).await
}

/// Tells the relays what became of them.
fn settle(batch: &mut Vec<Offer>, taken: impl Fn(u64) -> bool) {
    for offer in batch.drain(..) {
        let verdict = if taken(offer.handed.relay.id) { Verdict::Taken } else { Verdict::Refused };
        if offer.verdict.send(verdict).is_err() {
            tracing::debug!("a client that was handed on is gone already");
        }
    }
}

/// Whether somebody may be in the middle of its login.
fn logs_in(all: &[RelayInfo]) -> bool {
    let now = SystemTime::now();
    all.iter().any(|info| now.duration_since(info.opened).is_ok_and(|age| age < LOGIN))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    use super::*;
    use crate::{
        control::relays::{Carried, Kind},
        data::{
            access_log::AccessLogHandle,
            frp::hand_on::{Flow, Handed},
        },
        frp_wire::First,
        lifecycle::channel::{self, pair},
        snapshot::Published,
    };

    fn handed(id: u64) -> Handed {
        let relay = Carried {
            id,
            listener: "frp".into(),
            frps: "a".into(),
            kind: Kind::Control,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            local: None,
            user: Some("u".repeat(3000)),
            client_id: String::new(),
            run: None,
            opened: SystemTime::UNIX_EPOCH,
            tls_ended: false,
            hidden: true,
        };
        let flow = Flow {
            first: First::Tls { custom_byte: true },
            answer: None,
            records: Some(crate::frp_wire::Records::default()),
            up: vec![7; 48 * 1024],
            down: Vec::new(),
            probing: false,
        };
        Handed { relay, flow }
    }

    fn offer(id: u64) -> (Offer, u16, oneshot::Receiver<Verdict>) {
        let client = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = client.local_addr().unwrap().port();
        let (verdict, heard) = oneshot::channel();
        let offer = Offer { handed: handed(id), client: client.into(), upstream: upstream.into(), verdict };
        (offer, port, heard)
    }

    /// The two ends of an upgrade, and where relays offer themselves.
    struct Line {
        old: Channel,
        new: Channel,
        workers: Workers,
    }

    impl Line {
        fn new() -> Self {
            let (old, new) = pair().unwrap();
            let workers = Workers::start(
                0,
                &Published::default(),
                &AccessLogHandle::off(),
                &crate::telemetry::audit::AuditHandle::off(),
            )
            .unwrap();
            Self { old: Channel::new(old).unwrap(), new: Channel::new(new).unwrap(), workers }
        }

        fn passing<'a>(&'a self, relays: &'a Relays) -> Passing<'a> {
            Passing { channel: &self.old, workers: &self.workers, relays, passed: 0 }
        }
    }

    #[tokio::test]
    async fn batches_carry_every_client_with_its_own_sockets_and_whoever_is_refused_is_told() {
        let (line, relays) = (Line::new(), Relays::default());
        let (to, offers) = mpsc::channel(MOST_CLIENTS);
        let (served, mut ended) = oneshot::channel::<()>();
        let count = 2 * MOST_CLIENTS as u64 + 5;
        let offering = async {
            let mut asked = Vec::new();
            for id in 0..count {
                let (offer, port, heard) = offer(id);
                to.send(offer).await.unwrap();
                asked.push((id, port, heard));
            }
            let mut told = Vec::new();
            for (id, port, heard) in asked {
                told.push((id, port, heard.await.unwrap()));
            }
            drop(served);
            told
        };
        let taking = async {
            let mut ports = Vec::new();
            while ports.len() < usize::try_from(count).unwrap() {
                let (said, files) = line.new.receive().await.unwrap().unwrap();
                assert_eq!(said, Message::Clients);
                let mut files = files.into_iter();
                let all: Vec<Handed> = channel::content(files.next());
                assert!(!all.is_empty() && all.len() <= MOST_CLIENTS, "{}", all.len());
                let mut took = Vec::new();
                for one in all {
                    assert_eq!(one, handed(one.relay.id));
                    let port = TcpListener::from(files.next().unwrap()).local_addr().unwrap().port();
                    drop(files.next().unwrap());
                    ports.push((one.relay.id, port));
                    if one.relay.id % 3 != 0 {
                        took.push(one.relay.id);
                    }
                }
                assert!(files.next().is_none(), "a socket too many");
                line.new.send(&Message::Took(took)).await.unwrap();
            }
            ports
        };
        let run = line.passing(&relays).run(offers, &mut ended);
        let (passed, told, ports) = tokio::join!(run, offering, taking);
        for (id, port, verdict) in told {
            assert!(ports.contains(&(id, port)), "{id} came with another's socket");
            let expected = if id % 3 == 0 { Verdict::Refused } else { Verdict::Taken };
            assert_eq!(verdict, expected, "{id}");
        }
        assert_eq!(passed as u64, count - count.div_ceil(3));
    }

    #[tokio::test]
    async fn what_a_dying_process_has_not_confirmed_goes_on_here() {
        let (line, relays) = (Line::new(), Relays::default());
        let (to, offers) = mpsc::channel(MOST_CLIENTS);
        let (_served, mut ended) = oneshot::channel::<()>();
        let (first, _, confirmed) = offer(1);
        let (second, _, unconfirmed) = offer(2);
        let Line { old, new, workers } = line;
        let passing = Passing { channel: &old, workers: &workers, relays: &relays, passed: 0 };
        let dying = async {
            to.send(first).await.unwrap();
            assert!(matches!(new.receive().await, Ok(Some((Message::Clients, _)))));
            new.send(&Message::Took(vec![1])).await.unwrap();
            assert_eq!(confirmed.await, Ok(Verdict::Taken));
            to.send(second).await.unwrap();
            assert!(matches!(new.receive().await, Ok(Some((Message::Clients, _)))));
            drop(new);
        };
        let (passed, ()) = tokio::join!(passing.run(offers, &mut ended), dying);
        assert_eq!(passed, 1);
        assert!(unconfirmed.await.is_err(), "nobody has it but us");
    }
}
