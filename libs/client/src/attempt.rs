//! One attempt of a call to a container: how long an answer is waited for, and when nobody is left who could give one.
//!
//! An owner that dies takes what it was asked with it, and nobody tells whoever waits. Two things end the wait: the notice that
//! the container moved, which comes as soon as the coordinator knows; and, because notices may get lost, a short time. Appends
//! are repeated under their numbers, so that giving one up early costs a repeat and nothing else.
//!
//! Notices are heard instead of the view of the placement being watched: a watch costs a consumer per client on one JetStream
//! stream, of which a server takes about a thousand; a notice costs a subscription.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    marker::PhantomData,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bus::{Bus, BusError};
use tokio::{sync::watch, time::sleep};
use tracing::debug;
use types::{ContainerId, Generation};
use wire::{
    Call, Code, Empty, Problem, Retry,
    coordinator::{ContainerMoved, DescribePlacement},
    delegation::Outer,
    segment_store::{Append, AppendEvents, Appended},
    views::Placement,
};

use crate::Client;

/// How long the first attempt waits for its answer: a hundred times what an append takes, and about as long as it takes to
/// replace an owner that died.
const ANSWER_WITHIN: Duration = Duration::from_millis(2_500);
/// The longest that an attempt waits: longer than the 10 s for which the segment store tries its log.
const ANSWER_WITHIN_MAX: Duration = Duration::from_secs(15);
/// The pause before it is tried again to listen to moves.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// How long the attempts of one append wait for an answer.
///
/// The first waits 2.5 s, each further one that had none twice as long, up to 15 s: an owner that is only slow skips what nobody
/// waits for any more, so that attempts that are always too short would never succeed. Any answer, and the news that
/// the container moved, begin anew.
///
/// ```
/// use client::Attempts;
/// use wire::{Code, Problem};
///
/// let mut attempts = Attempts::default();
/// let first = attempts.within();
/// attempts.note(&Problem::new(Code::Deadline, "Deadline", "no reply in time"));
/// assert_eq!(attempts.within(), 2 * first);
/// attempts.note(&Problem::unavailable("NoResponders", "nobody serves it"));
/// assert_eq!(attempts.within(), first);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    unanswered: u32,
}

impl Attempts {
    /// How long the next attempt waits.
    pub fn within(&self) -> Duration {
        ANSWER_WITHIN.saturating_mul(1 << self.unanswered.min(8)).min(ANSWER_WITHIN_MAX)
    }

    /// Takes note of an attempt that failed.
    pub fn note(&mut self, problem: &Problem) {
        self.unanswered = if problem.kind == "Deadline" { self.unanswered + 1 } else { 0 };
    }
}

/// The same call, repeated by nobody but its caller: he must know how often he asked.
struct Once<C>(PhantomData<C>);

impl<C: Call> Call for Once<C> {
    const NAME: &'static str = C::NAME;
    const PATTERN: &'static str = C::PATTERN;
    const OWNER: wire::Service = C::OWNER;
    const RETRY: Retry = Retry::Never;
    const OUTER: Option<Outer<C::Request>> = C::OUTER;
    type Key = C::Key;
    type Request = C::Request;
    type Reply = C::Reply;
}

impl Client {
    /// Sends a block once and waits for the answer, at most as long as given, and no longer than its container stays where it is.
    ///
    /// Errors: `Deadline` when nobody answered, `Fenced` when the container moved: outcome unknown, repeat it under the same
    /// numbers. [`Client::append`] and the writers do that by themselves.
    pub async fn append_once(
        &self,
        container: ContainerId,
        append: &Append,
        within: Duration,
    ) -> Result<Appended, Problem> {
        self.ask::<Once<AppendEvents>>(container, append, within).await
    }

    /// Asks the owner of a container, no longer than it is the owner.
    pub(crate) async fn ask<C: Call<Key = ContainerId>>(
        &self,
        container: ContainerId,
        request: &C::Request,
        within: Duration,
    ) -> Result<C::Reply, Problem> {
        let moved = self.moves.moved(&self.bus, container);
        tokio::select! {
            biased;
            answer = self.bus.call_within::<C>(&container, request, within) => answer,
            () = moved => {
                let message = format_args!("container {container} moved while its owner was asked");
                Err(Problem::new(Code::Fenced, "Fenced", message).unknown())
            }
        }
    }
}

/// Which containers moved, as far as it was heard; clones share it. Begins to listen when it is first asked.
#[derive(Clone, Default)]
pub(crate) struct Moves(Arc<OnceLock<watch::Receiver<Known>>>);

impl Moves {
    /// Returns when the container moves after this was called; never, if nobody says so.
    fn moved(&self, bus: &Bus, container: ContainerId) -> impl Future<Output = ()> + use<> {
        let known = self.0.get_or_init(|| {
            let (tell, known) = watch::channel(Known::default());
            tokio::spawn(listen(bus.clone(), tell));
            known
        });
        let mut known = known.clone();
        let before = known.borrow().moves(container);
        async move {
            if known.wait_for(|known| known.moves(container) != before).await.is_err() {
                // Nobody listens any more.
                std::future::pending().await
            }
        }
    }
}

