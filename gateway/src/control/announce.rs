//! The log lines of the control plane: one per [`Notice`].

use std::time::Duration;

use frp_gateway_config::diff::SectionChanges;

use super::{
    effect::{Notice, TunnelEvent},
    state::Fault,
};

/// Tells what is legal but surely unmeant.
pub fn warn(warnings: &[Fault]) {
    for warning in warnings {
        show(warning);
    }
}

/// A diagnostic keeps its lines: a marked excerpt on one line helps nobody.
fn show(fault: &Fault) {
    if fault.is_warning {
        tracing::warn!("{}", fault.text);
    } else {
        tracing::error!("{}", fault.text);
    }
}

/// Tells one change of state; `took` is how long the step ran.
pub fn announce(notice: &Notice, took: Duration) {
    match notice {
        Notice::Reloaded { generation, changes } => {
            let took = format!("{:.1}ms", took.as_secs_f64() * 1e3);
            let count = |section: &SectionChanges| {
                format!("+{} -{} ~{}", section.added.len(), section.removed.len(), section.changed.len())
            };
            let process =
                (!changes.process.is_empty()).then(|| tracing::field::display(changes.process.join(",")));
            tracing::info!(
                generation,
                frps = %count(&changes.frps),
                listeners = %count(&changes.listeners),
                pools = %count(&changes.pools),
                routes = %count(&changes.routes),
                process,
                %took,
                "reloaded"
            );
        }
        Notice::NothingChanged => tracing::info!("reload: nothing changed"),
        Notice::Refused { faults } => {
            faults.iter().for_each(show);
            let errors = faults.iter().filter(|fault| !fault.is_warning).count();
            tracing::error!(errors, "reload refused, the old configuration stays in force");
        }
        Notice::NeedsRestart { key, running, configured } => {
            tracing::warn!(%key, %running, %configured, "a change of this key needs a restart, or `frp-gateway upgrade`");
        }
        Notice::Tunnel { event, frps, name, user, domains, way, reason } => {
            let (domains, reason) = (domains.join(","), reason.as_deref());
            match event {
                TunnelEvent::Conflict => tracing::warn!(
                    %frps, %name, %user, %domains, reason,
                    "tunnel claims what another user has, and is not served there"
                ),
                TunnelEvent::Fault => {
                    tracing::warn!(%frps, %name, %user, %domains, reason, "tunnel is not served as it asks")
                }
                TunnelEvent::Lapsed => tracing::warn!(
                    %frps, %name, %user, %domains, reason,
                    "tunnel was announced but never came up: see the log of its frpc; is allowPorts of frps exhausted?"
                ),
                TunnelEvent::Live | TunnelEvent::Changed | TunnelEvent::Gone => {
                    tracing::debug!(%frps, %name, %user, %domains, way, reason, event = event.word(), "tunnel");
                }
            }
        }
        Notice::FrpsAnswers { frps, tunnels } => tracing::info!(%frps, tunnels, "frps lists its tunnels"),
        Notice::FrpsSilent { frps, reason, kept } => {
            tracing::warn!(
                %frps,
                %reason,
                kept,
                "frps does not list its tunnels, the last listing stays in use"
            );
        }
    }
}
