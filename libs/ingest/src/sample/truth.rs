//! What queries over the generated events must answer.

use std::{collections::BTreeMap, time::Duration};

use types::{Severity, Timestamp};

use super::Sample;

/// The length of the tumbling windows of [`Truth::windows`].
pub const WINDOW: Duration = Duration::from_secs(10);

/// The key of [`Truth::by_severity`] under which events without a severity are counted; in a table they are NULL.
pub const NO_SEVERITY: &str = "none";

/// The expected answers, accumulated event by event from what the generator knows, without any parsing.
///
/// Bounds: `windows` holds one entry per window of the span and service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth {
    /// All events.
    pub total: u64,
    /// Events by [`Sample::software`].
    pub by_software: BTreeMap<&'static str, u64>,
    /// Events by the word of the `severity` column; [`NO_SEVERITY`] where there is none.
    pub by_severity: BTreeMap<&'static str, u64>,
    /// JSON events of the Go service by start of their window and value of their field `service`.
    pub windows: BTreeMap<(Timestamp, &'static str), WindowTruth>,
}

/// The expected row of one window of one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowTruth {
    /// `count(*)`.
    pub count: u64,
    /// `sum(duration_ms)`; whole numbers, so exact in any order.
    pub duration_ms: i64,
}

impl Truth {
    /// Counts one event.
    pub fn observe(&mut self, sample: &Sample) {
        self.total += 1;
        *self.by_software.entry(sample.software).or_default() += 1;
        *self.by_severity.entry(sample.severity().map_or(NO_SEVERITY, Severity::as_str)).or_default() += 1;
        if let Some(service) = sample.service() {
            let window = self.windows.entry((window_start(sample.shown_time()), service)).or_default();
            window.count += 1;
            window.duration_ms += sample.facts.duration_ms;
        }
    }
}

/// The start of the window that holds the instant; windows are aligned to 1970.
fn window_start(time: Timestamp) -> Timestamp {
    let length = i64::try_from(WINDOW.as_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(time.nanos().div_euclid(length) * length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Generator;

    #[test]
    fn the_truth_is_what_reading_the_json_again_gives() {
        let start = Timestamp::from_millis(1_767_322_803_210);
        let (mut truth, mut read) = (Truth::default(), BTreeMap::<(i64, String), (u64, i64)>::new());
        for sample in Generator::new(21, start, Duration::from_secs(90), 4_000) {
            truth.observe(&sample);
            if let Ok(event) = serde_json::from_str::<serde_json::Value>(&sample.payload) {
                let window = sample.time.nanos() / 10_000_000_000 * 10_000_000_000;
                let row = read.entry((window, event["service"].as_str().unwrap().to_owned())).or_default();
                row.0 += 1;
                row.1 += event["duration_ms"].as_i64().unwrap();
            }
        }
        assert!(truth.windows.len() > 40);
        let windows = truth.windows.iter().map(|((t, s), w)| ((t.nanos(), (*s).to_owned()), (w.count, w.duration_ms)));
        assert_eq!(windows.collect::<BTreeMap<_, _>>(), read);
        assert_eq!(truth.by_severity.values().sum::<u64>(), truth.total);
        assert_eq!(truth.by_severity[NO_SEVERITY], truth.by_software["nginx"]);
    }
}
