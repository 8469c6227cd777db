//! Nexmark's persons, auctions and bids, made up from a seed.
//!
//! Of fifty events one is a person, three are auctions, the rest are bids. Half of the bids go to a hot auction, three quarters come
//! from a hot bidder, and three quarters of the auctions from a hot seller. Event `n` is the same whoever asks for it and whatever was
//! asked before: each of its values follows from the seed, `n` and the column. So a reader can begin anywhere, and a column that
//! nobody uses costs nothing. Splits take turns with fifty events each.
//!
//! Source: Nexmark (github.com/nexmark/nexmark), the generator's defaults; the random numbers are our own.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};

use crate::{Column, Error, Kind, Layout, TIME_COLUMN};

/// Events of a round: a person, then auctions, then bids.
const ROUND: u64 = 50;
const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
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
const COLD_AUCTION: u64 = 2;
const COLD_BIDDER: u64 = 4;
const COLD_SELLER: u64 = 4;
/// The hot one is the first of so many.
const HOT_EVERY: u64 = 100;
/// Event time of the first event: 2026-01-01, in milliseconds.
const BEGIN_MS: u64 = 1_767_225_600_000;
/// An auction ends within so many milliseconds.
const AUCTION_MS: u64 = 20_000;
const MILLI: i64 = 1_000_000;
const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// The column of the event time.
const DATE_TIME: &str = "dateTime";

/// A kind of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Who offers and bids.
    Person,
    /// What is offered.
    Auction,
    /// What is bid.
    Bid,
}

impl Table {
    /// Its columns. The event time is `dateTime`, which a layout names as such.
    pub fn columns(self) -> Vec<Column> {
        let integer = |name| Column::new(name, Kind::Integer);
        let text = |name| Column::new(name, Kind::Text);
        let time = |name| Column::new(name, Kind::Time);
        match self {
            Self::Person => vec![
                integer("id"),
                text("name"),
                text("emailAddress"),
                text("creditCard"),
                text("city"),
                text("state"),
                time(DATE_TIME),
                text("extra"),
            ],
            Self::Auction => vec![
                integer("id"),
                text("itemName"),
                text("description"),
                integer("initialBid"),
                integer("reserve"),
                time(DATE_TIME),
                time("expires"),
                integer("seller"),
                integer("category"),
                text("extra"),
            ],
            Self::Bid => vec![
                integer("auction"),
                integer("bidder"),
                integer("price"),
                text("channel"),
                text("url"),
                time(DATE_TIME),
                text("extra"),
            ],
        }
    }

    /// Where its events begin in a round, and how many there are.
    fn of_round(self) -> (u64, u64) {
        match self {
            Self::Person => (0, PERSONS),
            Self::Auction => (PERSONS, AUCTIONS),
            Self::Bid => (PERSONS + AUCTIONS, ROUND - PERSONS - AUCTIONS),
        }
    }
}

/// The rows of one split of one table.
#[derive(Debug, Clone)]
pub struct Nexmark {
    table: Table,
    layout: Layout,
    seed: u64,
    /// Events of all kinds in a second of event time.
    rate: u64,
    split: u64,
    splits: u64,
    rows: u64,
}

impl Nexmark {
    /// Rows of the layout's columns; `events` counts those of all kinds and splits, `None` is without end; `rate` is that of event time.
    ///
    /// Errors: `Schema` if the table has no such column, or has it with another type.
    pub fn new(
        table: Table,
        layout: Layout,
        seed: u64,
        (events, rate): (Option<u64>, u64),
        (split, splits): (u32, u32),
    ) -> Result<Self, Error> {
        let columns = table.columns();
        for column in &layout.columns {
            let known = columns.iter().find(|known| known.name == column.name);
            if known.is_none_or(|known| known.kind != column.kind) {
                let names: Vec<String> = columns.iter().map(|c| format!("{} ({})", c.name, c.kind.word())).collect();
                let problem = format!("{:?} is no column of this table, which has {}", column.name, names.join(", "));
                return Err(Error::Schema(problem));
            }
        }
        let (split, splits) = (u64::from(split), u64::from(splits.max(1)));
        let rows = events.map_or(u64::MAX, |events| rows(table, events, split, splits));
        Ok(Self { table, layout, seed, rate: rate.max(1), split, splits, rows })
    }

