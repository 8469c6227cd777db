//! What both systems are asked, each in its own SQL, and what the answer must be.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use logboom_tests::{
    event_files::{Kind, Line, Mix, SHORT},
    nexmark::{Nexmark, NexmarkEvent, What},
    seeded::mixed,
};
use serde_json::Value;

use super::FILES;

/// Window of the tumbling sums, in milliseconds.
const WINDOW_MS: i64 = 10_000;
const SLIDE_MS: i64 = 2_000;

/// One query over one set of files.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) name: &'static str,
    pub(super) data: Data,
    /// How many times Flink's events per CPU second ours should be.
    pub(super) goal: f64,
    /// Tables that Flink's query reads.
    pub(super) reads: &'static [&'static str],
    /// The columns of the result, as Flink declares them.
    pub(super) columns: &'static str,
    pub(super) flink: &'static str,
    /// The same for us, each table as `{name}`.
    pub(super) ours: &'static str,
}

/// Which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Data {
    /// Events of so many keys.
    Events {
        keys: u64,
    },
    Nexmark,
}

const TUMBLE: &str = "SELECT window_start, k, count(*), sum(v), avg(CAST(v AS DOUBLE)) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(`time`), \
                      INTERVAL '10' SECOND)) GROUP BY window_start, window_end, k";
const TUMBLED: &str = "w TIMESTAMP(3), k BIGINT, n BIGINT, s BIGINT, m DOUBLE";

const OUR_TUMBLE: &str = "SELECT window_start AS w, k, count(*) AS n, sum(v) AS s, avg(v) AS m FROM tumble({events}, INTERVAL '10 seconds', \
                          watermark delay INTERVAL '5 seconds') GROUP BY window_start, k";
/// Tables, with their columns and the one that holds event time.
const OUR_TABLES: [(&str, &str, &str); 4] = [
    ("events", "time timestamp, k bigint, v bigint, mark text, n bigint", "time"),
    (
        "person",
        "id bigint, name text, emailAddress text, creditCard text, city text, state text, dateTime timestamp, extra text",
        "dateTime",
    ),
    (
        "auction",
        "id bigint, itemName text, description text, initialBid bigint, reserve bigint, dateTime timestamp, expires timestamp, seller bigint, \
         category bigint, extra text",
        "dateTime",
    ),
    (
        "bid",
        "auction bigint, bidder bigint, price bigint, channel text, url text, dateTime timestamp, extra text",
        "dateTime",
    ),
];

