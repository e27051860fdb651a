//! Visitors that know which application must answer them.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "each test file uses its own part"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use frp_gateway_loadtest::{
    http::{self, Connection},
    lab::until,
};

use crate::takeover::SOON;

/// Visitors that ask for host N and expect application N, until they are stopped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeMap<String, usize>>>,
    wrong: Arc<Mutex<Vec<String>>>,
    visitors: Vec<tokio::task::JoinHandle<()>>,
}

impl Watch {
    /// Six visitors for the hosts `h0.test` to `hN.test`; each waits for its answer before it asks for the next host.
    pub fn start(web: SocketAddr, hosts: usize) -> Self {
        let watch =
            Self { stop: Arc::default(), seen: Arc::default(), wrong: Arc::default(), visitors: Vec::new() };
        let visitors = (0..6).map(|first| {
            let (stop, seen, wrong) =
                (Arc::clone(&watch.stop), Arc::clone(&watch.seen), Arc::clone(&watch.wrong));
            tokio::spawn(async move {
                let (mut kept, mut n) = (None, first);
                while !stop.load(SeqCst) {
                    n = (n + 1) % hosts;
                    let connection = match kept.take() {
                        Some(connection) => Ok(connection),
                        None => Connection::open(web).await,
                    };
                    let Ok(mut connection) = connection else {
                        *seen.lock().expect("sound").entry("refused".into()).or_default() += 1;
                        tokio::task::yield_now().await;
                        continue;
                    };
                    let host = format!("h{n}.test");
                    let reply = connection.send(http::request("GET", &host, "/").body(http::empty())).await;
                    let what = match &reply {
                        Ok(reply) => match reply.app() {
                            Some(app) if app == format!("app{n}") => "served".to_owned(),
                            Some(app) => {
                                wrong.lock().expect("sound").push(format!("{host} was answered by {app}"));
                                "wrong".into()
                            }
                            None => reply.header("x-frp-gateway").unwrap_or("strange").to_owned(),
                        },
                        Err(_) => "cut".into(),
                    };
                    *seen.lock().expect("sound").entry(what).or_default() += 1;
                    kept = reply.is_ok().then_some(connection);
                }
            })
        });
        let visitors = visitors.collect();
        Self { visitors, ..watch }
    }

    /// Right answers so far.
    pub fn served(&self) -> usize {
        self.seen.lock().expect("sound").get("served").copied().unwrap_or_default()
    }

    /// Waits for so many more answers of any kind: the visitors have seen what is the case now.
    pub async fn look_around(&self, count: usize) {
        let all = || self.seen.lock().expect("sound").values().sum::<usize>();
        let wanted = all() + count;
        until("answers", SOON, async || (all() >= wanted).then_some(()))
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.seen.lock()));
    }

    /// Waits for so many more right answers.
    pub async fn more(&self, count: usize) {
        let wanted = self.served() + count;
        until("requests to be served", SOON, async || (self.served() >= wanted).then_some(()))
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.seen.lock()));
    }

    /// # Panics
    /// When some answer so far came from another application than that of its host.
    pub fn all_right(&self, when: &str) {
        let wrong = self.wrong.lock().expect("sound").clone();
        assert_eq!(wrong, Vec::<String>::new(), "{when}: a request reached another's application");
    }

    /// What the visitors got, in a word, and how often.
    ///
    /// # Panics
    /// When some answer came from another application than that of its host, or from nobody we know.
    pub async fn end(self) -> BTreeMap<String, usize> {
        self.stop.store(true, SeqCst);
        for visitor in self.visitors {
            visitor.await.expect("a visitor does not panic");
        }
        let wrong = self.wrong.lock().expect("sound").clone();
        assert_eq!(wrong, Vec::<String>::new(), "a request reached another's application");
        let seen = self.seen.lock().expect("sound").clone();
        assert!(!seen.contains_key("strange"), "{seen:?}");
        seen
    }
}
