//! Certificates in the report.

use std::time::{Duration, UNIX_EPOCH};

use crate::{
    admin::certificates::CertificatesStatus,
    client::table::{Cell, Colour, Table, Tone},
    data::access_log::rfc3339,
    tls::view::CertificateView,
};

/// Days left below which an expiry is worth a look, and below which it is wrong.
const SOON: (i64, i64) = (14, 3);

/// Writes them; nothing where there are none.
pub(super) fn write(out: &mut String, certificates: &CertificatesStatus, colour: Colour) {
    if certificates.total == 0 {
        return;
    }
    *out += &format!("\ncertificates: {}\n", certificates.total);
    let head = ["NAME", "LISTENERS", "KEY", "ISSUER", "NOT AFTER", "DAYS", "OCSP", "SOURCE"];
    let mut table = Table::new(&head);
    for view in &certificates.first {
        table.row(row(view));
    }
    table.write(out, "  ", colour);
    let rest = certificates.total - certificates.first.len().min(certificates.total);
    if rest > 0 {
        *out += &format!("  and {rest} that expire later (GET /api/v1/certificates)\n");
    }
    for view in &certificates.first {
        if let Some(fault) = &view.fault {
            *out += "  ";
            *out += &colour.paint(&format!("newer content is refused: {fault}"), Tone::Bad);
            out.push('\n');
        }
    }
}

fn row(view: &CertificateView) -> Vec<Cell> {
    let tone = match view.days_left {
        days if days < SOON.1 => Tone::Bad,
        days if days < SOON.0 => Tone::Mind,
        _ => Tone::Plain,
    };
    let more = view.names.len().saturating_sub(1);
    let name = if more == 0 { view.name.clone() } else { format!("{} +{more}", view.name) };
    let day = rfc3339(UNIX_EPOCH + Duration::from_secs(view.not_after));
    let day = day.split('T').next().unwrap_or_default().to_owned();
    let ocsp = view.ocsp.split(':').next().unwrap_or_default();
    let ocsp_tone = if ocsp == "unusable" { Tone::Mind } else { Tone::Plain };
    vec![
        Cell::text(name),
        Cell::text(view.listeners.join(",")),
        Cell::text(&view.key),
        Cell::text(&view.issuer),
        Cell::text(day),
        Cell::number(view.days_left.to_string()).tone(tone),
        Cell::text(ocsp).tone(ocsp_tone),
        Cell::text(&view.source),
    ]
}
