//! Realistic logs for walks and benches: five kinds of software, seeded, with the truth computed beside them.
//!
//! ```
//! use ingest::sample::{Generator, Truth};
//! use std::time::Duration;
//! use types::Timestamp;
//!
//! let mut truth = Truth::default();
//! for sample in Generator::new(7, Timestamp::from_millis(1_767_322_800_000), Duration::from_secs(60), 1_000) {
//!     truth.observe(&sample);
//! }
//! assert_eq!(truth.total, 1_000);
//! assert_eq!(truth.by_software.values().sum::<u64>(), 1_000);
//! ```

mod fill;
mod go;
mod java;
mod kubernetes;
mod nginx;
mod postgresql;
mod rng;
mod stamp;
mod truth;

use std::time::Duration;

use types::{Severity, Timestamp, hash64};

use self::{
    rng::{Rng, Zipf},
    stamp::Civil,
};
pub use truth::{NO_SEVERITY, Truth, WINDOW, WindowTruth};

/// The kinds of software, as [`Sample::software`] names them, with their share of the events in percent.
pub const SOFTWARE: [(&str, u64); 5] =
    [("nginx", 35), ("go", 30), ("java", 15), ("kubernetes", 10), ("postgresql", 10)];

/// The span is cut into this many pieces; in a burst a third of all events of the piece are failures.
const PIECES: u64 = 64;

/// One generated event.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which software wrote it: a name of [`SOFTWARE`].
    pub software: &'static str,
    /// The event time; the payload shows it as exactly as its software does, see [`Sample::shown_time`].
    pub time: Timestamp,
    /// The event: one line, or several for a stack trace.
    pub payload: String,
    facts: Facts,
}

/// What is true of an event because it was made so.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Facts {
    severity: Option<Severity>,
    service: Option<&'static str>,
    duration_ms: i64,
}

impl Sample {
    /// The time as the payload shows it: to the second for nginx, the nanosecond for the Go service, else the
    /// millisecond.
    pub fn shown_time(&self) -> Timestamp {
        let unit = match self.software {
            "nginx" => 1_000_000_000,
            "go" => 1,
            _ => 1_000_000,
        };
        Timestamp::from_nanos(self.time.nanos().div_euclid(unit) * unit)
    }

    /// The severity that the payload states; access lines state none.
    pub fn severity(&self) -> Option<Severity> {
        self.facts.severity
    }

    /// The service that a JSON event names.
    pub fn service(&self) -> Option<&'static str> {
        self.facts.service
    }
}

/// Makes exactly `count` events in non-decreasing time order, spread over the span; equal seeds give equal events.
#[derive(Debug, Clone)]
pub struct Generator {
    seed: u64,
    rng: Rng,
    zipf: Zipf,
    start: Timestamp,
    span: Duration,
    count: u64,
    next: u64,
}

impl Generator {
    /// Begins at `start`; the last event lies before `start + span`.
    pub fn new(seed: u64, start: Timestamp, span: Duration, count: u64) -> Self {
        Self { seed, rng: Rng::new(seed), zipf: Zipf::default(), start, span, count, next: 0 }
    }

    /// The instant of event `number`: its even share of the span plus a random part of the way to the next.
    fn time(&mut self, number: u64) -> Timestamp {
        let jitter = self.rng.below(1 << 20);
        let place = (u128::from(number) << 20) + u128::from(jitter);
        let nanos = self.span.as_nanos().saturating_mul(place) / (u128::from(self.count) << 20);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn failing(&mut self, number: u64) -> bool {
        let piece = u64::try_from(u128::from(number) * u128::from(PIECES) / u128::from(self.count)).unwrap_or(0);
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..].copy_from_slice(&piece.to_le_bytes());
        let burst = hash64(&key).is_multiple_of(10) || piece == self.seed % PIECES;
        self.rng.below(100) < if burst { 33 } else { 2 }
    }
}

