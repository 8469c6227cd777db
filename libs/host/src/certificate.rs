//! The process's certificate: from the settings, and again whenever its files change.

use std::{path::PathBuf, time::Duration};

use settings::{Common, SecretRef};
use tls::{Files, Tls};
use tokio::time::{MissedTickBehavior, interval};
use types::Timestamp;

use crate::{
    Host, StartError, metrics,
    watch::{Seen, Watch},
};

/// The note under which `/readyz` tells that new files are not taken.
const NOTE: &str = "certificate";
/// A certificate that ends sooner is warned of; whoever renews by hand needs some days.
const WARNED_WITHIN: Duration = Duration::from_secs(7 * DAY_SECONDS);
const DAY_SECONDS: u64 = 24 * 3_600;

/// Reads what the settings name.
pub(crate) fn open(common: &Common) -> Result<Tls, StartError> {
    let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    let key = match common.tls_key.reference() {
        Some(SecretRef::File(path)) => Some(PathBuf::from(path)),
        Some(SecretRef::Env(_)) | None => None,
    };
    Ok(Tls::open(Files { certificate: path(&common.tls_certificate), key, ca: path(&common.tls_ca) })?)
}

/// Looks at the files again and again; what is good is used from then on, what is not is told once.
pub(crate) async fn follow(host: Host) {
    if *host.tls.files() == Files::default() {
        return;
    }
    let mut ticks = interval(host.common.tls_reload_interval.0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    measure(&host);
    warn_of_end(&host);
    loop {
        tokio::select! {
            () = host.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let tls = host.tls.clone();
        let outcome = host.cpu(move || tls.reload().map_err(|error| error.to_string())).await;
        match watch.look(outcome) {
            Seen::Same => {}
            Seen::Changed => {
                metrics::CERTIFICATES.with("taken").inc();
                host.note(NOTE, None);
                tracing::info!(days = days_left(&host), "certificate files changed, new connections use them");
                warn_of_end(&host);
            }
            Seen::Mended => host.note(NOTE, None),
            Seen::Broken(reason) => {
                metrics::CERTIFICATES.with("refused").inc();
                tracing::error!(%reason, "certificate files changed and cannot be used, the former ones stay in use");
                host.note(NOTE, Some(format!("new files cannot be used, the former ones stay in use: {reason}")));
            }
        }
        measure(&host);
    }
}

fn measure(host: &Host) {
    if let Some(days) = days_left(host) {
        metrics::CERTIFICATE_DAYS.with(host.service.as_str()).set(days);
    }
}

fn warn_of_end(host: &Host) {
    if host.tls.expires().is_some_and(|end| end < host.clock.now() + WARNED_WITHIN) {
        tracing::warn!(days = days_left(host), "certificate ends soon, renew its file; no restart is needed");
    }
}

/// Whole days; below zero when it has ended.
fn days_left(host: &Host) -> Option<i64> {
    host.tls.expires().map(|end| days_between(host.clock.now(), end))
}

fn days_between(now: Timestamp, end: Timestamp) -> i64 {
    let day = i64::try_from(DAY_SECONDS).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    end.nanos().saturating_sub(now.nanos()).div_euclid(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_go_below_zero() {
        let at = |hours: i64| Timestamp::from_millis(1_800_000_000_000 + hours * 3_600_000);
        for (hours, days) in [(0, 0), (23, 0), (24, 1), (49, 2), (-1, -1), (-25, -2)] {
            assert_eq!(days_between(at(0), at(hours)), days, "{hours}");
        }
        assert!(days_between(at(0), Timestamp::MAX) > 50_000);
    }
}
