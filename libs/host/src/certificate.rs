//! The process's certificate: from the settings, and again whenever its files change.

use std::{path::PathBuf, time::Duration};

use settings::{Common, SecretRef};
use tls::{Files, Tls, Validity};
use tokio::time::{MissedTickBehavior, interval};
use types::Timestamp;

use crate::{
    Host, StartError, metrics,
    watch::{Seen, Watch},
};

/// The task that follows the process's own files, and the note under which `/readyz` tells that new ones are not taken.
pub(crate) const OWN: &str = "certificate";
/// A certificate that ends soon is told of so often.
const TOLD_EVERY: Duration = Duration::from_secs(DAY_SECONDS.unsigned_abs());
const DAY_SECONDS: i64 = 24 * 3_600;

/// Reads the certificate, key and authorities that the settings name.
///
/// Errors: whatever is wrong with one of the files.
pub fn tls_of(common: &Common) -> Result<Tls, StartError> {
    let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    let key = match common.tls_key.reference() {
        Some(SecretRef::File(path)) => Some(PathBuf::from(path)),
        Some(SecretRef::Env(_)) | None => None,
    };
    Ok(Tls::open(Files { certificate: path(&common.tls_certificate), key, ca: path(&common.tls_ca) })?)
}

/// Looks at files again and again; what is good is used from then on, what is not is told once.
pub(crate) async fn follow(host: Host, tls: Tls, what: &'static str) {
    if *tls.files() == Files::default() {
        return;
    }
    let mut ticks = interval(host.common.tls_reload_interval.0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut watch, mut reminder) = (Watch::default(), Reminder::default());
    loop {
        measure(&host, &tls, &mut reminder);
        tokio::select! {
            () = host.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let looked = tls.clone();
        let outcome = host.cpu(move || looked.reload().map_err(|error| error.to_string())).await;
        match watch.look(outcome) {
            Seen::Same => {}
            Seen::Changed => {
                metrics::CERTIFICATES.with("taken").inc();
                host.note(what, None);
                tracing::info!(what, days = days_left(&host, &tls), "files changed, new connections use them");
            }
            Seen::Mended => host.note(what, None),
            Seen::Broken(reason) => {
                metrics::CERTIFICATES.with("refused").inc();
                tracing::error!(what, %reason, "files changed and cannot be used, the former ones stay in use");
                host.note(what, Some(format!("new files cannot be used, the former ones stay in use: {reason}")));
            }
        }
    }
}

fn measure(host: &Host, tls: &Tls, reminder: &mut Reminder) {
    let Some(validity) = tls.validity() else { return };
    let now = host.clock.now();
    let left = seconds_between(now, validity.ends);
    metrics::CERTIFICATE_EXPIRES.with(host.service.as_str()).set(left);
    if !reminder.is_due(validity, now) {
        return;
    }
    let days = left.div_euclid(DAY_SECONDS);
    if left < 0 {
        tracing::error!(days, "certificate has ended and others refuse it, renew its file; no restart is needed");
    } else {
        tracing::warn!(days, "certificate ends soon, renew its file; no restart is needed");
    }
}

/// Whole days; below zero when it has ended.
fn days_left(host: &Host, tls: &Tls) -> Option<i64> {
    tls.expires().map(|end| seconds_between(host.clock.now(), end).div_euclid(DAY_SECONDS))
}

/// Whole seconds; below zero when the end has passed.
fn seconds_between(now: Timestamp, end: Timestamp) -> i64 {
    end.nanos().saturating_sub(now.nanos()).div_euclid(1_000_000_000)
}

/// What was told of the end of a certificate.
#[derive(Debug, Default)]
struct Reminder {
    told: Option<(Validity, Timestamp)>,
}

impl Reminder {
    /// Whether to tell it now: from when it should be renewed, at the first look and then daily; at once for another certificate.
    fn is_due(&mut self, validity: Validity, now: Timestamp) -> bool {
        let lately = self.told.is_some_and(|(of, at)| of == validity && now < at + TOLD_EVERY);
        let due = validity.renewed_from() <= now && !lately;
        if due {
            self.told = Some((validity, now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + hours * 3_600_000)
    }

    #[test]
    fn seconds_go_below_zero() {
        for (hours, seconds) in [(0, 0), (24, DAY_SECONDS), (-1, -3_600)] {
            assert_eq!(seconds_between(at(0), at(hours)), seconds, "{hours}");
        }
        assert!(seconds_between(at(0), Timestamp::MAX) > 50_000 * DAY_SECONDS);
    }

    #[test]
    fn an_end_that_is_near_is_told_at_the_start_and_daily() {
        let yearly = |ends: i64| Validity { begins: at(ends - 365 * 24), ends: at(ends) };
        let far = yearly(40 * 24);
        for (what, looks) in [
            ("from a month before", vec![(far, 0, false), (far, 239, false), (far, 240, true), (far, 241, false)]),
            ("daily", vec![(far, 300, true), (far, 323, false), (far, 324, true), (far, 348, true)]),
            ("after its end, too", vec![(far, 41 * 24, true), (far, 41 * 24 + 1, false), (far, 42 * 24, true)]),
            (
                "another one at once",
                vec![(far, 300, true), (yearly(35 * 24), 301, true), (yearly(90 * 24), 302, false)],
            ),
        ] {
            let mut reminder = Reminder::default();
            for (validity, hours, due) in looks {
                assert_eq!(reminder.is_due(validity, at(hours)), due, "{what}: {hours}");
            }
        }
    }
}