pub(super) const QUESTIONS: [Question; 8] = [
    Question {
        name: "tumble, 1 000 keys",
        data: Data::Events { keys: 1_000 },
        goal: 8.0,
        reads: &["events"],
        columns: TUMBLED,
        flink: TUMBLE,
        ours: OUR_TUMBLE,
    },
    Question {
        name: "tumble, 100 000 keys",
        data: Data::Events { keys: 100_000 },
        goal: 15.0,
        reads: &["events"],
        columns: TUMBLED,
        flink: TUMBLE,
        ours: OUR_TUMBLE,
    },
    Question {
        name: "Nexmark q0",
        data: Data::Nexmark,
        goal: 5.0,
        reads: &["bid"],
        columns: "auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP_LTZ(3), extra STRING",
        flink: "SELECT auction, bidder, price, `dateTime`, extra FROM bid",
        ours: "SELECT auction, bidder, price, \"dateTime\", extra FROM {bid}",
    },
    Question {
        name: "Nexmark q1",
        data: Data::Nexmark,
        goal: 5.0,
        reads: &["bid"],
        columns: "auction BIGINT, bidder BIGINT, price DECIMAL(23, 3), `dateTime` TIMESTAMP_LTZ(3), extra STRING",
        flink: "SELECT auction, bidder, 0.908 * price, `dateTime`, extra FROM bid",
        ours: "SELECT auction, bidder, 0.908 * price AS price, \"dateTime\", extra FROM {bid}",
    },
    Question {
        name: "Nexmark q2",
        data: Data::Nexmark,
        goal: 5.0,
        reads: &["bid"],
        columns: "auction BIGINT, price BIGINT",
        flink: "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0",
        ours: "SELECT auction, price FROM {bid} WHERE auction % 123 = 0",
    },
    Question {
        name: "Nexmark q5",
        data: Data::Nexmark,
        goal: 5.0,
        reads: &["bid"],
        columns: "auction BIGINT, num BIGINT",
        flink: "SELECT a.auction, a.num FROM (SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime FROM TABLE( \
                HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end) AS a \
                JOIN (SELECT max(c.num) AS maxn, c.starttime, c.endtime FROM (SELECT count(*) AS num, window_start AS starttime, window_end AS endtime \
                FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end) \
                AS c GROUP BY c.starttime, c.endtime) AS m ON a.starttime = m.starttime AND a.endtime = m.endtime AND a.num >= m.maxn",
        ours: "SELECT a.auction, a.num FROM (SELECT auction, window_start, window_end, count(*) AS num FROM hop({bid}, INTERVAL '2 seconds', \
               INTERVAL '10 seconds', watermark delay INTERVAL '4 seconds') GROUP BY auction, window_start, window_end) AS a JOIN \
               (SELECT window_start, window_end, max(num) AS maxn FROM (SELECT auction, window_start, window_end, count(*) AS num \
               FROM hop({bid}, INTERVAL '2 seconds', INTERVAL '10 seconds', watermark delay INTERVAL '4 seconds') \
               GROUP BY auction, window_start, window_end) AS c GROUP BY window_start, window_end) AS m \
               ON a.window_start = m.window_start AND a.window_end = m.window_end AND a.num >= m.maxn",
    },
    Question {
        name: "Nexmark q7",
        data: Data::Nexmark,
        goal: 5.0,
        reads: &["bid"],
        columns: "auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP_LTZ(3), extra STRING",
        flink: "SELECT b.auction, b.bidder, b.price, b.`dateTime`, b.extra FROM bid b JOIN (SELECT max(price) AS maxprice, \
                CAST(window_end AS TIMESTAMP_LTZ(3)) AS `dateTime` FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) \
                GROUP BY window_start, window_end) m ON b.price = m.maxprice \
                WHERE b.`dateTime` BETWEEN m.`dateTime` - INTERVAL '10' SECOND AND m.`dateTime`",
        ours: "SELECT b.auction, b.bidder, b.price, b.\"dateTime\", b.extra FROM {bid} AS b JOIN (SELECT window_start, window_end, \
               max(price) AS maxprice FROM tumble({bid}, INTERVAL '10 seconds', watermark delay INTERVAL '4 seconds') \
               GROUP BY window_start, window_end) AS m ON b.price = m.maxprice AND b._time BETWEEN m.window_start AND m.window_end",
    },
    Question {
        name: "Nexmark q8",
        data: Data::Nexmark,
        goal: 5.0,
        reads: &["person", "auction"],
        columns: "id BIGINT, name STRING, starttime TIMESTAMP(3)",
        flink: "SELECT p.id, p.name, p.starttime FROM (SELECT id, name, window_start AS starttime, window_end AS endtime FROM TABLE( \
                TUMBLE(TABLE person, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) GROUP BY id, name, window_start, window_end) p \
                JOIN (SELECT seller, window_start AS starttime, window_end AS endtime FROM TABLE( \
                TUMBLE(TABLE auction, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) GROUP BY seller, window_start, window_end) a \
                ON p.id = a.seller AND p.starttime = a.starttime AND p.endtime = a.endtime",
        ours: "SELECT p.id, p.name, p.window_start AS starttime FROM (SELECT id, name, window_start, window_end FROM tumble({person}, \
               INTERVAL '10 seconds', watermark delay INTERVAL '4 seconds') GROUP BY id, name, window_start, window_end) AS p JOIN \
               (SELECT seller, window_start, window_end FROM tumble({auction}, INTERVAL '10 seconds', watermark delay INTERVAL '4 seconds') \
               GROUP BY seller, window_start, window_end) AS a ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end",
    },
];

