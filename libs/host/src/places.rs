//! Places at a door, of which no index takes more than half: whoever floods one index leaves the other half to everybody else.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};
use types::IndexName;

/// Requests that wait for each place of a door, half of them of one index at most; beyond it there is no place.
const WAITING_PER_PLACE: usize = 4;

/// The places of one door; clones share them.
#[derive(Clone)]
pub struct Places {
    count: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// As many entries as indexes have places.
    of_index: HashMap<IndexName, usize>,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    index: Option<IndexName>,
    place: oneshot::Sender<Place>,
}

/// A place; given back by being dropped.
pub struct Place {
    places: Places,
    index: Option<IndexName>,
}

impl Places {
    /// All free.
    pub fn new(count: usize) -> Self {
        Self { count, taken: Arc::default() }
    }

    /// A place for a request about an index; `None` where all are taken, or half of them by this index.
    pub fn take(&self, index: Option<&IndexName>) -> Option<Place> {
        let free = self.taken.lock().take(self.count, index);
        free.then(|| Place { places: self.clone(), index: index.cloned() })
    }

    /// The same, after some time where there is none now: what gets free goes to whose index has the fewest, and of
    /// those to who came first. `None` where too many wait, or none got free.
    pub async fn wait(&self, index: Option<&IndexName>, within: Duration) -> Option<Place> {
        let place = {
            let mut taken = self.taken.lock();
            if taken.take(self.count, index) {
                return Some(Place { places: self.clone(), index: index.cloned() });
            }
            taken.waiting.retain(|one| !one.place.is_closed());
            let own = taken.waiting.iter().filter(|one| one.index.as_ref() == index).count();
            let max = self.count * WAITING_PER_PLACE;
            if taken.waiting.len() >= max || own >= max / 2 {
                return None;
            }
            let (sender, place) = oneshot::channel();
            taken.waiting.push_back(Waiting { index: index.cloned(), place: sender });
            place
        };
        timeout(within, place).await.ok()?.ok()
    }
}

impl Taken {
    fn has_room(&self, count: usize, index: Option<&IndexName>) -> bool {
        self.all < count && self.of(index) < count / 2
    }

    /// How many places an index has; requests about none have no bound but that of all.
    fn of(&self, index: Option<&IndexName>) -> usize {
        index.and_then(|index| self.of_index.get(index)).copied().unwrap_or(0)
    }

    fn take(&mut self, count: usize, index: Option<&IndexName>) -> bool {
        if !self.has_room(count, index) {
            return false;
        }
        self.all += 1;
        if let Some(index) = index {
            *self.of_index.entry(index.clone()).or_default() += 1;
        }
        true
    }

    fn give_back(&mut self, index: Option<&IndexName>) {
        self.all -= 1;
        let Some(index) = index else { return };
        if let Some(own) = self.of_index.get_mut(index) {
            *own -= 1;
            if *own == 0 {
                self.of_index.remove(index);
            }
        }
    }

    /// Whose turn it is, with the place taken.
    fn next(&mut self, count: usize) -> Option<Waiting> {
        self.waiting.retain(|one| !one.place.is_closed());
        let may = self.waiting.iter().enumerate().filter(|(_, one)| self.has_room(count, one.index.as_ref()));
        let (turn, _) = may.min_by_key(|(turn, one)| (self.of(one.index.as_ref()), *turn))?;
        let next = self.waiting.remove(turn)?;
        self.take(count, next.index.as_ref()).then_some(next)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = {
            let mut taken = self.places.taken.lock();
            taken.give_back(self.index.as_ref());
            taken.next(self.places.count)
        };
        if let Some(Waiting { index, place }) = next {
            // Who does not wait any more gives it to the next by dropping it.
            drop(place.send(Place { places: self.places.clone(), index }));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn no_index_takes_more_than_half() {
        let places = Places::new(4);
        let [loud, quiet] = ["loud", "quiet"].map(|name| name.parse::<IndexName>().unwrap());
        let mut held: Vec<Place> = (0..9).filter_map(|_| places.take(Some(&loud))).collect();
        assert_eq!(held.len(), 2);
        held.extend((0..9).filter_map(|_| places.take(Some(&quiet))));
        assert_eq!(held.len(), 4);
        assert!(places.take(None).is_none(), "all are taken");
        held.remove(0);
        assert!(places.take(Some(&quiet)).is_none(), "it has its half");
        assert!(places.take(Some(&loud)).is_some() && places.take(None).is_some());
        drop(held);
        assert!(places.taken.lock().of_index.is_empty(), "nobody is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_what_is_given_back() {
        let places = Places::new(2);
        let [loud, quiet] = ["loud", "quiet"].map(|name| name.parse::<IndexName>().unwrap());
        let long = Duration::from_secs(60);
        let first = places.take(Some(&loud)).unwrap();
        let mut second = Box::pin(places.wait(Some(&loud), long));
        assert!(second.as_mut().now_or_never().is_none(), "its index has its half");
        let mut third = Box::pin(places.wait(Some(&loud), long));
        assert!(third.as_mut().now_or_never().is_none());
        let other = places.wait(Some(&quiet), long).await.expect("nobody waits for the other half");
        let mut fourth = Box::pin(places.wait(Some(&quiet), long));
        assert!(fourth.as_mut().now_or_never().is_none());

        drop(second);
        drop(first);
        let third = third.await.expect("the one before it has gone");
        drop(other);
        let fourth = fourth.await.expect("the first of its index");
        drop((third, fourth));
        assert_eq!(places.taken.lock().all, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_an_end_and_a_bound() {
        let places = Places::new(2);
        let index: IndexName = "loud".parse().unwrap();
        let held = places.take(Some(&index)).unwrap();
        assert!(places.wait(Some(&index), Duration::from_secs(10)).await.is_none(), "none got free");
        let mut all: Vec<_> = (0..2 * WAITING_PER_PLACE / 2)
            .map(|_| Box::pin(places.wait(Some(&index), Duration::from_secs(60))))
            .collect();
        assert!(all.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
        let refused = places.wait(Some(&index), Duration::from_secs(60)).now_or_never();
        assert!(refused.is_some_and(|place| place.is_none()), "too many wait");
        drop(held);
        assert!(all.remove(0).now_or_never().flatten().is_some());
    }
}
