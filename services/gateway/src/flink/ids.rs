//! Flink's ids are 32 hex digits; those of jobs and vertices here are words.

use types::{JobId, hash64};

fn digits(of: &str) -> String {
    format!("{:016x}{:016x}", hash64(of.as_bytes()), hash64(format!("{of}\n").as_bytes()))
}

/// The id under which a job is shown, the same for ever.
pub(crate) fn job(job: &JobId) -> String {
    digits(job.as_str())
}

/// The id under which a vertex is shown: it stays as its uid does, over restarts and another parallelism.
pub(crate) fn vertex(uid: &str) -> String {
    digits(uid)
}