    /// How many rows there are; `u64::MAX` without end.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The rows from that one on, as many as are asked for and there. Bounds: `count` rows of up to about 400 bytes.
    pub fn batch(&self, first: u64, count: usize) -> Result<RecordBatch, Error> {
        let count = u64::try_from(count).unwrap_or(u64::MAX).min(self.rows.saturating_sub(first));
        let numbers: Vec<u64> = (first..first + count).map(|row| self.number(row)).collect();
        let columns = self.layout.schema().fields().iter().map(|field| self.column(field.name(), &numbers)).collect();
        Ok(RecordBatch::try_new(Arc::clone(self.layout.schema()), columns)?)
    }

    /// The number of a row among the events of all kinds and splits.
    fn number(&self, row: u64) -> u64 {
        let (base, each) = self.table.of_round();
        let round = (row / each).saturating_mul(self.splits).saturating_add(self.split);
        round.saturating_mul(ROUND).saturating_add(base + row % each)
    }

    fn column(&self, name: &str, numbers: &[u64]) -> ArrayRef {
        let integers = |of: &dyn Fn(u64) -> u64| -> ArrayRef {
            Arc::new(numbers.iter().map(|n| Some(signed(of(*n)))).collect::<Int64Array>())
        };
        let texts = |of: &dyn Fn(&mut Random) -> String| -> ArrayRef {
            Arc::new(numbers.iter().map(|n| Some(of(&mut self.random(*n, name)))).collect::<StringArray>())
        };
        let times = |of: &dyn Fn(u64) -> u64| -> ArrayRef {
            let nanos = |n: &u64| Some(signed(of(*n)).saturating_mul(MILLI));
            Arc::new(numbers.iter().map(nanos).collect::<TimestampNanosecondArray>())
        };
        match (self.table, name) {
            (_, TIME_COLUMN | DATE_TIME) => times(&|n| self.time(n)),
            (Table::Auction, "expires") => times(&|n| self.time(n) + 1 + self.random(n, name).below(AUCTION_MS)),
            (Table::Person, "id") => integers(&|n| newest(n).0 + FIRST),
            (Table::Auction, "id") => integers(&|n| newest(n).1 + FIRST),
            (Table::Auction, "seller") => integers(&|n| self.seller(n)),
            (Table::Auction, "category") => integers(&|n| FIRST_CATEGORY + self.random(n, name).below(CATEGORIES)),
            (Table::Auction, "initialBid") => integers(&|n| self.random(n, name).price()),
            (Table::Auction, "reserve") => {
                integers(&|n| self.random(n, "initialBid").price() + self.random(n, name).price())
            }
            (Table::Bid, "auction") => integers(&|n| self.auction(n)),
            (Table::Bid, "bidder") => integers(&|n| self.bidder(n)),
            (Table::Bid, "price") => integers(&|n| self.random(n, name).price()),
            (Table::Person, "name") => texts(&|r| format!("{} {}", r.pick(&FIRST_NAMES), r.pick(&LAST_NAMES))),
            (Table::Person, "emailAddress") => texts(&|r| format!("{}@{}.com", r.text(7), r.text(5)).replace(' ', "_")),
            (Table::Person, "creditCard") => texts(&|r| format!("{:016}", r.next() % 10_000_000_000_000_000)),
            (Table::Person, "city") => texts(&|r| r.pick(&CITIES).to_owned()),
            (Table::Person, "state") => texts(&|r| r.pick(&STATES).to_owned()),
            (Table::Auction, "itemName") => texts(&|r| r.text(20)),
            (Table::Auction, "description") => texts(&|r| r.text(100)),
            (Table::Bid, "channel") => texts(&|r| match r.below(2) {
                0 => r.pick(&CHANNELS).to_owned(),
                _ => format!("channel-{}", r.below(10_000)),
            }),
            (Table::Bid, "url") => {
                texts(&|r| format!("https://www.nexmark.com/item.htm?query=1&id={}", r.next() % 1_000_000_000))
            }
            (Table::Auction, _) => texts(&|r| r.text(200)),
            (Table::Person | Table::Bid, _) => texts(&|r| r.text(60)),
        }
    }