/// A table of Flink's over the files of a folder.
pub(super) fn flink_table(name: &str, folder: &Path) -> String {
    let (columns, time, delay) = match name {
        "events" => ("`time` TIMESTAMP_LTZ(3), k BIGINT, v BIGINT, mark STRING, n BIGINT", "`time`", 5),
        "person" => (
            "id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING, `dateTime` TIMESTAMP_LTZ(3), extra STRING",
            "`dateTime`",
            4,
        ),
        "auction" => (
            "id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT, `dateTime` TIMESTAMP_LTZ(3), \
             expires TIMESTAMP_LTZ(3), seller BIGINT, category BIGINT, extra STRING",
            "`dateTime`",
            4,
        ),
        _ => (
            "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP_LTZ(3), extra STRING",
            "`dateTime`",
            4,
        ),
    };
    format!(
        "CREATE TEMPORARY TABLE {name} ({columns}, WATERMARK FOR {time} AS {time} - INTERVAL '{delay}' SECOND) WITH ('connector' = 'filesystem', \
         'path' = 'file://{}', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601')",
        folder.display()
    )
}

/// The same as a continuous job of ours; what it writes goes to a folder, or nowhere.
pub(super) fn ours(question: &Question, data: &Path, folder: Option<&Path>) -> String {
    let into = match folder {
        Some(folder) => format!("files('file://{}', format => 'ndjson')", folder.display()),
        None => "blackhole()".to_owned(),
    };
    let mut select = question.ours.to_owned();
    for table in question.reads {
        let (columns, time) = OUR_TABLES.iter().find(|(name, ..)| name == table).map_or(("", ""), |(_, c, t)| (*c, *t));
        let folder = data.join(table);
        let from = format!(
            "files('file://{}', format => 'ndjson', time => '{time}', schema => '{columns}')",
            folder.display()
        );
        select = select.replace(&format!("{{{table}}}"), &from);
    }
    format!("INSERT INTO {into} {select}")
}

/// What the answer to a question comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Digest {
    pub(super) rows: u64,
    /// The sum of the rows' hashes; 0 where only rows are counted.
    pub(super) hash: u64,
}

impl Digest {
    /// Takes one row of a tumbling window: start in milliseconds, key, count, sum.
    pub(super) fn take(&mut self, start: i64, key: u64, count: u64, sum: i64) {
        let parts = [start.cast_unsigned(), key, count, sum.cast_unsigned()];
        self.rows += 1;
        self.hash = self.hash.wrapping_add(parts.iter().fold(7, |hash, part| mixed(hash ^ part)));
    }

    /// Takes a line of our NDJSON.
    pub(super) fn take_json(&mut self, line: &str) -> Result<()> {
        let row: Value = serde_json::from_str(line)?;
        let start: Timestamp = row["w"].as_str().context("a row without w")?.parse()?;
        let number = |name: &str| row[name].as_i64().with_context(|| format!("no whole number {name} in {line}"));
        self.take(start.as_millisecond(), number("k")?.cast_unsigned(), number("n")?.cast_unsigned(), number("s")?);
        Ok(())
    }

    /// Takes a line of Flink's CSV.
    pub(super) fn take_csv(&mut self, line: &str) -> Result<()> {
        let parts: Vec<&str> = line.split(',').map(|part| part.trim_matches('"')).collect();
        let time: Timestamp = format!("{}Z", parts[0].replace(' ', "T").trim_end_matches('Z')).parse()?;
        self.take(time.as_millisecond(), parts[1].parse()?, parts[2].parse()?, parts[3].parse()?);
        Ok(())
    }
}

/// The files of a data set, and what every question about it must come to.
pub(super) struct Prepared {
    /// Events of the files that a question reads, by its name.
    pub(super) events: BTreeMap<&'static str, u64>,
    pub(super) expected: BTreeMap<&'static str, Digest>,
}

/// Writes the files of a data set below a folder.
pub(super) fn prepare(data: Data, rows: u64, folder: &Path) -> Result<Prepared> {
    let mut prepared = Prepared { events: BTreeMap::new(), expected: BTreeMap::new() };
    match data {
        Data::Events { keys } => {
            let mix = Mix { files: FILES, names: SHORT, ..Mix::disordered(1, rows, keys) };
            let mut sums = Sums::default();
            std::fs::create_dir_all(folder.join("events"))?;
            mix.write(&folder.join("events"), |line| sums.take(line))?;
            let name = QUESTIONS.iter().find(|question| question.data == data).map_or("", |question| question.name);
            prepared.events.insert(name, rows);
            prepared.expected.insert(name, sums.digest());
        }
        Data::Nexmark => {
            let mut seen = Reckoned::default();
            Nexmark::new(1, rows).write(folder, FILES, |event| seen.take(event))?;
            for (question, count) in seen.counts() {
                prepared.expected.insert(question, Digest { rows: count, hash: 0 });
            }
            for question in QUESTIONS.iter().filter(|question| question.data == data) {
                let of_kind = |kind: &&str| seen.of_kind.get(*kind).copied().unwrap_or(0);
                prepared.events.insert(question.name, question.reads.iter().map(of_kind).sum());
            }
        }
    }
    Ok(prepared)
}

