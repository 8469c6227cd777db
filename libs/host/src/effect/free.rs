//! Which work may begin: places by lane, turns by what is worked on, and pauses after failures. It decides, and waits for nothing.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{EFFECTS_IN_FLIGHT_MAX, Turn, Turns};

/// Pause after the first failure of an effect; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// The longest pause between two runs of an effect.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long after its pause a failure is remembered: what was not tried again by then has most likely left the state.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Failures of one piece of work.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    until: Instant,
}

/// The places that are taken and the failures that are remembered.
///
/// Bounds: one failure for each piece of work that was tried in vain during the last minute and a half.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: BTreeMap<String, usize>,
    failures: BTreeMap<String, Failures>,
}

impl Places {
    /// A piece of work has ended for good.
    pub(super) fn done(&mut self, lane: &str, id: &str) {
        self.leave(lane);
        self.failures.remove(id);
    }

    /// A piece of work is to be repeated; answers how often it has failed, and how long it waits.
    pub(super) fn failed(&mut self, lane: &str, id: &str, now: Instant) -> (u32, Duration) {
        self.leave(lane);
        let count = self.failures.get(id).map_or(1, |known| known.count.saturating_add(1));
        let pause = RETRY_FIRST.saturating_mul(1 << (count - 1).min(16)).min(RETRY_MAX);
        self.failures.insert(id.to_owned(), Failures { count, until: now + pause });
        (count, pause)
    }

    /// When the next pause ends.
    pub(super) fn next_attempt(&self, now: Instant) -> Option<Instant> {
        self.failures.values().map(|known| known.until).filter(|until| *until > now).min()
    }

    fn leave(&mut self, lane: &str) {
        if let Some(count) = self.taken.get_mut(lane) {
            *count = count.saturating_sub(1);
        }
    }
}

/// A piece of work that begins.
pub(super) struct Chosen<W> {
    pub(super) lane: String,
    pub(super) id: String,
    pub(super) turn: Turn,
    pub(super) work: W,
}

/// What may begin now; whoever looks through the state offers what there is.
pub struct Free<'a, W> {
    places: &'a mut Places,
    turns: &'a Turns,
    now: Instant,
    chosen: Vec<Chosen<W>>,
}

impl<'a, W> Free<'a, W> {
    pub(super) fn new(places: &'a mut Places, turns: &'a Turns, now: Instant) -> Self {
        places.failures.retain(|_, known| known.until + REMEMBERED > now);
        Self { places, turns, now, chosen: Vec::new() }
    }

    /// Whether a lane has a place left; where it has none, to offer more is in vain.
    pub fn has_place(&self, lane: &str) -> bool {
        self.places.taken.get(lane).is_none_or(|count| *count < EFFECTS_IN_FLIGHT_MAX)
    }

    /// Whether nobody works on a thing; while somebody does, to offer work on it is in vain.
    pub fn has_turn(&self, thing: &str) -> bool {
        !self.turns.is_taken(thing)
    }

    /// Offers a piece of work on a thing: it begins if its lane has a place, nobody works on the thing, and it does not pause.
    pub fn offer(&mut self, lane: &str, thing: &str, id: String, work: W) {
        let pauses = self.places.failures.get(&id).is_some_and(|known| known.until > self.now);
        if pauses || !self.has_place(lane) {
            return;
        }
        if let Some(turn) = self.turns.try_take(thing) {
            *self.places.taken.entry(lane.to_owned()).or_default() += 1;
            self.chosen.push(Chosen { lane: lane.to_owned(), id, turn, work });
        }
    }

    pub(super) fn chosen(self) -> Vec<Chosen<W>> {
        self.chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers pieces of work of one lane, each on the thing of its own name, and answers which begin.
    fn begin(places: &mut Places, turns: &Turns, lane: &str, ids: &[&str], now: Instant) -> Vec<Chosen<()>> {
        let mut free = Free::new(places, turns, now);
        ids.iter().for_each(|id| free.offer(lane, id, (*id).to_owned(), ()));
        free.chosen()
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_lane_takes_no_place_of_another() {
        let (mut places, turns, now) = (Places::default(), Turns::default(), Instant::now());
        let many: Vec<String> = (0..EFFECTS_IN_FLIGHT_MAX + 5).map(|n| format!("hanging-{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut hanging = begin(&mut places, &turns, "slow", &many, now);
        assert_eq!(hanging.len(), EFFECTS_IN_FLIGHT_MAX);
        assert!(!Free::<()>::new(&mut places, &turns, now).has_place("slow"));
        assert!(begin(&mut places, &turns, "slow", &["more"], now).is_empty());
        assert_eq!(begin(&mut places, &turns, "fast", &["other"], now).len(), 1);
        // A place that is left is taken again.
        let ended = hanging.remove(0);
        places.done("slow", &ended.id);
        assert_eq!(begin(&mut places, &turns, "slow", &many, now).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_its_turn_takes_no_place() {
        let (mut places, turns, now) = (Places::default(), Turns::default(), Instant::now());
        let held = turns.try_take("i").unwrap();
        let mut free = Free::new(&mut places, &turns, now);
        for n in 0..2 * EFFECTS_IN_FLIGHT_MAX {
            free.offer("own", "i", format!("bind-{n}"), ());
        }
        free.offer("own", "j", "provision-1".to_owned(), ());
        let begun = free.chosen();
        assert_eq!((begun.len(), begun[0].id.as_str()), (1, "provision-1"));
        drop(held);
        let mut free = Free::new(&mut places, &turns, now);
        free.offer("own", "i", "bind-0".to_owned(), ());
        free.offer("own", "i", "bind-1".to_owned(), ());
        assert!(!free.has_turn("i"));
        assert_eq!(free.chosen().len(), 1, "one after the other");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_are_forgotten_with_the_work() {
        let (mut places, turns) = (Places::default(), Turns::default());
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let begun = begin(&mut places, &turns, "own", &["e"], Instant::now());
            assert_eq!(begun.len(), 1);
            let (_, pause) = places.failed("own", "e", Instant::now());
            drop(begun);
            assert!(begin(&mut places, &turns, "own", &["e"], Instant::now()).is_empty());
            assert_eq!(places.next_attempt(Instant::now()), Some(Instant::now() + pause));
            // A retry that somebody asks for has another id, which has not failed yet.
            assert_eq!(begin(&mut places, &turns, "own", &["e~1"], Instant::now()).len(), 1);
            places.done("own", "e~1");
            pauses.push(pause);
            tokio::time::advance(pause).await;
        }
        assert!(pauses.windows(2).all(|two| two[0] < two[1] || two[1] == RETRY_MAX), "{pauses:?}");
        assert_eq!((pauses[0], pauses[9]), (RETRY_FIRST, RETRY_MAX));
        assert_eq!(places.next_attempt(Instant::now()), None, "what is over wakes nobody");
        tokio::time::advance(REMEMBERED).await;
        drop(begin(&mut places, &turns, "own", &[], Instant::now()));
        assert!(places.failures.is_empty());
    }
}
