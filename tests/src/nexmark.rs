//! Nexmark's persons, auctions and bids as NDJSON, in the benchmark's own proportions: of fifty events one is a person, three are auctions, the rest are bids.
//!
//! Half of the bids go to a hot auction, three quarters come from a hot bidder and three quarters of the auctions from a hot seller.
//! Source: Nexmark (github.com/nexmark/nexmark), the generator's defaults. A kind of event has files of its own; every file holds a share of the whole span.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::Result;
use jiff::Timestamp;

use crate::seeded::Seeded;

const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
const ALL: u64 = 50;
/// Ids begin here.
const FIRST: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// Auctions that are bid for at one time, and persons that are active.
const AUCTIONS_OPEN: u64 = 100;
const PERSONS_ACTIVE: u64 = 1_000;
/// Ids that are named before they exist.
const LEAD: u64 = 10;
/// One in so many is not hot.
const HOT_AUCTION: u64 = 2;
const HOT_BIDDER: u64 = 4;
const HOT_SELLER: u64 = 4;
/// The hot one is the first of so many.
const HOT_EVERY: u64 = 100;
/// Events in a second of event time.
const RATE: u64 = 10_000;
/// 2026-01-01, in milliseconds.
const START_MS: i64 = 1_767_225_600_000;
const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Somebody registers.
    Person {
        /// Who.
        id: u64,
        /// First and last name.
        name: String,
    },
    /// Something is offered.
    Auction {
        /// Which auction.
        id: u64,
        /// Whose.
        seller: u64,
    },
    /// Somebody bids.
    Bid {
        /// For what.
        auction: u64,
        /// Who.
        bidder: u64,
        /// How much.
        price: u64,
    },
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NexmarkEvent {
    /// Event time in milliseconds.
    pub time: i64,
    /// What happened.
    pub what: What,
    /// The line, without its end.
    pub line: String,
}

/// Events of a seed, one after the other in event time.
#[derive(Debug)]
pub struct Nexmark {
    random: Seeded,
    next: u64,
    count: u64,
}

impl Nexmark {
    /// The first `count` events of a seed.
    pub fn new(seed: u64, count: u64) -> Self {
        Self { random: Seeded::new(seed), next: 0, count }
    }

    /// Writes `person`, `auction` and `bid` below a directory, each as so many files; `see` is shown every event.
    pub fn write(self, dir: &Path, files: u64, mut see: impl FnMut(&NexmarkEvent)) -> Result<()> {
        let mut open = Vec::new();
        for kind in ["person", "auction", "bid"] {
            std::fs::create_dir_all(dir.join(kind))?;
            for number in 0..files {
                let path = dir.join(kind).join(format!("{kind}-{number}.ndjson"));
                open.push(BufWriter::with_capacity(1 << 20, File::create(path)?));
            }
        }
        let mut to = Seeded::new(files);
        for event in self {
            let kind = match event.what {
                What::Person { .. } => 0,
                What::Auction { .. } => 1,
                What::Bid { .. } => 2,
            };
            let file = &mut open[usize::try_from(kind * files + to.below(files))?];
            file.write_all(event.line.as_bytes())?;
            file.write_all(b"\n")?;
            see(&event);
        }
        for mut file in open {
            file.flush()?;
        }
        Ok(())
    }

    /// The newest person, and the newest auction, when event `number` comes; numbers from 0.
    fn newest(number: u64) -> (u64, u64) {
        let (epoch, offset) = (number / ALL, number % ALL);
        let auction = match offset {
            0 => (epoch * AUCTIONS).saturating_sub(1),
            offset => epoch * AUCTIONS + (offset - PERSONS).min(AUCTIONS - 1),
        };
        (epoch, auction)
    }

    fn person(&mut self, newest: u64) -> u64 {
        let active = (newest + 1).min(PERSONS_ACTIVE);
        newest + 1 - active + self.random.below(active + LEAD) + FIRST
    }

