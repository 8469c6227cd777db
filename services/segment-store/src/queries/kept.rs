//! Which fragments there are: running, or answered and waiting to be fetched.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use wire::{
    Problem,
    segment_store::{FRAGMENT_PART_BYTES_MAX, FragmentAnswer},
};

/// Fragments that wait for a place, run, or wait to be fetched; each keeps at most 4 MiB then.
pub(super) const FRAGMENTS_KEPT_MAX: usize = 64;

/// A fragment that nobody asks for so long is given up: its asker has gone away.
pub(super) const ASKED_WITHIN: Duration = Duration::from_secs(5);

/// What a fragment gave.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    /// An Arrow IPC stream.
    pub(super) stream: Bytes,
    /// What is said with the last part: what it cost.
    pub(super) told: FragmentAnswer,
}

/// One fragment.
pub(super) struct One {
    asked: Mutex<Asked>,
    state: watch::Sender<Option<Result<Answered, Problem>>>,
}

struct Asked {
    /// How many requests wait now.
    waiting: usize,
    last: Instant,
    /// Nobody will ask again.
    fetched: bool,
}

/// Notes that a request waits, for as long as it is there.
struct Waiting<'a>(&'a One);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut asked = self.0.asked.lock();
        asked.waiting -= 1;
        asked.last = Instant::now();
    }
}

impl One {
    fn new() -> Self {
        let asked = Asked { waiting: 0, last: Instant::now(), fetched: false };
        Self { asked: Mutex::new(asked), state: watch::Sender::new(None) }
    }

    /// Says what it gave.
    pub(super) fn end(&self, answer: Result<Answered, Problem>) {
        self.state.send_replace(Some(answer));
    }

    /// A part of the answer; not ready where there is none within the time.
    pub(super) async fn part(&self, part: u32, wait: Duration) -> Result<FragmentAnswer, Problem> {
        let until = Instant::now() + wait;
        self.asked.lock().waiting += 1;
        let _waiting = Waiting(self);
        let mut state = self.state.subscribe();
        let Ok(Ok(ended)) = timeout_at(until, state.wait_for(Option::is_some)).await else {
            return Ok(FragmentAnswer::default());
        };
        let Some(answer) = ended.clone() else { return Ok(FragmentAnswer::default()) };
        drop(ended);
        let answer = answer.inspect_err(|_| self.asked.lock().fetched = true)?;
        let parts = answer.stream.len().div_ceil(FRAGMENT_PART_BYTES_MAX);
        let at = usize::try_from(part).unwrap_or(usize::MAX);
        if at >= parts {
            return Err(Problem::bad_request("InvalidFragment", format_args!("there are {parts} parts, not {part}")));
        }
        self.asked.lock().fetched |= at + 1 == parts;
        let from = at * FRAGMENT_PART_BYTES_MAX;
        let part = answer.stream.slice(from..answer.stream.len().min(from + FRAGMENT_PART_BYTES_MAX));
        Ok(FragmentAnswer { ready: true, part, parts: u32::try_from(parts).unwrap_or(u32::MAX), ..answer.told })
    }

    /// Waits until nobody needs it any more.
    pub(super) async fn forgotten(&self) {
        loop {
            let until = {
                let asked = self.asked.lock();
                if asked.fetched && asked.waiting == 0 {
                    return;
                }
                let from = if asked.waiting > 0 { Instant::now() } else { asked.last };
                // An answer that was fetched needs no long look.
                from + ASKED_WITHIN
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
        }
    }
}

/// How often it is looked whether an answer was fetched.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// All fragments of a replica, by id.
#[derive(Default)]
pub(super) struct Fragments(HashMap<String, Arc<One>>);

/// What became of a request to begin one.
pub(super) enum Begun {
    New(Arc<One>),
    Known(Arc<One>),
    TooMany,
}

impl Fragments {
    pub(super) fn begin(&mut self, id: &str) -> Begun {
        if let Some(one) = self.0.get(id) {
            return Begun::Known(Arc::clone(one));
        }
        if self.0.len() >= FRAGMENTS_KEPT_MAX {
            return Begun::TooMany;
        }
        let one = Arc::new(One::new());
        self.0.insert(id.to_owned(), Arc::clone(&one));
        Begun::New(one)
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<One>> {
        self.0.get(id).map(Arc::clone)
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn answered(bytes: usize) -> Answered {
        let told = FragmentAnswer { rows_scanned: 7, ..FragmentAnswer::default() };
        Answered { stream: (0..bytes).map(|n| u8::try_from(n % 251).unwrap()).collect(), told }
    }

    #[tokio::test(start_paused = true)]
    async fn parts_together_are_the_answer() {
        for bytes in [1, FRAGMENT_PART_BYTES_MAX, FRAGMENT_PART_BYTES_MAX + 1, 3 * FRAGMENT_PART_BYTES_MAX - 1] {
            let (one, whole) = (One::new(), answered(bytes));
            one.end(Ok(whole.clone()));
            let mut found = Vec::new();
            let first = one.part(0, Duration::ZERO).await.unwrap();
            for part in 0..first.parts {
                let one = one.part(part, Duration::ZERO).await.unwrap();
                assert!(one.ready && one.part.len() <= FRAGMENT_PART_BYTES_MAX);
                assert_eq!((one.parts, one.rows_scanned), (first.parts, 7));
                found.extend_from_slice(&one.part);
            }
            assert_eq!(found, whole.stream, "{bytes}");
            let beyond = one.part(first.parts, Duration::ZERO).await.unwrap_err();
            assert_eq!(beyond.kind, "InvalidFragment");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_waits_and_is_told_that_it_still_runs() {
        let one = One::new();
        assert!(!one.part(0, Duration::from_secs(1)).await.unwrap().ready);
        let mut waiting = Box::pin(one.part(0, Duration::from_secs(1)));
        assert!(waiting.as_mut().now_or_never().is_none());
        one.end(Err(Problem::unavailable("ChunkUnreadable", "gone")));
        assert_eq!(waiting.await.unwrap_err().kind, "ChunkUnreadable");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_is_forgotten_and_what_somebody_waits_for_is_not() {
        let begun = Instant::now();
        let one = One::new();
        one.forgotten().await;
        assert_eq!(begun.elapsed(), ASKED_WITHIN, "nobody ever asked");

        let one = One::new();
        let long = 3 * ASKED_WITHIN;
        let asked = async {
            one.part(0, long).await.unwrap();
            Instant::now()
        };
        let forgotten = async {
            one.forgotten().await;
            Instant::now()
        };
        let (asked, forgotten) = tokio::join!(asked, forgotten);
        assert!(forgotten >= asked + ASKED_WITHIN, "while somebody waits it is wanted");

        let one = One::new();
        one.end(Ok(answered(10)));
        let begun = Instant::now();
        let (part, ()) = tokio::join!(one.part(0, Duration::ZERO), one.forgotten());
        assert!(part.unwrap().ready && begun.elapsed() <= LOOK_EVERY, "the last part was fetched");
    }

    #[test]
    fn there_are_only_so_many_and_each_begins_once() {
        let mut fragments = Fragments::default();
        for n in 0..FRAGMENTS_KEPT_MAX {
            assert!(matches!(fragments.begin(&n.to_string()), Begun::New(_)));
            assert!(matches!(fragments.begin(&n.to_string()), Begun::Known(_)));
        }
        assert!(matches!(fragments.begin("more"), Begun::TooMany));
        fragments.remove("0");
        assert!(fragments.get("0").is_none() && matches!(fragments.begin("more"), Begun::New(_)));
    }
}
