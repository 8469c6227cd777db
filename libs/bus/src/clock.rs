//! The operating system's clock, behind the house's trait.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use types::{Clock, Timestamp};

/// For fault tests only: names a file with the milliseconds by which this process mistakes the time, read at every look, so that a
/// test can let the clock of one process jump while it runs.
const MISTAKEN: &str = "LB_CLOCK_OFFSET_FILE";

#[allow(clippy::disallowed_methods, reason = "no setting: nobody but a test may ever want a wrong clock")]
static OFFSET_FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let file = env::var_os(MISTAKEN).map(PathBuf::from);
    if let Some(file) = &file {
        tracing::warn!(file = %file.display(), "clock of this process can be set wrong: it is a fault test");
    }
    file
});

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the wrapper that the ban asks for")]
    fn now(&self) -> Timestamp {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
        Timestamp::from_nanos(nanos.saturating_add(OFFSET_FILE.as_deref().map_or(0, mistake)))
    }
}

/// Nanoseconds by which the clock is wrong; a file that is not there or cannot be read makes it right.
fn mistake(file: &Path) -> i64 {
    let millis = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i64>().ok());
    millis.unwrap_or(0).saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_read_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("offset");
        assert_eq!(mistake(&file), 0);
        for (text, nanos) in [("300000\n", 300_000_000_000), ("-5", -5_000_000), ("soon", 0), ("", 0)] {
            fs::write(&file, text).unwrap();
            assert_eq!(mistake(&file), nanos, "{text:?}");
        }
    }
}