/// Listens until the bus is closed or no client is left.
async fn listen(bus: Bus, tell: watch::Sender<Known>) {
    let mut notices = loop {
        match bus.listen::<ContainerMoved>().await {
            Ok(notices) => break notices,
            // From outside the platform nobody hears them: there the short time alone ends the wait.
            Err(BusError::Refused { .. }) => return,
            Err(error) => debug!(%error, "moves of containers not heard yet"),
        }
        tokio::select! {
            () = tell.closed() => return,
            () = sleep(LISTEN_AGAIN) => {}
        }
    };
    // By what it was before, a notice tells which containers moved. Without it they all count as moved, once.
    let asked = bus.call::<DescribePlacement>(&(), &Empty {});
    let (mut asked, mut known) = (std::pin::pin!(asked), false);
    loop {
        tokio::select! {
            () = tell.closed() => return,
            heard = notices.next() => {
                let Some(placement) = heard else { return };
                tell.send_modify(|known| known.hear(&placement));
            }
            answer = &mut asked, if !known => {
                known = true;
                match answer {
                    Ok(placement) => drop(tell.send_if_modified(|known| known.learn(&placement))),
                    Err(problem) => debug!(%problem, "placement not known before its first change"),
                }
            }
        }
    }
}

/// What is known of the placement. Bounds: one entry for each container.
#[derive(Debug, Default)]
struct Known {
    version: u64,
    generations: BTreeMap<ContainerId, Generation>,
    moves: BTreeMap<ContainerId, u64>,
}

impl Known {
    fn moves(&self, container: ContainerId) -> u64 {
        self.moves.get(&container).copied().unwrap_or(0)
    }

    /// Takes the placement as it is; true if it was news.
    fn learn(&mut self, placement: &Placement) -> bool {
        if placement.version <= self.version {
            return false;
        }
        self.version = placement.version;
        self.generations = placement.assignments.iter().map(|one| (one.container, one.generation)).collect();
        true
    }

    /// Takes a change of the placement, and counts whose owners are others now; what a deposed coordinator says late is none.
    fn hear(&mut self, placement: &Placement) {
        let before = self.generations.clone();
        if !self.learn(placement) {
            return;
        }
        let all: BTreeSet<ContainerId> = before.keys().chain(self.generations.keys()).copied().collect();
        for container in all.into_iter().filter(|one| before.get(one) != self.generations.get(one)) {
            *self.moves.entry(container).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::views::Assignment;

    use super::*;

    fn placement(version: u64, generations: &[(u16, u64)]) -> Placement {
        let assign = |&(container, generation): &(u16, u64)| Assignment {
            container: ContainerId(container),
            replica: "a".parse().unwrap(),
            generation: Generation(generation),
        };
        Placement { version, container_count: 4, assignments: generations.iter().map(assign).collect() }
    }

    #[test]
    fn a_container_moved_when_its_generation_is_another_one() {
        let mut known = Known::default();
        let moves = |known: &Known| [0, 1, 2].map(|container| known.moves(ContainerId(container)));
        assert!(known.learn(&placement(4, &[(0, 1), (1, 1)])));
        assert_eq!(moves(&known), [0, 0, 0], "where it is at the beginning is no move");
        known.hear(&placement(5, &[(0, 2), (1, 1)]));
        assert_eq!(moves(&known), [1, 0, 0]);
        // Repeated, and from a coordinator that leads no more.
        known.hear(&placement(5, &[(0, 2), (1, 1)]));
        known.hear(&placement(3, &[(0, 1), (1, 9)]));
        assert_eq!(moves(&known), [1, 0, 0]);
        // Without a living store, and placed again.
        known.hear(&placement(6, &[(0, 2)]));
        known.hear(&placement(7, &[(0, 2), (1, 2), (2, 1)]));
        assert_eq!(moves(&known), [1, 2, 1]);
    }

    #[test]
    fn a_first_notice_without_anything_before_moves_all() {
        let mut known = Known::default();
        known.hear(&placement(9, &[(0, 5)]));
        assert!(!known.learn(&placement(8, &[(0, 4)])), "an answer that the notice overtook");
        assert_eq!((known.moves(ContainerId(0)), known.generations[&ContainerId(0)]), (1, Generation(5)));
    }

    #[test]
    fn attempts_wait_longer_while_nobody_answers() {
        let mut attempts = Attempts::default();
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(attempts.within().as_millis());
            attempts.note(&Problem::new(Code::Deadline, "Deadline", "x").unknown());
        }
        assert_eq!(waits, [2_500, 5_000, 10_000, 15_000, 15_000]);
        attempts.note(&Problem::new(Code::Fenced, "Fenced", "moved").unknown());
        assert_eq!(attempts.within(), ANSWER_WITHIN);
    }
}
