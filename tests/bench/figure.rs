//! One measured number, and how it is shown.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use logboom_tests::{Standalone, logboom, usage};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Milliseconds and rates are shown with this many digits behind the point.
const DIGITS: usize = 2;

/// What a figure is compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(wanted) => value >= wanted,
            Self::AtMost(wanted) => value <= wanted,
        }
    }

    /// The goal, and whether a value meets it.
    pub(crate) fn words(self, value: f64) -> String {
        format!("{self} {}", if self.met(value) { "met" } else { "missed" })
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(wanted) => write!(f, ">= {wanted}"),
            Self::AtMost(wanted) => write!(f, "<= {wanted}"),
        }
    }
}

/// One line of the answer.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) goal: Option<Goal>,
    /// The same figure of the plain thing that we stand on, where there is one.
    pub(crate) peer: Option<f64>,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, goal: None, peer: None }
    }

    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    pub(crate) fn peer(self, peer: f64) -> Self {
        Self { peer: Some(peer), ..self }
    }

    fn met(&self) -> Option<bool> {
        self.goal.map(|goal| goal.met(self.value))
    }
}

/// Prints figures as they come: a table for people, one JSON object a line for programs.
pub(crate) struct Figures {
    json: bool,
    build: &'static str,
    failed: bool,
}

impl Figures {
    pub(crate) fn new(json: bool) -> Self {
        let release = logboom().is_ok_and(|path| path.components().any(|part| part.as_os_str() == "release"));
        let build = if release { "release" } else { "dev" };
        if !json {
            if !release {
                println!(
                    "bench: a dev build is measured; `cargo build --workspace --bins --release` makes the other one"
                );
            }
            println!(
                "{:8} {:44} {:>12} {:10} {:>12} {:>12} {:>7}",
                "suite", "figure", "value", "unit", "goal", "peer", "ratio"
            );
        }
        Self { json, build, failed: false }
    }

    pub(crate) fn add(&mut self, suite: &str, figure: &Figure) {
        let ratio = figure.peer.filter(|peer| *peer != 0.0).map(|peer| figure.value / peer);
        if self.json {
            println!(
                "{}",
                json!({
                    "suite": suite, "figure": figure.name, "value": round(figure.value), "unit": figure.unit, "goal": figure.goal.map(|goal| goal.to_string()),
                    "met": figure.met(), "peer": figure.peer.map(round), "ratio": ratio.map(round), "build": self.build,
                })
            );
            return;
        }
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.DIGITS$}"));
        let goal = figure.goal.map_or_else(|| "-".to_owned(), |goal| goal.words(figure.value));
        println!(
            "{suite:8} {:44} {:>12} {:10} {goal:>12} {:>12} {:>7}",
            figure.name,
            shown(Some(figure.value)),
            figure.unit,
            shown(figure.peer),
            shown(ratio)
        );
    }

    /// Median and tail of durations, in milliseconds; the goal is the tail's.
    pub(crate) fn add_durations(
        &mut self,
        suite: &str,
        what: &str,
        durations: &[Duration],
        goal: Option<Goal>,
    ) -> Result<()> {
        let mut all = Histogram::<u64>::new(3)?;
        for duration in durations {
            all.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))?;
        }
        for percent in [50.0, 99.0] {
            let value = all.value_at_percentile(percent) as f64 / 1_000.0;
            let figure = Figure::new(format!("{what}, p{percent} of {}", durations.len()), value, "ms");
            self.add(suite, &Figure { goal: goal.filter(|_| percent > 50.0), ..figure });
        }
        Ok(())
    }

    /// Whether they are for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Says what no number says.
    pub(crate) fn note(&self, suite: &str, words: &str) {
        if self.json { println!("{}", json!({ "suite": suite, "note": words })) } else { println!("{suite:8} {words}") }
    }

    /// Says that a suite could not be measured.
    pub(crate) fn failed(&mut self, suite: &str, error: &anyhow::Error) {
        self.failed = true;
        let words = format!("{error:#}");
        if self.json {
            println!("{}", json!({ "suite": suite, "error": words }))
        } else {
            println!("{suite:8} not measured: {words}")
        }
    }

    /// Exits with 1 if something could not be measured; a figure itself never fails.
    pub(crate) fn close(self) {
        if self.failed {
            std::process::exit(1);
        }
    }
}

fn round(value: f64) -> Value {
    json!((value * 1_000.0).round() / 1_000.0)
}

/// Wall time and CPU time of a standalone and its nats-server from here on.
pub(crate) struct Meter {
    pids: [u32; 2],
    begun: Instant,
    cpu: [u64; 2],
}

/// What a [`Meter`] has seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// CPU time of logboom in microseconds.
    pub(crate) logboom_micros: f64,
    /// CPU time of the nats-server in microseconds.
    pub(crate) nats_micros: f64,
}

impl Meter {
    pub(crate) async fn start(up: &mut Standalone) -> Result<Self> {
        let pids = [up.process().pid(), up.nats_pid().await?];
        let cpu = [usage(pids[0])?.cpu_micros, usage(pids[1])?.cpu_micros];
        Ok(Self { pids, begun: Instant::now(), cpu })
    }

    pub(crate) fn stop(&self) -> Result<Cost> {
        let wall = self.begun.elapsed();
        let used = |place: usize| -> Result<f64> { Ok((usage(self.pids[place])?.cpu_micros - self.cpu[place]) as f64) };
        Ok(Cost { wall, logboom_micros: used(0)?, nats_micros: used(1)? })
    }
}