impl Iterator for Generator {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        if self.next == self.count {
            return None;
        }
        let time = self.time(self.next);
        let failing = self.failing(self.next);
        self.next += 1;
        let mut share = self.rng.below(100);
        let mut software = SOFTWARE[0].0;
        for (name, percent) in SOFTWARE {
            software = name;
            if share < percent {
                break;
            }
            share -= percent;
        }
        let civil = Civil::of(time);
        let line = match software {
            "nginx" => nginx::line,
            "go" => go::line,
            "java" => java::line,
            "kubernetes" => kubernetes::line,
            _ => postgresql::line,
        };
        let (payload, facts) = line(&mut self.rng, &self.zipf, civil, failing);
        Some(Sample { software, time, payload, facts })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.count - self.next).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{RawEvent, parse};

    const START: Timestamp = Timestamp::from_millis(1_767_322_800_000);
    const SPAN: Duration = Duration::from_secs(600);

    #[test]
    fn exactly_so_many_in_order_within_the_span() {
        for count in [0, 1, 7, 5_000] {
            let times: Vec<_> = Generator::new(3, START, SPAN, count).map(|sample| sample.time).collect();
            assert_eq!(u64::try_from(times.len()), Ok(count));
            assert!(times.is_sorted());
            assert!(times.iter().all(|time| START <= *time && *time < START + SPAN));
        }
        let late = Generator::new(3, START, SPAN, 1_000).last().unwrap();
        assert!(late.time > START + SPAN / 2, "spread over the whole span");
    }

    #[test]
    fn a_seed_is_the_whole_story() {
        let run = |seed| Generator::new(seed, START, SPAN, 500).collect::<Vec<_>>();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn every_event_is_understood() {
        let received = START + SPAN;
        for sample in Generator::new(11, START, SPAN, 20_000) {
            let record = parse(RawEvent { payload: sample.payload.as_bytes(), received });
            assert_eq!(record.time, sample.shown_time(), "{}", sample.payload);
            assert_eq!(record.severity, sample.severity(), "{}", sample.payload);
            assert!(!sample.payload.contains(['{', '}']) || sample.software == "go", "{}", sample.payload);
            match sample.software {
                "nginx" => assert!(record.field("status").is_some(), "{}", sample.payload),
                "go" => {
                    let service = sample.service().unwrap();
                    assert_eq!(record.field("service"), Some(&crate::Value::from(service)));
                    assert_eq!(record.field("duration_ms"), Some(&crate::Value::Int(sample.facts.duration_ms)));
                }
                "kubernetes" => assert!(record.field("controller").is_some(), "{}", sample.payload),
                _ => assert_eq!(record.message, sample.payload),
            }
        }
    }

    #[test]
    fn failures_come_in_bursts_and_some_have_stack_traces() {
        let mut errors = [0u64; 64];
        let (mut java, mut traces) = (0u64, 0u64);
        for sample in Generator::new(5, START, SPAN, 40_000) {
            if sample.severity() >= Some(Severity::Error) {
                let piece = sample.time.since(START).as_nanos() * 64 / SPAN.as_nanos();
                errors[usize::try_from(piece).unwrap()] += 1;
            }
            java += u64::from(sample.software == "java");
            traces += u64::from(sample.software == "java" && sample.payload.contains('\n'));
        }
        errors.sort_unstable();
        assert!(errors[63] > 5 * errors[32].max(1), "{errors:?}");
        assert!((15..60).contains(&(traces * 1_000 / java)), "{traces} of {java}");
    }

    #[test]
    fn templates_are_many_and_their_frequencies_uneven() {
        for (name, _) in SOFTWARE {
            let mut shapes: BTreeMap<String, u64> = BTreeMap::new();
            for sample in Generator::new(9, START, SPAN, 30_000).filter(|sample| sample.software == name) {
                // The words that are left when everything with a digit is taken out: close to the template.
                let words = sample.payload.split([' ', '/', '=', '"', ',', ':', '-', '_', '.']);
                let shape: Vec<_> = words.filter(|w| !w.bytes().any(|b| b.is_ascii_digit())).collect();
                *shapes.entry(shape.join(" ")).or_default() += 1;
            }
            let (most, least) = (*shapes.values().max().unwrap(), *shapes.values().min().unwrap());
            assert!(shapes.len() >= 15 && most > 5 * least, "{name}: {} shapes, {most} to {least}", shapes.len());
        }
    }
}
