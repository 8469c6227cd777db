//! Publishes generated logs as applications do, and remembers what was published.

use std::time::Duration;

use anyhow::{Context, ensure};
use bus::Bus;
use futures::{StreamExt, TryStreamExt, stream};
use ingest::sample::{Generator, SOFTWARE, Truth};
use types::Timestamp;

use super::{INDEX, binding::Binding};
use crate::screen::Screen;

/// Publishes that wait for their acknowledgement at once, as a usual JetStream client does it.
const WINDOW: usize = 256;
/// The same walk always publishes the same lines.
const SEED: u64 = 20_26;
/// Attempts for one event before the walk gives up; repeats carry the same id.
const ATTEMPTS_MAX: u32 = 20;

/// What was published.
#[derive(Debug)]
pub(crate) struct Published {
    /// Counts and sums, made while publishing.
    pub(crate) truth: Truth,
}

/// Publishes one event until it is acknowledged.
pub(crate) async fn one(bus: &Bus, subject: &str, id: &str, payload: String) -> anyhow::Result<()> {
    let payload = bytes::Bytes::from(payload);
    let mut attempt = 0;
    loop {
        match bus.publish_record(subject, id, payload.clone()).await {
            Ok(_) => return Ok(()),
            Err(problem) if problem.is_transient() && attempt < ATTEMPTS_MAX => {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(50 * u64::from(attempt))).await;
            }
            Err(problem) => return Err(problem).with_context(|| format!("event {id} was not acknowledged")),
        }
    }
}

/// Publishes generated events, one subject per kind of software, and waits for every acknowledgement.
pub(crate) async fn publish(
    binding: &Binding,
    nats_url: &str,
    events: u64,
    start: Timestamp,
    span: Duration,
    screen: Screen,
) -> anyhow::Result<(Published, String)> {
    let bus = binding.connect(nats_url).await?;
    let bar = if screen.is_watched() { indicatif::ProgressBar::new(events) } else { indicatif::ProgressBar::hidden() };
    let run = uuid::Uuid::new_v4();
    let mut truth = Truth::default();
    let mut size = 0usize;
    let begun = tokio::time::Instant::now();
    let samples = Generator::new(SEED, start, span, events).inspect(|sample| {
        truth.observe(sample);
        size += sample.payload.len();
    });
    stream::iter(samples.enumerate())
        .map(|(number, sample)| {
            let (bus, bar) = (&bus, &bar);
            async move {
                let subject = format!("logs.{INDEX}.{}", sample.software);
                one(bus, &subject, &format!("{run}-{number}"), sample.payload).await?;
                bar.inc(1);
                anyhow::Ok(())
            }
        })
        .buffered(WINDOW)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    bar.finish_and_clear();
    ensure!(truth.total == events, "the generator made {} events instead of {events}", truth.total);
    let rate = events as f64 / begun.elapsed().as_secs_f64();
    let result =
        format!("{events} events of {} kinds, {} MB, all durable, {rate:.0}/s", SOFTWARE.len(), size / 1_000_000);
    Ok((Published { truth }, result))
}

/// One event per routing key with a later time, so that every window before it closes.
pub(crate) async fn marker(binding: &Binding, nats_url: &str, at: Timestamp) -> anyhow::Result<((), String)> {
    let bus = binding.connect(nats_url).await?;
    for (software, _) in SOFTWARE.iter().chain(&[("payments", 0)]) {
        let payload = event(at, "walk-marker", "info", "time goes on");
        let id = format!("marker-{software}-{}-{}", at.nanos(), uuid::Uuid::new_v4());
        one(&bus, &format!("logs.{INDEX}.{software}"), &id, payload).await?;
    }
    Ok(((), "one later event per routing key".to_owned()))
}

/// A JSON event.
pub(crate) fn event(at: Timestamp, service: &str, level: &str, message: &str) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(at.nanos())).map(|t| t.to_string()).unwrap_or_default();
    serde_json::json!({ "time": time, "service": service, "level": level, "msg": message }).to_string()
}
