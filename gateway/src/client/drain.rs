//! `frp-gateway drain`, `undrain`, `rebalance`: asked for, and waited for.

use std::time::Duration;

use axum::http::Method;

use super::reach::{Gateway, Unanswered};
use crate::{
    admin::drain::DrainsView,
    control::migration::{Progress, Rebalance},
};

/// How often it is asked how things stand.
const EVERY: Duration = Duration::from_millis(200);

/// Empties an frps, or (`on` is false) lets it be used again.
///
/// # Errors
/// See [`Unanswered`].
pub async fn ask(gateway: &Gateway, frps: &str, on: bool) -> Result<DrainsView, Unanswered> {
    let path = format!("/api/v1/frps/{frps}/{}", if on { "drain" } else { "undrain" });
    gateway.ask(Method::POST, &path, None).await
}

/// Waits until nobody is left who can be moved. `say` gets a line whenever something has changed.
///
/// # Errors
/// See [`Unanswered`].
pub async fn wait(gateway: &Gateway, frps: &str, mut say: impl FnMut(&str)) -> Result<Progress, Unanswered> {
    let mut before = String::new();
    loop {
        let view: DrainsView = gateway.ask(Method::GET, "/api/v1/drains", None).await?;
        let Some(progress) = view.drains.get(frps) else {
            return Err(Unanswered::BadQuestion(format!("{frps} isn't in drain any more")));
        };
        let line = text(frps, progress);
        if line != before {
            say(&line);
            before = line;
        }
        if progress.state != "moving" {
            return Ok(progress.clone());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One line, and what can't be moved.
#[must_use]
pub fn text(frps: &str, progress: &Progress) -> String {
    let Progress { state, moved, failed, cut, left, unmovable } = progress;
    let mut line = format!("{frps}: {state}, {moved} moved, {left} left");
    if *failed > 0 {
        line += &format!(", {failed} did not come up elsewhere in time");
    }
    if *cut > 0 {
        line += &format!(", {cut} requests cut at the deadline");
    }
    if !unmovable.is_empty() {
        line += &format!(
            "\n  not movable (their frpc did not come through an frp listener): {}",
            unmovable.join(", ")
        );
    }
    line
}

/// Spreads clients anew and waits until that is done.
///
/// # Errors
/// See [`Unanswered`].
pub async fn rebalance(gateway: &Gateway) -> Result<Rebalance, Unanswered> {
    let mut view: DrainsView = gateway.ask(Method::POST, "/api/v1/rebalance", None).await?;
    loop {
        match view.rebalance {
            Some(rebalance) if !rebalance.running => return Ok(rebalance),
            Some(_) | None => {}
        }
        tokio::time::sleep(EVERY).await;
        view = gateway.ask(Method::GET, "/api/v1/drains", None).await?;
    }
}