    /// Event time in milliseconds.
    fn time(&self, number: u64) -> u64 {
        let since = u128::from(number) * 1_000 / u128::from(self.rate);
        BEGIN_MS.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)).min(i64::MAX.unsigned_abs() / 1_000_000)
    }

    fn seller(&self, number: u64) -> u64 {
        let (mut random, newest) = (self.random(number, "seller"), newest(number).0);
        match random.below(COLD_SELLER) {
            0 => random.person(newest),
            _ => newest / HOT_EVERY * HOT_EVERY + FIRST,
        }
    }

    fn auction(&self, number: u64) -> u64 {
        let (mut random, newest) = (self.random(number, "auction"), newest(number).1);
        let hot = random.below(COLD_AUCTION) != 0;
        let oldest = newest.saturating_sub(AUCTIONS_OPEN);
        FIRST + if hot { newest / HOT_EVERY * HOT_EVERY } else { oldest + random.below(newest - oldest + 1 + LEAD) }
    }

    fn bidder(&self, number: u64) -> u64 {
        let (mut random, newest) = (self.random(number, "bidder"), newest(number).0);
        match random.below(COLD_BIDDER) {
            0 => random.person(newest),
            _ => newest / HOT_EVERY * HOT_EVERY + 1 + FIRST,
        }
    }

    fn random(&self, number: u64, column: &str) -> Random {
        let column = column.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
        Random(mixed(self.seed ^ mixed(number ^ mixed(column))))
    }
}

/// The newest person, and the newest auction, when event `number` comes; both count from 0.
fn newest(number: u64) -> (u64, u64) {
    let (round, offset) = (number / ROUND, number % ROUND);
    let auction = match offset {
        0 => (round * AUCTIONS).saturating_sub(1),
        offset => round * AUCTIONS + (offset - PERSONS).min(AUCTIONS - 1),
    };
    (round, auction)
}

/// Rows of a split of a table among the first `events`.
fn rows(table: Table, events: u64, split: u64, splits: u64) -> u64 {
    let (base, each) = table.of_round();
    let (rounds, rest) = (events / ROUND, events % ROUND);
    let whole = rounds / splits + u64::from(split < rounds % splits);
    let last = if rounds % splits == split { rest.saturating_sub(base).min(each) } else { 0 };
    whole * each + last
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// From 0 to below the bound.
    fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let place = self.below(u64::try_from(from.len()).unwrap_or(0));
        usize::try_from(place).ok().and_then(|place| from.get(place)).copied().unwrap_or_default()
    }

    fn person(&mut self, newest: u64) -> u64 {
        let active = (newest + 1).min(PERSONS_ACTIVE);
        newest + 1 - active + self.below(active + LEAD) + FIRST
    }

    /// From a dollar to a million, in cents, evenly by magnitude.
    fn price(&mut self) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 100 to 100 million")]
        let cents = (10f64.powf(unit * 6.0) * 100.0).round() as u64;
        cents
    }

    fn text(&mut self, longest: u64) -> String {
        let length = 3 + self.below(longest - 3);
        let letter = |random: &mut Self| match random.below(13) {
            0 => ' ',
            _ => char::from(b'a' + u8::try_from(random.below(26)).unwrap_or(0)),
        };
        (0..length).map(|_| letter(self)).collect()
    }
}

/// Every bit of the result depends on every bit of the number.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
#[path = "nexmark_tests.rs"]
mod tests;
