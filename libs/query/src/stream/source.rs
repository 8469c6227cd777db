//! Where rows come from besides an index: files, generators, streams of messages.

use sqlparser::{ast::FunctionArg, tokenizer::Location};
use types::IndexName;

use super::{
    argument::{Arguments, text},
    kind::{Columns, ValueKind, schema},
};
use crate::{Diagnostic, text::at};

/// The functions that name an input.
pub(crate) const INPUTS: [&str; 4] = ["files", "datagen", "nexmark", "jetstream"];

/// Most splits of a generator.
const SPLITS_MAX: u32 = 1_024;

const FILES: &str =
    "write files('<directory>', format => 'ndjson', schema => 'k bigint, v double, at timestamp', time => 'at')";
const DATAGEN: &str = "write datagen(schema => 'k bigint, v double', seed => 1, rows => 1000)";
const NEXMARK: &str = "write nexmark('bid', seed => 1, events => 1000000)";
const JETSTREAM: &str =
    "write jetstream('<stream>', format => 'ndjson', schema => 'k bigint, at timestamp', time => 'at')";

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// An index.
    Index(IndexName),
    /// Files.
    Files {
        /// The URL of a file or directory.
        url: String,
        /// Their format.
        format: Format,
        /// Their rows.
        rows: Declared,
        /// Whether new files are looked for for ever.
        follow: bool,
    },
    /// Rows made up from a seed.
    Datagen {
        /// The declared columns.
        columns: Columns,
        /// The seed.
        seed: u64,
        /// How many; `None`: without end.
        rows: Option<u64>,
        /// How many a second; `None`: as fast as they are taken.
        per_second: Option<u64>,
        /// How many splits.
        splits: u32,
    },
    /// Events of the Nexmark benchmark.
    Nexmark {
        /// Which of them.
        table: NexmarkTable,
        /// The seed.
        seed: u64,
        /// Events of all kinds together; `None`: without end.
        events: Option<u64>,
        /// Events a second of their own time; `None`: as the benchmark has it.
        rate: Option<u64>,
        /// How many splits.
        splits: u32,
    },
    /// A stream of NATS JetStream.
    JetStream {
        /// The stream.
        stream: String,
        /// Which of its subjects; empty: all.
        subject: String,
        /// The format of a message.
        format: Format,
        /// Its rows.
        rows: Declared,
    },
}

/// What rows of another make look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// The declared columns; none: as they come.
    pub columns: Columns,
    /// The column of the event time; `None`: `_time`.
    pub time: Option<String>,
    /// What a number of event time counts.
    pub unit: TimeUnit,
    /// What becomes of rows that cannot be read.
    pub corrupt: CorruptRows,
}

/// The format of files and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object per line.
    Ndjson,
    /// Separated values.
    Csv {
        /// Between two values.
        delimiter: char,
        /// Whether the first line has the names.
        header: bool,
    },
    /// Parquet.
    Parquet,
}

/// What a number of event time counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// Milliseconds.
    #[default]
    Millis,
    /// Seconds.
    Seconds,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// What becomes of rows that cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CorruptRows {
    /// The job fails.
    #[default]
    Fail,
    /// They are left out, and counted.
    Drop,
    /// They go where `ON ERROR INTO` says.
    DeadLetter,
}

/// A kind of events of Nexmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NexmarkTable {
    /// Who offers and bids.
    Person,
    /// What is offered.
    Auction,
    /// What is bid.
    Bid,
}

impl NexmarkTable {
    fn columns(self) -> Columns {
        use ValueKind::{Integer, Text, Time};
        let columns: &[(&str, ValueKind)] = match self {
            Self::Person => &[
                ("id", Integer),
                ("name", Text),
                ("emailAddress", Text),
                ("creditCard", Text),
                ("city", Text),
                ("state", Text),
                ("dateTime", Time),
                ("extra", Text),
            ],
            Self::Auction => &[
                ("id", Integer),
                ("itemName", Text),
                ("description", Text),
                ("initialBid", Integer),
                ("reserve", Integer),
                ("dateTime", Time),
                ("expires", Time),
                ("seller", Integer),
                ("category", Integer),
                ("extra", Text),
            ],
            Self::Bid => &[
                ("auction", Integer),
                ("bidder", Integer),
                ("price", Integer),
                ("channel", Text),
                ("url", Text),
                ("dateTime", Time),
                ("extra", Text),
            ],
        };
        columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()
    }
}

impl Input {
    /// The declared columns; none: as rows come.
    pub fn columns(&self) -> Columns {
        match self {
            Self::Index(_) => Columns::new(),
            Self::Files { rows, .. } | Self::JetStream { rows, .. } => rows.columns.clone(),
            Self::Datagen { columns, .. } => columns.clone(),
            Self::Nexmark { table, .. } => table.columns(),
        }
    }

    /// The index that it is.
    pub fn index(&self) -> Option<&IndexName> {
        match self {
            Self::Index(index) => Some(index),
            _ => None,
        }
    }

    /// What becomes of rows that cannot be read.
    pub fn corrupt(&self) -> CorruptRows {
        match self {
            Self::Files { rows, .. } | Self::JetStream { rows, .. } => rows.corrupt,
            _ => CorruptRows::Fail,
        }
    }
}

/// Reads the call of one of [`INPUTS`].
pub(crate) fn input(name: &str, place: Location, args: &[FunctionArg]) -> Result<Input, Diagnostic> {
    match name {
        "files" => files(place, args),
        "datagen" => datagen(place, args),
        "nexmark" => nexmark(place, args),
        _ => jetstream(place, args),
    }
}

