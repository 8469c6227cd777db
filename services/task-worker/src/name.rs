//! Names that outlive an attempt: of writers, of parts, of channels.

use data_encoding::HEXLOWER;
use flow::TaskId;
use ring::digest::{SHA256, digest};
use types::{JobId, SegmentId, TOKEN_BYTES_MAX, WriterId};

use crate::error::TaskError;

/// One submission of a job: what is cancelled and submitted again is another job with names of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Submitted {
    pub(crate) job: JobId,
    pub(crate) submission: u64,
    /// Grows with every change of parallelism: writers of another generation are others.
    pub(crate) generation: u32,
    /// The attempt, for writers whose rows have no order that another attempt could repeat.
    pub(crate) unordered: Option<u32>,
}

impl Submitted {
    /// The writer of a subtask's results, or of those of one of its splits.
    ///
    /// The same in every attempt of a generation, so that the target recognises what a new attempt repeats.
    pub(crate) fn writer(&self, subtask: u32, split: Option<SegmentId>) -> Result<WriterId, TaskError> {
        let split = split.map(|segment| format!("-{segment}")).unwrap_or_default();
        let generation = Some(self.generation).filter(|g| *g > 0).map(|g| format!("-g{g}")).unwrap_or_default();
        let attempt = self.unordered.map(|attempt| format!("-a{attempt}")).unwrap_or_default();
        fitted("job-", &format!("{}-{}{generation}{attempt}-{subtask}{split}", self.job, self.submission))
    }

    /// The job's name in the exchange, where attempts of two submissions must not meet.
    pub(crate) fn channels(&self) -> Result<JobId, TaskError> {
        fitted("", &format!("{}-{}", self.job, self.submission))
    }

    /// The key of a task's part; of its own for each attempt, for a part is never overwritten.
    pub(crate) fn part_key(&self, checkpoint: u64, task: TaskId, attempt: u32) -> String {
        format!("ckpt/{}-{}/{checkpoint:020}/{task}-{attempt}.lb", self.job, self.submission)
    }

    /// The key of the part that a task leaves at its end.
    pub(crate) fn last_part_key(&self, task: TaskId, attempt: u32) -> String {
        format!("ckpt/{}-{}/ended/{task}-{attempt}.lb", self.job, self.submission)
    }

    /// The key of a block of state.
    pub(crate) fn block_key(&self, name: &str) -> String {
        format!("ckpt/{}-{}/blocks/{name}", self.job, self.submission)
    }
}

/// `prefix` + `text` where that is a token, else `prefix` + the SHA-256 of the text.
fn fitted<T: std::str::FromStr<Err = types::Invalid>>(prefix: &str, text: &str) -> Result<T, TaskError> {
    let whole = match prefix.len() + text.len() <= TOKEN_BYTES_MAX {
        true => format!("{prefix}{text}"),
        false => format!("{prefix}{}", sha256(text)),
    };
    whole.parse().map_err(|e: types::Invalid| TaskError::Plan(e.to_string()))
}

/// What all workers of an installation share, derived from the credentials that they share.
///
/// Without credentials (development only) the secret is no secret.
pub(crate) fn exchange_secret(credentials: Option<&str>) -> String {
    sha256(&format!("logboom task exchange v1\n{}", credentials.unwrap_or_default()))
}

fn sha256(text: &str) -> String {
    sha256_hex(text.as_bytes())
}

/// The SHA-256 of bytes, in hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(job: &str) -> Submitted {
        Submitted { job: job.parse().unwrap(), submission: 12, generation: 0, unordered: None }
    }

    #[test]
    fn names_are_tokens_and_differ() {
        let split = SegmentId { stream: 4, epoch: 0, number: 1 };
        assert_eq!(of("sums").writer(3, None).unwrap().as_str(), "job-sums-12-3");
        assert_eq!(of("sums").writer(3, Some(split)).unwrap().as_str(), "job-sums-12-3-4-0-1");
        assert_eq!(of("sums").channels().unwrap().as_str(), "sums-12");
        let rescaled = Submitted { generation: 2, ..of("sums") };
        assert_eq!(rescaled.writer(3, None).unwrap().as_str(), "job-sums-12-g2-3");
        let by_chance = Submitted { unordered: Some(5), ..rescaled };
        assert_eq!(by_chance.writer(3, Some(split)).unwrap().as_str(), "job-sums-12-g2-a5-3-4-0-1");
        let long = of(&"x".repeat(TOKEN_BYTES_MAX));
        let names: Vec<String> = (0..3).map(|subtask| long.writer(subtask, None).unwrap().to_string()).collect();
        assert!(names.iter().all(|name| name.len() == 4 + 64) && names[0] != names[1] && names[1] != names[2]);
        assert!(long.channels().is_ok());
    }

    #[test]
    fn a_part_lies_beside_its_manifest_and_is_never_overwritten() {
        let task = TaskId { vertex: 1, subtask: 0 };
        assert_eq!(of("sums").part_key(7, task, 2), "ckpt/sums-12/00000000000000000007/1-0-2.lb");
        assert_ne!(of("sums").part_key(7, task, 2), of("sums").part_key(7, task, 3));
    }

    #[test]
    fn the_secret_follows_the_credentials() {
        assert_ne!(exchange_secret(Some("a")), exchange_secret(Some("b")));
        assert_eq!(exchange_secret(Some("a")).len(), 64);
    }
}
