//! The exact answers, by reading every line.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    io::BufRead,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    corpus::{Corpus, RARE_WORD},
    question::{LAST, PART, PHRASE, Question, TOP},
};

/// The line whose trace is looked for, where there are so many.
const NEEDLE_LINE: u64 = 271_828;
/// Nanoseconds of a minute.
const MINUTE: i64 = 60_000_000_000;

/// A line as the corpus has it.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "_time", borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    level: Cow<'a, str>,
    #[serde(borrow)]
    pod: Cow<'a, str>,
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(rename = "_msg", borrow)]
    message: Cow<'a, str>,
}

/// What is right.
pub(super) struct Oracle {
    /// The trace that is looked for.
    pub(super) needle: String,
    answers: BTreeMap<Question, Vec<String>>,
}

impl Oracle {
    pub(super) fn of(corpus: &Corpus) -> Result<Self> {
        let needle = needle(corpus)?;
        let mut seen = Seen::default();
        each_line(corpus, |_, line| seen.take(line, &needle).map(|()| true))?;
        Ok(Self { answers: seen.answers(), needle })
    }

    /// What is wrong with an answer, if anything.
    pub(super) fn complaint(&self, question: Question, rows: Vec<String>) -> Option<String> {
        let right = self.answers.get(&question)?;
        let given = question.answer(rows);
        if given == *right {
            return None;
        }
        let first = right.iter().zip(&given).find(|(right, given)| right != given);
        let first = first.map(|(right, given)| format!("; the first that differs is {given:?}, not {right:?}"));
        Some(format!("{} rows, not {}{}", given.len(), right.len(), first.unwrap_or_default()))
    }
}

fn needle(corpus: &Corpus) -> Result<String> {
    let wanted = NEEDLE_LINE.min(corpus.lines / 2);
    let mut found = None;
    each_line(corpus, |number, line| {
        found = (number == wanted).then(|| line.trace_id.into_owned());
        Ok(found.is_none())
    })?;
    found.context("the corpus has no line in its middle")
}

/// Gives each line to `take` until that says that it is enough.
fn each_line(corpus: &Corpus, mut take: impl FnMut(u64, Line<'_>) -> Result<bool>) -> Result<()> {
    let (mut reader, mut text, mut number) = (corpus.reader()?, Vec::new(), 0);
    while reader.read_until(b'\n', &mut text)? > 0 {
        let line = serde_json::from_slice(&text).with_context(|| format!("line {} of the corpus", number + 1))?;
        if !take(number, line)? {
            break;
        }
        number += 1;
        text.clear();
    }
    Ok(())
}

/// What was seen up to here.
#[derive(Default)]
struct Seen {
    trace: Vec<String>,
    rare: Vec<String>,
    phrase: u64,
    levels: BTreeMap<String, u64>,
    minutes: HashMap<(i64, String), u64>,
    pods: HashMap<String, u64>,
    regex: u64,
    last: BinaryHeap<Reverse<i64>>,
    part: u64,
    traces: HashSet<u128>,
}

impl Seen {
    fn take(&mut self, line: Line<'_>, needle: &str) -> Result<()> {
        let time = i64::try_from(line.time.parse::<Timestamp>()?.as_nanosecond())?;
        let trace = u128::from_str_radix(&line.trace_id, 16).context("a trace id is 32 hexadecimal digits")?;
        let row = || format!("{time}\t{}", line.message);
        if line.trace_id == needle {
            self.trace.push(row());
        }
        if has_words(&line.message, RARE_WORD) {
            self.rare.push(row());
        }
        self.phrase += u64::from(has_words(&line.message, PHRASE));
        self.regex += u64::from(has_block_of_size(&line.message));
        self.part += u64::from(line.message.contains(PART));
        self.traces.insert(trace);
        if line.level == "error" {
            *self.pods.entry(line.pod.into_owned()).or_default() += 1;
            self.last.push(Reverse(time));
            if self.last.len() > LAST {
                self.last.pop();
            }
        }
        let level = line.level.into_owned();
        *self.minutes.entry((time.div_euclid(MINUTE) * MINUTE, level.clone())).or_default() += 1;
        *self.levels.entry(level).or_default() += 1;
        Ok(())
    }

    fn answers(self) -> BTreeMap<Question, Vec<String>> {
        let mut pods: Vec<(String, u64)> = self.pods.into_iter().collect();
        pods.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        let counted = |(what, count): (String, u64)| format!("{what}\t{count}");
        let minute = |((minute, level), count): ((i64, String), u64)| format!("{minute}\t{level}\t{count}");
        let one = |count: u64| vec![count.to_string()];
        let all = [
            (Question::Trace, self.trace),
            (Question::RareWord, self.rare),
            (Question::Phrase, one(self.phrase)),
            (Question::Levels, self.levels.into_iter().map(counted).collect()),
            (Question::Histogram, self.minutes.into_iter().map(minute).collect()),
            (Question::Pods, pods.into_iter().take(TOP).map(counted).collect()),
            (Question::Regex, one(self.regex)),
            // Newest first: a heap of reversed times is sorted the other way round.
            (Question::Last, self.last.into_sorted_vec().into_iter().map(|Reverse(time)| time.to_string()).collect()),
            (Question::Part, one(self.part)),
            (Question::Distinct, one(self.traces.len() as u64)),
        ];
        all.into_iter().map(|(question, rows)| (question, question.answer(rows))).collect()
    }
}

/// Whether the words stand in the text as whole words.
fn has_words(text: &str, words: &str) -> bool {
    let in_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.match_indices(words).any(|(at, _)| {
        let before = text.as_bytes()[..at].last().is_some_and(in_word);
        let after = text.as_bytes().get(at + words.len()).is_some_and(in_word);
        !before && !after
    })
}

/// Whether [`REGEX`](super::question::REGEX) is found in the text.
fn has_block_of_size(text: &str) -> bool {
    text.match_indices("blk_").any(|(at, block)| {
        let rest = &text[at + block.len()..];
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        let size = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        size.len() < rest.len() && size.strip_prefix(" of size ").is_some_and(|size| digits(size) >= 8)
    })
}
