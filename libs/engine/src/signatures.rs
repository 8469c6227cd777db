//! `signatures(…)`: of which signatures messages are, and when which of them came, as an aggregate of SQL.

use std::collections::HashMap;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, FieldRef, Int64Type},
};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err},
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};
use ingest::template::Dictionary;
use types::Severity;

use crate::Figures;

/// Signatures that are told apart; messages of further ones count as those that have no template.
pub const SIGNATURES_MAX: usize = 8_192;
/// Most buckets of time.
pub const BUCKETS_MAX: usize = 1_000;
/// Bytes that are kept of a message without a template.
const MESSAGE_BYTES_MAX: usize = 512;
/// Severities and none, in the order of [`Severity`].
pub const SEVERITIES: usize = 7;

/// What the messages of one signature have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signed {
    /// Whether the message can be taken for all of them; otherwise they have no template.
    pub is_mined: bool,
    /// One of the messages.
    pub message: String,
    /// The segment in which it is.
    pub segment: String,
    /// Its offset.
    pub offset: i64,
    /// Its time in nanoseconds.
    pub time: i64,
    /// How many messages there are.
    pub lines: u64,
    /// The earliest time.
    pub first: i64,
    /// The latest time.
    pub last: i64,
    /// How many are of each severity, those without one last.
    pub severities: [u64; SEVERITIES],
    /// How many are in each bucket of time.
    pub buckets: Vec<u64>,
}

/// Numbers of a signature before its buckets.
const HEAD: usize = 6 + SEVERITIES;

impl Signed {
    /// Reads the value of the aggregate.
    pub fn read(column: &ArrayRef, row: usize) -> Option<Vec<Self>> {
        Some(Self::of_figures(&Figures::read(column, row)?))
    }

    fn of_figures(figures: &Figures) -> Vec<Self> {
        let count = figures.texts.len() / 2;
        let width = figures.numbers.len().checked_div(count).unwrap_or_default();
        if width < HEAD {
            return Vec::new();
        }
        let whole = |number: &i64| u64::try_from(*number).unwrap_or_default();
        let one = |(texts, numbers): (&[String], &[i64])| {
            let mut severities = [0; SEVERITIES];
            severities.iter_mut().zip(&numbers[6..HEAD]).for_each(|(to, from)| *to = whole(from));
            Self {
                is_mined: numbers[0] != 0,
                message: texts[0].clone(),
                segment: texts[1].clone(),
                offset: numbers[4],
                time: numbers[5],
                lines: whole(&numbers[1]),
                first: numbers[2],
                last: numbers[3],
                severities,
                buckets: numbers[HEAD..].iter().map(whole).collect(),
            }
        };
        figures.texts.chunks_exact(2).zip(figures.numbers.chunks_exact(width)).map(one).collect()
    }

    /// Takes in others that are of one kind with these; the earliest message stands for all.
    pub fn add(&mut self, other: &Self) {
        if self.lines == 0 {
            *self = other.clone();
            return;
        }
        if other.time < self.time {
            self.message.clone_from(&other.message);
            self.segment.clone_from(&other.segment);
            (self.offset, self.time) = (other.offset, other.time);
        }
        self.lines += other.lines;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.severities.iter_mut().zip(other.severities).for_each(|(to, from)| *to += from);
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(to, from)| *to += from);
    }
}

