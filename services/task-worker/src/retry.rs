//! Trying again: what may pass is repeated until the attempt is cancelled, what cannot pass is an error at once.

use std::{future::Future, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};
use wire::{Code, Problem};

use crate::error::TaskError;

/// The pause after the first failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Growing pauses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pauses(u32);

impl Pauses {
    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = PAUSE_MIN.saturating_mul(1 << self.0.min(10)).min(PAUSE_MAX);
        self.0 += 1;
        pause
    }

    /// Begins with the shortest again.
    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Whether the same request can never succeed. A defect elsewhere can be mended while we try.
pub(crate) fn is_final(problem: &Problem) -> bool {
    matches!(problem.code, Code::BadRequest | Code::Forbidden | Code::NotFound | Code::Conflict)
}

/// Repeats `attempt` until it succeeds or fails for good. Bounds: none of its own; it is dropped with the attempt.
pub(crate) async fn persist<T, F, Fut>(what: &'static str, mut attempt: F) -> Result<T, TaskError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Problem>>,
{
    let mut pauses = Pauses::default();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(problem) if is_final(&problem) => return Err(TaskError::Call { what, problem }),
            Err(problem) => {
                let pause = pauses.next();
                match pause < PAUSE_MAX {
                    true => info!(what, %problem, ?pause, "call failed; it will be repeated"),
                    false => warn!(what, %problem, ?pause, "call keeps failing; it will be repeated"),
                }
                sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_repeated_and_what_cannot_is_not() {
        let tries = Cell::new(0);
        let answer = persist("test", || {
            tries.set(tries.get() + 1);
            let tried = tries.get();
            async move { if tried < 20 { Err(Problem::unavailable("Down", "down")) } else { Ok(tried) } }
        });
        assert_eq!(answer.await.unwrap(), 20);
        let answer: Result<(), _> = persist("test", || async { Err(Problem::conflict("EventNumberGap", "gap")) }).await;
        assert!(answer.unwrap_err().reason().contains("EventNumberGap"));
    }
}