    fn price(&mut self) -> u64 {
        // From a dollar to a million, in cents, evenly by magnitude.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 100 to 100 million")]
        let cents = (10f64.powf(self.random.unit() * 6.0) * 100.0).round() as u64;
        cents
    }

    fn text(&mut self, longest: u64) -> String {
        let length = 3 + self.random.below(longest - 3);
        let letter = |random: &mut Seeded| match random.below(13) {
            0 => ' ',
            _ => char::from(b'a' + u8::try_from(random.below(26)).unwrap_or(0)),
        };
        (0..length).map(|_| letter(&mut self.random)).collect()
    }

    fn register(&mut self, id: u64, time: Timestamp) -> Result<(What, String)> {
        let random = &mut self.random;
        let name = format!("{} {}", random.pick(&FIRST_NAMES), random.pick(&LAST_NAMES));
        let (city, state, card) = (random.pick(&CITIES), random.pick(&STATES), random.next() % 10_000_000_000_000_000);
        let (user, host, extra) = (self.text(7), self.text(5), self.text(60));
        let mail = format!("{user}@{host}.com").replace(' ', "_");
        let line = format!(
            "{{\"id\":{id},\"name\":\"{name}\",\"emailAddress\":\"{mail}\",\"creditCard\":\"{card:016}\",\"city\":\"{city}\",\"state\":\"{state}\",\"dateTime\":\"{time:.3}\",\"extra\":\"{extra}\"}}"
        );
        Ok((What::Person { id, name }, line))
    }

    fn offer(&mut self, id: u64, newest: u64, time: Timestamp) -> Result<(What, String)> {
        let seller = match self.random.below(HOT_SELLER) {
            0 => self.person(newest),
            _ => newest / HOT_EVERY * HOT_EVERY + FIRST,
        };
        let (item, description, extra) = (self.text(20), self.text(100), self.text(200));
        let (first, more) = (self.price(), self.price());
        let category = FIRST_CATEGORY + self.random.below(CATEGORIES);
        let expires = Timestamp::from_millisecond(time.as_millisecond() + 1 + self.random.up_to(20_000))?;
        let reserve = first + more;
        let line = format!(
            "{{\"id\":{id},\"itemName\":\"{item}\",\"description\":\"{description}\",\"initialBid\":{first},\"reserve\":{reserve},\"dateTime\":\"{time:.3}\",\"expires\":\"{expires:.3}\",\"seller\":{seller},\"category\":{category},\"extra\":\"{extra}\"}}"
        );
        Ok((What::Auction { id, seller }, line))
    }

    fn bid(&mut self, newest_person: u64, newest_auction: u64, time: Timestamp) -> Result<(What, String)> {
        let auction = match self.random.below(HOT_AUCTION) {
            0 => {
                let oldest = newest_auction.saturating_sub(AUCTIONS_OPEN);
                oldest + self.random.below(newest_auction - oldest + 1 + LEAD)
            }
            _ => newest_auction / HOT_EVERY * HOT_EVERY,
        } + FIRST;
        let bidder = match self.random.below(HOT_BIDDER) {
            0 => self.person(newest_person),
            _ => newest_person / HOT_EVERY * HOT_EVERY + 1 + FIRST,
        };
        let price = self.price();
        let mut channel = String::new();
        match self.random.below(2) {
            0 => channel.push_str(self.random.pick(&CHANNELS)),
            _ => write!(channel, "channel-{}", self.random.below(10_000))?,
        }
        let (path, extra) = (self.random.next() % 1_000_000_000, self.text(60));
        let line = format!(
            "{{\"auction\":{auction},\"bidder\":{bidder},\"price\":{price},\"channel\":\"{channel}\",\"url\":\"https://www.nexmark.com/item.htm?query=1&id={path}\",\"dateTime\":\"{time:.3}\",\"extra\":\"{extra}\"}}"
        );
        Ok((What::Bid { auction, bidder, price }, line))
    }

