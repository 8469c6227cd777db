//! What only a leader does: open command doors, and finish what its state shows as begun.

mod free;
mod turns;

use std::{future::Future, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use wire::Problem;

use self::free::{Chosen, Places};
pub use self::{
    free::Free,
    turns::{Turn, Turns},
};
use crate::{ControlState, Ledger, metrics};

/// Effects of one lane that run at once; the others wait in the state, where they are, and take no place of another lane.
pub const EFFECTS_IN_FLIGHT_MAX: usize = 16;
/// Pause between two attempts of a leader to take up its work.
const SERVE_PAUSE: Duration = Duration::from_secs(1);
/// Runs `lead` anew at every gain of leadership, until the service stops.
///
/// Its token is cancelled at the loss of leadership and when the service stops; `lead` then closes its doors and ends, and only
/// after that can it be run again. If it ends by itself, it is run again at the next gain.
pub async fn while_leading<S, F, Fut>(ledger: &Ledger<S>, mut lead: F)
where
    S: ControlState,
    F: FnMut(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let stop = ledger.stop_token();
    let mut terms = ledger.terms();
    loop {
        let term = tokio::select! {
            () = stop.cancelled() => return,
            term = terms.wait_for(|term| term.leads()) => match term {
                Ok(term) => *term,
                Err(_) => return,
            },
        };
        let token = stop.child_token();
        let over = async {
            drop(terms.wait_for(|now| *now != term).await);
            token.cancel();
            // The token is only a request: `lead` itself says when it has ended.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = lead(token.clone()) => {}
            () = over => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            now = terms.wait_for(|now| *now != term) => if now.is_err() { return },
        }
    }
}

/// Serves until the token is cancelled: when `serve` ends, for want of something that it needs, it is run again after a pause.
///
/// `serve` opens its doors, works, and drops what it opened when it ends or is dropped; it is dropped at the cancellation.
pub async fn keep_serving<F, Fut>(token: CancellationToken, service: wire::Service, mut serve: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), Problem>>,
{
    let work = async {
        loop {
            if let Err(problem) = serve().await {
                tracing::error!(%service, %problem, "leader cannot take up its work; it tries again");
            }
            tokio::time::sleep(SERVE_PAUSE).await;
        }
    };
    tokio::select! {
        () = token.cancelled() => {}
        () = work => {}
    }
}

/// Runs effects until the token is cancelled: `look` offers every piece of work that the state shows as begun and not ended, `run` does
/// what may begin and answers with the command that records its end, if there is one to record.
///
/// A piece of work has an id, under which it is run again after a failure, with growing pauses, and after a restart or a change of
/// leaders. So the work itself must bear being repeated, which it does by carrying the id. It also has a turn: pieces of the same turn
/// run one after the other, and one whose turn is taken waits in the state, without a place.
/// Bounds: [`EFFECTS_IN_FLIGHT_MAX`] at once in each lane; `look` is asked after every change of the state, so it should be cheap.
pub async fn run_effects<S, W, L, R, Fut>(ledger: &Ledger<S>, token: CancellationToken, turns: &Turns, look: L, run: R)
where
    S: ControlState,
    L: Fn(&S, &mut Free<'_, W>),
    R: Fn(String, W) -> Fut,
    Fut: Future<Output = Result<Option<S::Command>, Problem>>,
{
    let mut changes = ledger.changes();
    let mut running = FuturesUnordered::new();
    let mut places = Places::default();
    loop {
        changes.mark_unchanged();
        let now = Instant::now();
        let mut free = Free::new(&mut places, turns, now);
        ledger.read(|state| look(state, &mut free));
        for Chosen { lane, id, turn, work } in free.chosen() {
            let effect = run(id.clone(), work);
            running.push(async move {
                let outcome = match effect.await {
                    Ok(Some(command)) => ledger.submit(command).await.map(drop),
                    Ok(None) => Ok(()),
                    Err(problem) => Err(problem),
                };
                // Not before its end is in the state: it would be found there once more.
                drop(turn);
                (lane, id, outcome)
            });
        }
        let wake = places.next_attempt(now);
        tokio::select! {
            () = token.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = turns.freed() => {}
            () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            Some((lane, id, outcome)) = running.next() => {
                metrics::EFFECTS.with(if outcome.is_ok() { "done" } else { "failed" }).inc();
                match outcome {
                    Ok(()) => places.done(&lane, &id),
                    Err(problem) => {
                        let (count, pause) = places.failed(&lane, &id, Instant::now());
                        tracing::warn!(effect = id, count, ?pause, %problem, "effect failed; it will be repeated");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    /// Counts how often it is alive.
    struct Doors(Arc<AtomicU32>);

    impl Drop for Doors {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn serving_begins_again_until_it_succeeds_and_ends_with_the_token() {
        let (token, open, attempts) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
        let (served, serving) = tokio::sync::oneshot::channel();
        let served = std::sync::Mutex::new(Some(served));
        let serve = || async {
            if attempts.fetch_add(1, Ordering::SeqCst) < 2 {
                return Err(Problem::unavailable("BusUnavailable", "no doors yet"));
            }
            open.fetch_add(1, Ordering::SeqCst);
            let _doors = Doors(Arc::clone(&open));
            served.lock().unwrap().take().unwrap().send(()).unwrap();
            std::future::pending::<Result<(), Problem>>().await
        };
        let begun = Instant::now();
        let cancel = async {
            serving.await.unwrap();
            assert_eq!((attempts.load(Ordering::SeqCst), open.load(Ordering::SeqCst)), (3, 1));
            assert_eq!(begun.elapsed(), SERVE_PAUSE * 2, "one pause after each failure");
            token.cancel();
        };
        tokio::join!(keep_serving(token.clone(), wire::Service::Alerter, serve), cancel);
        assert_eq!(open.load(Ordering::SeqCst), 0, "what was open is closed");
    }
}