fn files(place: Location, args: &[FunctionArg]) -> Result<Input, Diagnostic> {
    let mut given = Arguments::of("files", place, args, FILES)?;
    let url = url(&mut given, "files")?;
    let format = format(&mut given)?;
    let rows = declared(&mut given)?;
    let follow = given.flag("follow")?.unwrap_or(false);
    given.end(&["format", "schema", "time", "unit", "follow", "corrupt", "delimiter", "header"])?;
    Ok(Input::Files { url, format, rows, follow })
}

fn jetstream(place: Location, args: &[FunctionArg]) -> Result<Input, Diagnostic> {
    let mut given = Arguments::of("jetstream", place, args, JETSTREAM)?;
    let (stream, at_stream) = text(given.next("the name of a stream")?, "the name of a stream")?;
    if stream.is_empty() {
        return Err(at(at_stream, "a stream has a name").help(JETSTREAM));
    }
    let subject = given.text("subject")?.map(|(subject, _)| subject).unwrap_or_default();
    let format = format(&mut given)?;
    let rows = declared(&mut given)?;
    given.end(&["subject", "format", "schema", "time", "unit", "corrupt", "delimiter", "header"])?;
    Ok(Input::JetStream { stream, subject, format, rows })
}

fn datagen(place: Location, args: &[FunctionArg]) -> Result<Input, Diagnostic> {
    let mut given = Arguments::of("datagen", place, args, DATAGEN)?;
    let columns = schema(&mut given)?;
    if columns.is_empty() {
        return Err(at(place, "datagen needs the columns that it makes up").help(DATAGEN));
    }
    let seed = given.number("seed")?.map_or(1, |(seed, _)| seed);
    let rows = given.number("rows")?.map(|(rows, _)| rows);
    let per_second = given.number("per_second")?.map(|(rows, _)| rows);
    let splits = given.count("splits", SPLITS_MAX)?.unwrap_or(1);
    given.end(&["schema", "seed", "rows", "per_second", "splits"])?;
    Ok(Input::Datagen { columns, seed, rows, per_second, splits })
}

fn nexmark(place: Location, args: &[FunctionArg]) -> Result<Input, Diagnostic> {
    let mut given = Arguments::of("nexmark", place, args, NEXMARK)?;
    let table = text(given.next("which events")?, "the kind of events")?;
    let tables = [NexmarkTable::Bid, NexmarkTable::Auction, NexmarkTable::Person];
    let table = tables[one_of(Some(table), "kind of events", &["bid", "auction", "person"])?];
    let seed = given.number("seed")?.map_or(1, |(seed, _)| seed);
    let events = given.number("events")?.map(|(events, _)| events);
    let rate = given.number("rate")?.map(|(rate, _)| rate);
    let splits = given.count("splits", SPLITS_MAX)?.unwrap_or(1);
    given.end(&["seed", "events", "rate", "splits"])?;
    Ok(Input::Nexmark { table, seed, events, rate, splits })
}

/// The first argument, which is a place of files.
pub(crate) fn url(given: &mut Arguments<'_>, function: &str) -> Result<String, Diagnostic> {
    let found = given.next("the URL of a file or directory")?;
    let (url, place) = text(found, "the place of files")?;
    if url.is_empty() {
        return Err(at(place, format!("{function} need a place")).help(FILES));
    }
    Ok(url)
}

/// `format`, `delimiter` and `header`.
pub(crate) fn format(given: &mut Arguments<'_>) -> Result<Format, Diagnostic> {
    let delimiter = match given.text("delimiter")? {
        None => ',',
        Some((text, place)) => match text.chars().collect::<Vec<_>>().as_slice() {
            [one] if one.is_ascii() => *one,
            _ => return Err(at(place, "a delimiter is one character of ASCII")),
        },
    };
    let header = given.flag("header")?.unwrap_or(true);
    Ok(match one_of(given.text("format")?, "format", &["ndjson", "csv", "parquet"])? {
        0 => Format::Ndjson,
        1 => Format::Csv { delimiter, header },
        _ => Format::Parquet,
    })
}

fn declared(given: &mut Arguments<'_>) -> Result<Declared, Diagnostic> {
    let units = [TimeUnit::Millis, TimeUnit::Seconds, TimeUnit::Micros, TimeUnit::Nanos];
    let unit = units[one_of(given.text("unit")?, "unit", &["ms", "s", "us", "ns"])?];
    let ways = [CorruptRows::Fail, CorruptRows::Drop, CorruptRows::DeadLetter];
    let corrupt = given.text("corrupt")?;
    let corrupt = ways[one_of(corrupt, "way with corrupt rows", &["fail", "drop", "dead_letter"])?];
    let columns = schema(given)?;
    let time = given.text("time")?;
    if let Some((time, place)) = &time
        && !columns.is_empty()
    {
        match columns.iter().find(|(name, _)| name == time) {
            Some((_, ValueKind::Time)) => {}
            Some(_) => {
                return Err(at(*place, format!("{time} holds the event time")).help("declare it as timestamp"));
            }
            None => {
                let found = at(*place, format!("the schema has no column {time}"));
                return Err(found.help("declare it: schema => '… timestamp'"));
            }
        }
    }
    Ok(Declared { columns, time: time.map(|(time, _)| time), unit, corrupt })
}

/// The place of a word among those that are possible; the first without one.
fn one_of(found: Option<(String, Location)>, what: &str, known: &[&str]) -> Result<usize, Diagnostic> {
    let Some((word, place)) = found else { return Ok(0) };
    known
        .iter()
        .position(|known| word.eq_ignore_ascii_case(known))
        .ok_or_else(|| at(place, format!("there is no {what} {word}")).help(format!("there are {}", known.join(", "))))
}
