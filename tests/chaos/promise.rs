//! What a trial was promised, and how what was read differs from it.

use std::collections::{BTreeMap, BTreeSet};

use logboom_tests::Seen;
use types::{SegmentId, StreamCut};

/// How a transaction ended, as far as its writer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Committed,
    Aborted,
    /// Nobody answered: all or nothing.
    Unknown,
}

/// The events of one transaction, by their texts.
#[derive(Debug, Clone)]
pub(crate) struct Transacted {
    pub(crate) name: String,
    pub(crate) events: Vec<String>,
    pub(crate) ending: Ending,
}

/// Everything that was acknowledged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promises {
    /// Events per key: their texts are `<key> 0`, `<key> 1`, …
    pub(crate) keys: BTreeMap<String, u64>,
    pub(crate) transactions: Vec<Transacted>,
    /// Where the stream begins by now.
    pub(crate) head: StreamCut,
    /// Segments that lie wholly before that.
    pub(crate) forgotten: BTreeSet<SegmentId>,
}

/// At most so many differences are told.
const TOLD_MAX: usize = 12;

impl Promises {
    /// How many events were acknowledged.
    pub(crate) fn count(&self) -> u64 {
        let committed = self.transactions.iter().filter(|one| one.ending == Ending::Committed);
        self.keys.values().sum::<u64>() + committed.map(|one| one.events.len() as u64).sum::<u64>()
    }

    /// Every promise that is broken, given what a witness read from the beginning while it happened, what was read once more
    /// when everything had healed, and what the readers of a group got. The first two in an order that respects what follows
    /// what.
    pub(crate) fn broken(&self, live: &[Seen], again: &[Seen], shared: &[Seen]) -> Vec<String> {
        let mut broken = places(live, "read live");
        broken.extend(places(again, "read again"));
        broken.extend(self.events(live));
        broken.extend(self.transactions(live));
        broken.extend(self.same(live, again));
        broken.extend(self.shared(live, shared));
        broken.truncate(TOLD_MAX);
        broken
    }

    /// Every acknowledged event once, each key in its order, and nothing that nobody sent.
    fn events(&self, live: &[Seen]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut due: BTreeMap<&str, u64> = self.keys.keys().map(|key| (key.as_str(), 0)).collect();
        let transacted: BTreeSet<&str> =
            self.transactions.iter().flat_map(|one| &one.events).map(String::as_str).collect();
        for seen in live {
            let Some((key, number)) = seen.text.split_once(' ') else {
                broken.push(format!("{seen:?} was never sent"));
                continue;
            };
            match due.get_mut(key) {
                Some(next) if number.parse() == Ok(*next) => *next += 1,
                Some(next) => broken.push(format!("key {key}: {seen:?} where number {next} was due")),
                None if transacted.contains(seen.text.as_str()) => {}
                None => broken.push(format!("{seen:?} was never sent")),
            }
        }
        for (key, next) in due {
            if next != self.keys[key] {
                broken.push(format!("key {key}: {} were acknowledged, {next} are there", self.keys[key]));
            }
        }
        broken
    }

    /// All of a transaction or nothing of it; what is there is together and in order.
    fn transactions(&self, live: &[Seen]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut places: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
        for seen in live {
            places.entry(seen.text.as_str()).or_default().push(seen);
        }
        for one in &self.transactions {
            let there: Vec<&Seen> =
                one.events.iter().filter_map(|text| places.get(text.as_str())).flatten().copied().collect();
            let (name, count) = (&one.name, one.events.len());
            match one.ending {
                Ending::Committed if there.len() != count => {
                    broken
                        .push(format!("transaction {name} was committed: {} of {count} events are there", there.len()));
                }
                Ending::Aborted if !there.is_empty() => {
                    broken.push(format!("transaction {name} was aborted: {:?} is there", there[0]));
                }
                Ending::Unknown if !there.is_empty() && there.len() != count => {
                    broken.push(format!("transaction {name}: {} of {count} events are there", there.len()));
                }
                _ => {}
            }
            let mut of_segment: BTreeMap<SegmentId, Vec<u64>> = BTreeMap::new();
            for seen in there {
                of_segment.entry(seen.segment).or_default().push(seen.offset);
            }
            for (segment, offsets) in of_segment {
                if offsets.windows(2).any(|pair| pair[0] + 1 != pair[1]) {
                    broken.push(format!("transaction {name} is scattered over {offsets:?} of {segment}"));
                }
            }
        }
        broken
    }

    /// Whether it was truncated.
    pub(crate) fn is_before_head(&self, seen: &Seen) -> bool {
        let cut = self.head.0.get(&seen.segment);
        self.forgotten.contains(&seen.segment) || cut.is_some_and(|&offset| seen.offset < offset)
    }

    /// Each event came to one reader of the group, once; what was truncated may have come to none.
    fn shared(&self, live: &[Seen], shared: &[Seen]) -> Vec<String> {
        let mut broken = Vec::new();
        let live: BTreeSet<&Seen> = live.iter().collect();
        let mut there = BTreeSet::new();
        for seen in shared {
            if !there.insert(seen) {
                broken.push(format!("{seen:?} came to the readers of a group twice"));
            }
            if !live.contains(seen) {
                broken.push(format!("{seen:?} came to a reader of a group, and was not there"));
            }
        }
        for seen in live.difference(&there).filter(|seen| !self.is_before_head(seen)) {
            broken.push(format!("{seen:?} came to no reader of a group"));
        }
        broken
    }

