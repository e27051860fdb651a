//! Relayed clients pass from the old process to the new one: the new one's side.

use std::{collections::BTreeSet, io, os::fd::OwnedFd, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    channel::{self, Message},
    predecessor::Predecessor,
};
use crate::{
    clock,
    control::{
        Handle,
        event::Memory,
        migration::Mover,
        relays::{Inheritance, Relays},
    },
    data::{
        frp::hand_on::{Handed, Parcel},
        worker::Workers,
    },
};

/// Takes over what the old process hands on.
pub(super) struct TakeOver {
    pub(super) predecessor: Arc<Predecessor>,
    pub(super) handle: Handle,
    pub(super) workers: Arc<Workers>,
    pub(super) mover: Mover,
}

impl TakeOver {
    fn relays(&self) -> Arc<Relays> {
        Arc::clone(&self.mover.published.load().relays)
    }

    fn inherit(&self, told: &Inheritance) {
        let snapshot = self.mover.published.load();
        let together = |name: &str| {
            let listener = snapshot.listeners.iter().flatten().find(|known| *known.name == *name)?;
            Some(listener.frp.as_ref()?.together)
        };
        snapshot.relays.inherit(told, &snapshot.frps, together, clock::now());
    }

    /// From now on the old process's clients are known. Returns where it comes up whom of them to cut.
    pub(super) fn expect(&self, told: &Inheritance) -> mpsc::UnboundedReceiver<u64> {
        let (beyond, cuts) = mpsc::unbounded_channel();
        self.relays().cut_there_by(beyond);
        self.inherit(told);
        cuts
    }

    /// Until the old process has ended.
    pub(super) async fn run(self, mut cuts: mpsc::UnboundedReceiver<u64>) {
        let channel = self.predecessor.channel();
        let mut fetching = JoinSet::new();
        loop {
            tokio::select! {
                said = channel.receive() => match said {
                    Ok(Some((Message::Left, files))) => {
                        let last: Memory = channel::content(files.into_iter().next());
                        self.inherit(&last.relays);
                        // What operators want they tell this process by now.
                        self.handle.remember(Memory { drains: BTreeSet::new(), ..last }).await;
                    }
                    Ok(Some((Message::Clients, files))) => self.take(files).await,
                    Ok(Some((Message::Fetch, files))) => {
                        self.inherit(&channel::content(files.into_iter().next()));
                        let mover = self.mover.clone();
                        fetching.spawn(async move { mover.fetch().await });
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    // Descriptors were lost: whatever came with them isn't ours.
                    Err(error) if error.kind() == io::ErrorKind::Other => {
                        tracing::warn!(%error, "clients not taken over");
                        self.tell(&Message::Took(Vec::new())).await;
                    }
                    Err(_gone) => break,
                },
                Some(id) = cuts.recv() => self.tell(&Message::Cut(id)).await,
                Some(_) = fetching.join_next() => self.tell(&Message::Fetched).await,
            }
        }
        self.relays().alone();
        // The last of them is on its way.
        drop(fetching.join_all().await);
    }

    async fn take(&self, files: Vec<OwnedFd>) {
        let mut files = files.into_iter();
        let handed: Vec<Handed> = channel::content(files.next());
        let mut asked = Vec::with_capacity(handed.len());
        for handed in handed {
            let (Some(client), Some(upstream)) = (files.next(), files.next()) else { break };
            let (taken, verdict) = oneshot::channel();
            asked.push((handed.relay.id, verdict));
            self.workers.take_over(Parcel { handed, client, upstream, taken });
        }
        let (mut took, mut begin) = (Vec::new(), Vec::new());
        for (id, verdict) in asked {
            if let Ok(go) = verdict.await {
                took.push(id);
                begin.push(go);
            }
        }
        // First the old process keeps its hands off; where it has ended, it does.
        self.tell(&Message::Took(took)).await;
        for go in begin {
            if go.send(()).is_err() {
                tracing::debug!("a client that was taken over is gone already");
            }
        }
    }

    async fn tell(&self, message: &Message) {
        if let Err(error) = self.predecessor.channel().send(message).await {
            tracing::debug!(%error, "the old process is gone");
        }
    }
}