/// The aggregate `signatures(message, nanoseconds, severity, segment, offset, from, width, buckets)`, which [`Signed::read`]
/// reads: one entry for each signature. The last three are constants: nanoseconds of the first bucket's begin, how long
/// each lasts, and how many there are; rows outside count in the first or the last.
///
/// Bounds: [`SIGNATURES_MAX`], [`BUCKETS_MAX`], and those of [`Dictionary`].
pub(crate) fn signatures() -> AggregateUDF {
    use DataType::{Int64, Utf8};
    let of = vec![Utf8, Int64, Utf8, Utf8, Int64, Int64, Int64, Int64];
    AggregateUDF::from(Signatures { signature: Signature::exact(of, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Signatures {
    signature: Signature,
}

impl AggregateUDFImpl for Signatures {
    fn name(&self) -> &'static str {
        "signatures"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(Figures::data_type())
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::<Mining>::default())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(Figures::state_fields(args.name))
    }
}

#[derive(Debug, Default)]
struct Mining {
    dictionary: Dictionary,
    /// By signature; 0 is that of messages without a template.
    signed: HashMap<u64, Signed>,
    buckets: usize,
}

/// One row as an entry of its own.
struct Row<'a> {
    message: &'a str,
    severity: usize,
    segment: &'a str,
    offset: i64,
    time: i64,
    bucket: usize,
}

impl Mining {
    /// The entry of a message's signature, and whether it is that of its own.
    fn entry(&mut self, message: &str) -> (&mut Signed, bool) {
        let mut signature = self.dictionary.learn(message).signature;
        if self.signed.len() >= SIGNATURES_MAX && !self.signed.contains_key(&signature) {
            signature = 0;
        }
        (self.signed.entry(signature).or_default(), signature != 0)
    }

    fn row(&mut self, row: &Row<'_>) {
        let buckets = self.buckets;
        let (entry, is_mined) = self.entry(row.message);
        if entry.lines == 0 {
            let message = if is_mined { row.message } else { cut(row.message) };
            *entry = Signed {
                is_mined,
                message: message.to_owned(),
                segment: row.segment.to_owned(),
                offset: row.offset,
                time: row.time,
                first: row.time,
                last: row.time,
                buckets: vec![0; buckets],
                ..Signed::default()
            };
        }
        entry.lines += 1;
        entry.first = entry.first.min(row.time);
        entry.last = entry.last.max(row.time);
        entry.severities[row.severity] += 1;
        if let Some(count) = entry.buckets.get_mut(row.bucket) {
            *count += 1;
        }
    }

    fn merge(&mut self, mut part: Signed) {
        self.buckets = self.buckets.max(part.buckets.len());
        let (entry, is_mined) =
            if part.is_mined { self.entry(&part.message) } else { (self.signed.entry(0).or_default(), false) };
        if part.is_mined && !is_mined {
            part.is_mined = false;
            part.message = cut(&part.message).to_owned();
        }
        entry.add(&part);
    }

    fn figures(&self) -> Figures {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let mut figures = Figures::default();
        for one in self.signed.values() {
            figures.texts.extend([one.message.clone(), one.segment.clone()]);
            let head = [i64::from(one.is_mined), number(one.lines), one.first, one.last, one.offset, one.time];
            figures.numbers.extend(head);
            figures.numbers.extend(one.severities.map(number));
            let buckets = one.buckets.iter().copied().chain(std::iter::repeat(0));
            figures.numbers.extend(buckets.take(self.buckets).map(number));
        }
        figures
    }
}

/// The begin of a message.
fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

impl Accumulator for Mining {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let wrong = || exec_datafusion_err!("signatures() takes texts and numbers");
        let [message, time, severity, segment, offset, from, width, buckets] = values else { return Err(wrong()) };
        let text = |column: &ArrayRef| column.as_string_opt::<i32>().cloned().ok_or_else(wrong);
        let number = |column: &ArrayRef| column.as_primitive_opt::<Int64Type>().cloned().ok_or_else(wrong);
        let (messages, severities, segments) = (text(message)?, text(severity)?, text(segment)?);
        let (times, offsets) = (number(time)?, number(offset)?);
        let first = |column: arrow::array::Int64Array| column.values().first().copied().unwrap_or_default();
        let constant = |column: &ArrayRef| number(column).map(first);
        let (from, width, buckets) = (constant(from)?, constant(width)?.max(1), constant(buckets)?);
        self.buckets = usize::try_from(buckets).unwrap_or_default().min(BUCKETS_MAX);
        for i in (0..messages.len()).filter(|i| messages.is_valid(*i)) {
            let word = if severities.is_valid(i) { severities.value(i) } else { "" };
            let bucket = usize::try_from(times.value(i).saturating_sub(from) / width).unwrap_or_default();
            self.row(&Row {
                message: messages.value(i),
                severity: word.parse::<Severity>().map_or(SEVERITIES - 1, place_of),
                segment: if segments.is_valid(i) { segments.value(i) } else { "" },
                offset: offsets.value(i),
                time: times.value(i),
                bucket: bucket.min(self.buckets.saturating_sub(1)),
            });
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.figures().value()
    }

    fn size(&self) -> usize {
        let entry = size_of::<Signed>() + self.buckets * size_of::<u64>();
        self.dictionary.bytes() + self.signed.values().map(|one| one.message.len() + entry).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.figures().state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for figures in Figures::parts(states)? {
            Signed::of_figures(&figures).into_iter().for_each(|part| self.merge(part));
        }
        Ok(())
    }
}

/// The place of a severity in the order from the least.
fn place_of(severity: Severity) -> usize {
    match severity {
        Severity::Trace => 0,
        Severity::Debug => 1,
        Severity::Info => 2,
        Severity::Warn => 3,
        Severity::Error => 4,
        Severity::Fatal => 5,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    /// Lines at 0, 1, 2, …, in four buckets of ten.
    fn part(lines: &[(usize, String)]) -> Mining {
        let mut part = Mining::default();
        let number = |of: &dyn Fn(usize) -> usize| -> ArrayRef {
            Arc::new(lines.iter().map(|(at, _)| i64::try_from(of(*at)).unwrap()).collect::<Int64Array>())
        };
        let severity = |at: usize| [Some("error"), None, Some("odd")][at % 3];
        part.update_batch(&[
            Arc::new(StringArray::from_iter_values(lines.iter().map(|(_, line)| line))),
            number(&|at| at),
            Arc::new(lines.iter().map(|(at, _)| severity(*at)).collect::<StringArray>()),
            Arc::new(StringArray::from_iter_values(lines.iter().map(|_| "1-0-0"))),
            number(&|at| at + 100),
            number(&|_| 0),
            number(&|_| 10),
            number(&|_| 4),
        ])
        .unwrap();
        part
    }

    fn merged(parts: &[&[(usize, String)]]) -> Vec<Signed> {
        let mut whole = Mining::default();
        for lines in parts.iter().filter(|lines| !lines.is_empty()) {
            let state = part(lines).state().unwrap();
            let state: Vec<ArrayRef> = state.iter().map(|value| value.to_array().unwrap()).collect();
            whole.merge_batch(&state).unwrap();
        }
        let mut found = Signed::read(&whole.evaluate().unwrap().to_array().unwrap(), 0).unwrap();
        found.sort_by_key(|one| one.first);
        found
    }

    fn lines() -> Vec<(usize, String)> {
        let long = "x ".repeat(ingest::template::LINE_BYTES_MAX);
        let line = |at: usize| match at {
            17 => long.clone(),
            at if at % 4 == 0 => format!("disk {at} is full"),
            at => format!("user u{at} logged in"),
        };
        (0..40).map(|at| (at, line(at))).collect()
    }

    #[test]
    fn entries_tell_when_and_how_severe() {
        let found = merged(&[&lines()]);
        let [disk, user, long] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (disk.message.as_str(), disk.segment.as_str(), disk.offset, disk.time),
            ("disk 0 is full", "1-0-0", 100, 0)
        );
        assert_eq!((disk.lines, disk.first, disk.last, disk.is_mined), (10, 0, 36, true));
        assert_eq!(disk.buckets, [3, 2, 3, 2]);
        // Of 0, 4, 8, … every third is an error; an odd word counts as none.
        assert_eq!(disk.severities, [0, 0, 0, 0, 4, 0, 6]);
        assert_eq!((user.lines, user.offset, user.buckets.iter().sum::<u64>()), (29, 101, 29));
        assert_eq!((long.lines, long.is_mined, long.message.len()), (1, false, MESSAGE_BYTES_MAX));
    }

    #[test]
    fn parts_are_the_whole() {
        let lines = lines();
        let whole = merged(&[&lines]);
        for cut in 0..lines.len() {
            let (first, second) = lines.split_at(cut);
            assert_eq!(merged(&[first, second]), whole, "cut at {cut}");
            let turned = merged(&[second, first]);
            let figures =
                |all: &[Signed]| all.iter().map(|one| (one.lines, one.first, one.buckets.clone())).collect::<Vec<_>>();
            assert_eq!(figures(&turned), figures(&whole), "cut at {cut}");
        }
    }

    #[test]
    fn further_signatures_count_as_messages_without_a_template() {
        let word = |mut n: usize| {
            let mut word = String::new();
            while n > 0 {
                word.push(char::from(b'a' + u8::try_from(n % 26).unwrap()));
                n /= 26;
            }
            word
        };
        let lines: Vec<_> = (0..SIGNATURES_MAX + 10).map(|at| (at, format!("x {}z", word(at)))).collect();
        let found = merged(&[&lines]);
        assert!(found.len() <= SIGNATURES_MAX + 1);
        assert_eq!(found.iter().map(|one| one.lines).sum::<u64>(), u64::try_from(lines.len()).unwrap());
        assert!(found.iter().any(|one| !one.is_mined && one.lines >= 9));
    }
}
