//! A log store under measurement, ours or another.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Result, ensure};
use jiff::Timestamp;
use logboom_tests::{Usage, usage};
use tokio::time::{Instant, sleep};

use super::{corpus::Corpus, question::Question};

/// Time without work after which a store is done with what it does in the background; segments wait for ten seconds before they are
/// written as chunks.
const QUIET: Duration = Duration::from_secs(15);
/// The longest wait for that.
const QUIET_WITHIN: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// CPU time of a second, and bytes, that are no work: heart beats, leases, timers.
const IDLE_MICROS: u64 = 100_000;
const IDLE_BYTES: u64 = 64 << 10;

/// What every store can do.
pub(super) trait Store {
    /// As figures name it.
    fn name(&self) -> &'static str;
    /// Its processes.
    async fn pids(&mut self) -> Result<Vec<u32>>;
    /// Stores all lines; when this returns the store has acknowledged each.
    async fn ingest(&mut self, corpus: &Corpus) -> Result<()>;
    /// Finishes what waits for nothing but time.
    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
    /// Bytes on disk, by what they are.
    async fn disk(&mut self) -> Result<Vec<(&'static str, u64)>>;
    /// The answer as it comes.
    async fn ask(&mut self, question: Question) -> Result<String>;
    /// The rows of an answer, columns parted by tabs and times as nanoseconds.
    fn rows(&self, question: Question, answer: &str) -> Result<Vec<String>>;
    /// Ends it and starts it again with its files out of the page cache.
    async fn restart(&mut self) -> Result<()>;
}

/// CPU microseconds and resident KiB of processes.
pub(super) fn used(pids: &[u32]) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for pid in pids {
        let used = usage(*pid)?;
        sum = (sum.0 + used.cpu_micros, sum.1 + used.rss_kib);
    }
    Ok(sum)
}

/// Waits until the store does nothing any more; gives its CPU time at the end of the last second in which it did something, and the
/// most memory that was seen meanwhile.
pub(super) async fn settled(store: &mut impl Store) -> Result<Usage> {
    let pids = store.pids().await?;
    let begun = Instant::now();
    let (mut last, mut most) = used(&pids)?;
    let (mut bytes, mut quiet_since, mut worked) = (total(&store.disk().await?), Instant::now(), last);
    while quiet_since.elapsed() < QUIET && begun.elapsed() < QUIET_WITHIN {
        sleep(LOOK_EVERY).await;
        let ((now, rss), on_disk) = (used(&pids)?, total(&store.disk().await?));
        if now - last > IDLE_MICROS || on_disk.abs_diff(bytes) > IDLE_BYTES {
            (quiet_since, bytes, worked) = (Instant::now(), on_disk, now);
        }
        (last, most) = (now, most.max(rss));
    }
    Ok(Usage { cpu_micros: worked, rss_kib: most })
}

/// Waits for a second without work, as after a start.
pub(super) async fn calm(pids: &[u32]) -> Result<()> {
    let begun = Instant::now();
    let mut last = used(pids)?.0;
    while begun.elapsed() < QUIET_WITHIN {
        sleep(LOOK_EVERY).await;
        let now = used(pids)?.0;
        if now - last <= IDLE_MICROS {
            break;
        }
        last = now;
    }
    Ok(())
}

pub(super) fn total(disk: &[(&'static str, u64)]) -> u64 {
    disk.iter().map(|(_, bytes)| bytes).sum()
}

/// Bytes of all files below a directory; files may go while they are counted.
pub(super) fn bytes_below(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(about) if about.is_dir() => sum += bytes_below(&path),
            Ok(about) => sum += about.len(),
            Err(_) => {}
        }
    }
    sum
}

/// Drops all files below a directory from the page cache; GNU dd can, without being root.
pub(super) fn evict(dir: &Path) -> Result<()> {
    let drop_each = "sync; for file; do dd if=\"$file\" iflag=nocache count=0 status=none || true; done";
    let done = Command::new("find")
        .arg(dir)
        .args(["-type", "f", "-size", "+0", "-exec", "sh", "-c", drop_each, "sh", "{}", "+"])
        .stdout(Stdio::null())
        .status()?;
    ensure!(done.success(), "files below {} could not be dropped from the page cache", dir.display());
    Ok(())
}

/// A time of an answer as nanoseconds.
pub(super) fn nanos(text: &str) -> Result<String> {
    Ok(text.parse::<Timestamp>()?.as_nanosecond().to_string())
}
