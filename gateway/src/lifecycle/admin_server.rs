//! The admin listener and its server.

use std::{future::pending, io, net::SocketAddr};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::give_way;
use crate::{
    admin::{self, App},
    data::sockets::{self, Kind, Label, Sockets},
};

/// The admin listener's socket: the one given, or a new one. Held to be given on.
pub(super) fn listen(sockets: &Sockets, bind: SocketAddr) -> io::Result<TcpListener> {
    let socket = match sockets.take(sockets::ADMIN, Kind::Stream, bind) {
        Some(given) => {
            let first = given.sockets.into_iter().next();
            std::net::TcpListener::from(first.ok_or_else(|| io::Error::other("no socket in the group"))?)
        }
        None => std::net::TcpListener::bind(bind)?, // reuses addresses, as tokio's does
    };
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let label = Label { name: sockets::ADMIN.to_owned(), kind: Kind::Stream, bind: Some(bind), address };
    sockets.hold(label, std::iter::once(&socket))?;
    TcpListener::from_std(socket)
}

/// The admin listener's server.
pub(super) struct Admin {
    waiting: Option<(TcpListener, App)>,
    stop: watch::Sender<bool>,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl Admin {
    pub(super) fn new(listener: TcpListener, app: App) -> Self {
        Self { waiting: Some((listener, app)), stop: watch::Sender::new(false), server: None }
    }

    pub(super) fn start(&mut self) {
        let Some((listener, app)) = self.waiting.take() else { return };
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "admin listening");
        }
        let mut stop = self.stop.subscribe();
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        let server = axum::serve(listener, admin::router(app)).with_graceful_shutdown(stopped);
        self.server = Some(tokio::spawn(server.into_future()));
    }

    /// Accepts no more; what is asked already is answered.
    pub(super) async fn leave(&self) {
        self.stop.send_replace(true);
        give_way().await;
    }

    pub(super) async fn ended(&mut self) {
        match &mut self.server {
            Some(server) => drop(server.await),
            None => pending().await,
        }
    }
}
