//! A value in a bucket that many change at once: compare-and-set, repeated with jitter, its outcome always known.

use std::{collections::VecDeque, time::Duration};

use bus::{Bucket, BucketError, Entry};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use wire::{Outcome, Problem};

use crate::Client;

/// How long a change is tried: longer than the election of a JetStream leader.
const CHANGE_WITHIN: Duration = Duration::from_secs(20);
/// The pause after the first lost race; it doubles, and a random part of it is waited.
const PAUSE_MIN: Duration = Duration::from_millis(4);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// Last changes that a document remembers: whoever lost the answer to its change finds it here.
const STAMPS_MAX: usize = 32;

/// What stands in the bucket.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stamped<T> {
    /// Random numbers of the last changes, oldest first.
    stamps: VecDeque<u64>,
    body: T,
}

/// What a change comes to.
pub(crate) enum Verdict<T, R> {
    /// Everything stays as it is.
    Keep(R),
    /// The value becomes this.
    Put(T, R),
    /// The value goes.
    Remove(R),
}

/// A value under a key of a bucket, as it was last seen.
pub(crate) struct Document<T> {
    bucket: Bucket,
    key: String,
    bytes_max: usize,
    /// Whether `seen` was ever asked for.
    asked: bool,
    seen: Option<(u64, Stamped<T>)>,
    bytes: usize,
}

impl Client {
    /// Opens a bucket.
    pub(crate) async fn bucket(&self, name: &str) -> Result<Bucket, Problem> {
        Ok(self.bus.join_bucket(name, self.bucket_replicas).await?)
    }
}

impl<T: Clone + PartialEq + Serialize + DeserializeOwned> Document<T> {
    /// A document of which nothing is known; a value above `bytes_max` is refused with `TooLarge`.
    pub(crate) fn new(bucket: Bucket, key: String, bytes_max: usize) -> Self {
        Self { bucket, key, bytes_max, asked: false, seen: None, bytes: 0 }
    }

    /// The value as last seen.
    pub(crate) fn value(&self) -> Option<&T> {
        self.seen.as_ref().map(|(_, stamped)| &stamped.body)
    }

    /// Its revision as last seen; 0 when there is none.
    pub(crate) fn revision(&self) -> u64 {
        self.seen.as_ref().map_or(0, |(revision, _)| *revision)
    }

    /// Its size as last seen.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Asks for the present value.
    pub(crate) async fn load(&mut self) -> Result<Option<&T>, Problem> {
        let entry = self.bucket.get(&self.key).await?;
        self.asked = true;
        self.seen = None;
        self.observe(entry)?;
        Ok(self.value())
    }

    /// Takes what a watch told; what is older than known changes nothing. True if something changed.
    pub(crate) fn observe(&mut self, entry: Option<Entry>) -> Result<bool, Problem> {
        let Some(entry) = entry else {
            self.asked = true;
            return Ok(self.seen.take().is_some());
        };
        if entry.revision <= self.revision() {
            return Ok(false);
        }
        self.bytes = entry.value.len();
        self.seen = Some((entry.revision, wire::decode(&entry.value)?));
        self.asked = true;
        Ok(true)
    }

    /// Changes the value as `decide` says; asked again for every value that somebody else put in between.
    ///
    /// Errors: those of `decide`; `TooLarge`; Throttled `Contended` when every race was lost for 20 s; what the bus says, with
    /// an outcome that is unknown only if that of a write is.
    pub(crate) async fn change<R>(
        &mut self,
        mut decide: impl FnMut(Option<&T>) -> Result<Verdict<T, R>, Problem>,
    ) -> Result<R, Problem> {
        let until = Instant::now() + CHANGE_WITHIN;
        let mut pause = PAUSE_MIN;
        // Changes whose answers were lost, with what they would have given.
        let mut doubtful: Vec<(u64, R)> = Vec::new();
        let mut fresh = self.asked;
        loop {
            let problem = 'attempt: {
                if !fresh && let Err(problem) = self.load().await {
                    break 'attempt problem;
                }
                if let Some(result) = self.found(&mut doubtful) {
                    return Ok(result);
                }
                let (stamp, write, result) = match decide(self.value()) {
                    Ok(Verdict::Keep(result)) => return Ok(result),
                    Ok(Verdict::Put(body, result)) => (rand::random(), Some(body), result),
                    Ok(Verdict::Remove(result)) => (0, None, result),
                    Err(problem) => return Err(if doubtful.is_empty() { problem } else { problem.unknown() }),
                };
                match self.write(stamp, write).await {
                    Ok(()) => return Ok(result),
                    Err(problem) if problem.outcome == Outcome::Unknown => {
                        doubtful.push((stamp, result));
                        problem
                    }
                    Err(problem) => problem,
                }
            };
            fresh = false;
            let repeatable = problem.is_transient() || problem.kind == "KeyChanged" || problem.kind == "KeyExists";
            let jitter = pause.mul_f64(rand::random_range(0.0..1.0));
            if !repeatable || Instant::now() + jitter >= until {
                let raced = !problem.is_transient() && repeatable;
                let contended =
                    || Problem::throttled("Contended", format_args!("{} is changed all the time", self.key));
                let problem = if raced { contended() } else { problem };
                return Err(if doubtful.is_empty() { problem } else { problem.unknown() });
            }
            tokio::time::sleep(jitter).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The result of a doubtful change that turns out to have happened.
    fn found<R>(&self, doubtful: &mut Vec<(u64, R)>) -> Option<R> {
        let happened = |stamp: u64| match &self.seen {
            Some((_, stamped)) => stamped.stamps.contains(&stamp),
            // A removal carries no stamp.
            None => stamp == 0,
        };
        let at = doubtful.iter().position(|(stamp, _)| happened(*stamp))?;
        Some(doubtful.swap_remove(at).1)
    }

    async fn write(&mut self, stamp: u64, body: Option<T>) -> Result<(), Problem> {
        let Some(body) = body else {
            if let Some((revision, _)) = self.seen {
                self.bucket.delete_at(&self.key, revision).await?;
                self.seen = None;
            }
            return Ok(());
        };
        let mut stamps = self.seen.as_ref().map(|(_, stamped)| stamped.stamps.clone()).unwrap_or_default();
        stamps.push_back(stamp);
        while stamps.len() > STAMPS_MAX {
            stamps.pop_front();
        }
        let stamped = Stamped { stamps, body };
        let bytes = wire::encode(&stamped);
        if bytes.len() > self.bytes_max {
            let (found, most) = (bytes.len(), self.bytes_max);
            let message =
                format_args!("{} would take {found} bytes; {most} are allowed: spread it over more keys", self.key);
            return Err(Problem::bad_request("TooLarge", message));
        }
        let size = bytes.len();
        let written: Result<u64, BucketError> = match self.seen {
            Some((revision, _)) => self.bucket.update(&self.key, bytes, revision).await,
            None => self.bucket.create(&self.key, bytes).await,
        };
        self.seen = Some((written?, stamped));
        self.bytes = size;
        Ok(())
    }
}