    fn make(&mut self) -> Result<NexmarkEvent> {
        let number = self.next;
        self.next += 1;
        let time = START_MS + i64::try_from(number.saturating_mul(1_000) / RATE)?;
        let at = Timestamp::from_millisecond(time)?;
        let (person, auction) = Self::newest(number);
        let (what, line) = match number % ALL {
            offset if offset < PERSONS => self.register(person + FIRST, at)?,
            offset if offset < PERSONS + AUCTIONS => self.offer(auction + FIRST, person, at)?,
            _ => self.bid(person, auction, at)?,
        };
        Ok(NexmarkEvent { time, what, line })
    }
}

impl Iterator for Nexmark {
    type Item = NexmarkEvent;

    fn next(&mut self) -> Option<NexmarkEvent> {
        if self.next >= self.count { None } else { self.make().ok() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    #[test]
    fn proportions_and_hot_ones_are_those_of_nexmark() {
        let events: Vec<_> = Nexmark::new(1, 100_000).collect();
        let (mut persons, mut auctions) = (BTreeSet::new(), BTreeSet::new());
        let (mut bids, mut of_auction, mut of_bidder, mut bytes) = (0, BTreeMap::new(), BTreeMap::new(), 0);
        for event in &events {
            match &event.what {
                What::Person { id, .. } => assert!(persons.insert(*id)),
                What::Auction { id, .. } => assert!(auctions.insert(*id)),
                What::Bid { auction, bidder, price } => {
                    bids += 1;
                    bytes += event.line.len() + 1;
                    *of_auction.entry(auction % HOT_EVERY == 0).or_insert(0) += 1;
                    *of_bidder.entry((bidder - FIRST) % HOT_EVERY == 1).or_insert(0) += 1;
                    assert!((100..=100_000_000).contains(price));
                }
            }
        }
        assert_eq!((persons.len(), auctions.len(), bids), (2_000, 6_000, 92_000));
        assert_eq!((persons.first(), persons.last()), (Some(&1_000), Some(&2_999)));
        assert_eq!((auctions.first(), auctions.last()), (Some(&1_000), Some(&6_999)));
        assert!((45_000..48_000).contains(&of_auction[&true]), "{of_auction:?}");
        assert!((68_000..71_000).contains(&of_bidder[&true]), "{of_bidder:?}");
        assert!((180..230).contains(&(bytes / bids)), "{} bytes a bid", bytes / bids);
        let span = events[events.len() - 1].time - events[0].time;
        assert_eq!(span, 9_999, "ten thousand events a second");
    }

    #[test]
    fn every_line_is_what_it_says() {
        let events: Vec<_> = Nexmark::new(2, 5_000).collect();
        assert!(events == Nexmark::new(2, 5_000).collect::<Vec<_>>(), "a seed is a seed");
        for event in &events {
            let line: Value = serde_json::from_str(&event.line).unwrap();
            let time: Timestamp = line["dateTime"].as_str().unwrap().parse().unwrap();
            assert_eq!(time.as_millisecond(), event.time);
            match &event.what {
                What::Person { id, name } => assert!(line["id"] == *id && line["name"] == name.as_str()),
                What::Auction { id, seller } => assert!(line["id"] == *id && line["seller"] == *seller),
                What::Bid { auction, bidder, price } => {
                    assert!(line["auction"] == *auction && line["bidder"] == *bidder && line["price"] == *price);
                }
            }
        }
    }

    #[test]
    fn files_hold_everything_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = 0;
        Nexmark::new(3, 1_000).write(dir.path(), 2, |_| seen += 1).unwrap();
        let lines = |kind: &str, n: u64| {
            let path = dir.path().join(kind).join(format!("{kind}-{n}.ndjson"));
            std::fs::read_to_string(path).unwrap().lines().count()
        };
        let counts = ["person", "auction", "bid"].map(|kind| lines(kind, 0) + lines(kind, 1));
        assert_eq!((seen, counts), (1_000, [20, 60, 920]));
        assert!(lines("bid", 0) > 400 && lines("bid", 1) > 400);
    }
}