#[derive(Default)]
struct Sums(HashMap<(i64, u64), (u64, i64)>);

impl Sums {
    fn take(&mut self, line: &Line) {
        if let Kind::Dated { time } = line.kind {
            let sums = self.0.entry((time.div_euclid(WINDOW_MS) * WINDOW_MS, line.key)).or_default();
            *sums = (sums.0 + 1, sums.1 + line.value);
        }
    }

    fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        self.0.iter().for_each(|((start, key), (count, sum))| digest.take(*start, *key, *count, *sum));
        digest
    }
}

/// What Nexmark's questions come to, reckoned event by event.
#[derive(Default)]
struct Reckoned {
    of_kind: BTreeMap<&'static str, u64>,
    every_123rd: u64,
    /// Bids by beginning of the slide and auction.
    slides: BTreeMap<i64, HashMap<u64, u64>>,
    /// Times and prices by window.
    highest: BTreeMap<i64, u64>,
    /// Times of bids by price, of those prices that were ever the highest of a window.
    prices: Vec<(i64, u64)>,
    persons: HashSet<(i64, u64)>,
    sellers: HashSet<(i64, u64)>,
}

impl Reckoned {
    fn take(&mut self, event: &NexmarkEvent) {
        let floor = |unit: i64| event.time.div_euclid(unit) * unit;
        let window = floor(WINDOW_MS);
        match &event.what {
            What::Person { id, .. } => {
                *self.of_kind.entry("person").or_default() += 1;
                self.persons.insert((window, *id));
            }
            What::Auction { seller, .. } => {
                *self.of_kind.entry("auction").or_default() += 1;
                self.sellers.insert((window, *seller));
            }
            What::Bid { auction, price, .. } => {
                *self.of_kind.entry("bid").or_default() += 1;
                self.every_123rd += u64::from(auction % 123 == 0);
                *self.slides.entry(floor(SLIDE_MS)).or_default().entry(*auction).or_default() += 1;
                let highest = self.highest.entry(window).or_default();
                *highest = (*highest).max(*price);
                self.prices.push((event.time, *price));
            }
        }
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let bids = self.of_kind.get("bid").copied().unwrap_or(0);
        vec![
            ("Nexmark q0", bids),
            ("Nexmark q1", bids),
            ("Nexmark q2", self.every_123rd),
            ("Nexmark q5", self.hot_items()),
            ("Nexmark q7", self.highest_bids()),
            ("Nexmark q8", self.persons.intersection(&self.sellers).count() as u64),
        ]
    }

    /// Auctions with the most bids of each hopping window.
    fn hot_items(&self) -> u64 {
        let Some((first, last)) = self.slides.keys().next().zip(self.slides.keys().next_back()) else { return 0 };
        let mut rows = 0;
        let mut start = first - WINDOW_MS + SLIDE_MS;
        while start <= *last {
            let mut bids = HashMap::<u64, u64>::new();
            for slide in self.slides.range(start..start + WINDOW_MS).map(|(_, slide)| slide) {
                slide.iter().for_each(|(auction, count)| *bids.entry(*auction).or_default() += count);
            }
            let most = bids.values().max().copied().unwrap_or(0);
            rows += bids.values().filter(|count| **count == most).count() as u64;
            start += SLIDE_MS;
        }
        rows
    }

    /// Bids with the highest price of a window, from its beginning until its end, the end among it.
    fn highest_bids(&self) -> u64 {
        let is_highest = |start: i64, price: u64| u64::from(self.highest.get(&start) == Some(&price));
        let of = |(time, price): &(i64, u64)| {
            let start = time.div_euclid(WINDOW_MS) * WINDOW_MS;
            let before = if start == *time { is_highest(start - WINDOW_MS, *price) } else { 0 };
            is_highest(start, *price) + before
        };
        self.prices.iter().map(of).sum()
    }
}