    /// What is read again is what was read, at the same places, from the head on and not before it.
    fn same(&self, live: &[Seen], again: &[Seen]) -> Vec<String> {
        let mut broken = Vec::new();
        let live: BTreeMap<_, _> = live.iter().map(|seen| ((seen.segment, seen.offset), seen)).collect();
        let again: BTreeMap<_, _> = again.iter().map(|seen| ((seen.segment, seen.offset), seen)).collect();
        for (place, seen) in &again {
            if self.is_before_head(seen) {
                broken.push(format!("{seen:?} was truncated and is read"));
            } else if live.get(place).is_none_or(|before| before.text != seen.text) {
                broken.push(format!("{seen:?} was {:?} before", live.get(place).map(|before| &before.text)));
            }
        }
        for (place, seen) in &live {
            if !self.is_before_head(seen) && !again.contains_key(place) {
                broken.push(format!("{seen:?} was read once and never again"));
            }
        }
        broken
    }
}

/// Each segment without gaps and repeats.
fn places(seen: &[Seen], what: &str) -> Vec<String> {
    let mut next = BTreeMap::new();
    let mut broken = Vec::new();
    for one in seen {
        let due = next.entry(one.segment).or_insert(one.offset);
        if *due != one.offset {
            broken.push(format!("{what}: {one:?} where offset {due} was due"));
        }
        *due = one.offset + 1;
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };
    const B: SegmentId = SegmentId { stream: 1, epoch: 1, number: 1 };

    fn seen(all: &[(SegmentId, u64, &str)]) -> Vec<Seen> {
        all.iter().map(|&(segment, offset, text)| Seen { segment, offset, text: text.to_owned() }).collect()
    }

    fn promises() -> Promises {
        let transacted = |name: &str, events: &[&str], ending| Transacted {
            name: name.to_owned(),
            events: events.iter().map(|&text| text.to_owned()).collect(),
            ending,
        };
        Promises {
            keys: BTreeMap::from([("k".to_owned(), 3)]),
            transactions: vec![
                transacted("yes", &["yes.a 0", "yes.a 1"], Ending::Committed),
                transacted("no", &["no.a 0"], Ending::Aborted),
                transacted("who", &["who.a 0", "who.a 1"], Ending::Unknown),
            ],
            head: StreamCut(BTreeMap::from([(B, 1)])),
            forgotten: BTreeSet::from([A]),
        }
    }

    fn truth() -> Vec<(SegmentId, u64, &'static str)> {
        vec![(A, 0, "k 0"), (A, 1, "yes.a 0"), (A, 2, "yes.a 1"), (B, 0, "k 1"), (B, 1, "k 2")]
    }

    /// An oracle that cannot say no proves nothing.
    #[test]
    fn every_lie_is_noticed() {
        let again = vec![(B, 1, "k 2")];
        let check = |live: &[(SegmentId, u64, &str)], again: &[(SegmentId, u64, &str)], words: &str| {
            let broken = promises().broken(&seen(live), &seen(again), &seen(live));
            match words {
                "" => assert!(broken.is_empty(), "{broken:?}"),
                words => assert!(broken.iter().any(|one| one.contains(words)), "{words}: {broken:?}"),
            }
        };
        let without = |text: &str| truth().into_iter().filter(|(_, _, t)| *t != text).collect::<Vec<_>>();
        let with = |one| truth().into_iter().chain([one]).collect::<Vec<_>>();
        check(&truth(), &again, "");
        check(&without("k 2"), &[], "3 were acknowledged, 2 are there");
        check(&without("yes.a 1"), &again, "1 of 2 events are there");
        check(&with((B, 2, "k 2")), &again, "where number 3 was due");
        check(&with((B, 2, "no.a 0")), &again, "was aborted");
        check(&with((B, 2, "who.a 0")), &again, "transaction who: 1 of 2");
        check(&with((B, 2, "ghost 7")), &again, "was never sent");
        check(&with((B, 3, "k 3")), &again, "where offset 2 was due");
        check(&truth(), &[], "never again");
        check(&truth(), &[(B, 1, "k 1")], "before");
        check(&truth(), &[(B, 0, "k 1"), (B, 1, "k 2")], "truncated and is read");
        check(&truth(), &[(A, 2, "yes.a 1"), (B, 1, "k 2")], "truncated and is read");
        let swapped = [(A, 0, "k 1"), (A, 1, "k 0"), (A, 2, "k 2"), (A, 3, "yes.a 0"), (A, 4, "yes.a 1")];
        check(&swapped, &[], "where number 0 was due");
        let scattered = [(A, 0, "yes.a 0"), (A, 1, "k 0"), (A, 2, "yes.a 1"), (A, 3, "k 1"), (A, 4, "k 2")];
        check(&scattered, &[], "scattered");
        let shared =
            |shared: &[(SegmentId, u64, &str)]| promises().broken(&seen(&truth()), &seen(&again), &seen(shared));
        assert!(shared(&again).is_empty(), "what was truncated need not have come to anybody");
        assert!(shared(&without("k 2"))[0].contains("came to no reader"));
        assert!(shared(&with((B, 1, "k 2")))[0].contains("twice"));
        assert!(shared(&with((B, 2, "k 3")))[0].contains("was not there"));
        assert_eq!(promises().count(), 5);
    }
}
