//! The arguments of commands: lists of fields, aggregates, numbers, spans of time.

use std::time::Duration;

use super::cursor::{Cursor, in_name, value_of};
use crate::{
    Diagnostic, nearest,
    plan::{Direction, Measure, MeasureFunction, SortKey, Value},
    quantity,
};

/// The clauses that may follow a command's arguments, in any order.
#[derive(Default)]
pub(super) struct Clauses {
    pub(super) by: Vec<String>,
    pub(super) every: Option<Duration>,
    pub(super) over: Option<Duration>,
    pub(super) within: Option<Duration>,
    pub(super) gap: Option<Duration>,
}

impl Cursor<'_> {
    /// The name of one field.
    pub(super) fn field(&mut self) -> Result<String, Diagnostic> {
        self.not_reserved()?;
        match self.name(true)? {
            Some(name) => Ok(name),
            None => Err(self.expected("a field").help("names with odd characters stand in backticks: `a b`")),
        }
    }

    fn not_reserved(&mut self) -> Result<(), Diagnostic> {
        let word = self.word();
        if self.reserved() {
            return Err(self.expected("a field").help(format!("write `{word}` for a field of that name")));
        }
        Ok(())
    }

    /// Whether another element of a list follows, with or without a comma.
    fn goes_on(&mut self) -> bool {
        self.eat(",") || (!self.ended() && !self.reserved() && !self.rest().starts_with('['))
    }

    /// Fields, with or without commas between them; at least one.
    pub(super) fn fields(&mut self) -> Result<Vec<String>, Diagnostic> {
        let mut fields = Vec::new();
        loop {
            self.bounded(&fields)?;
            let begin = self.at;
            let field = self.field()?;
            if fields.contains(&field) {
                return Err(self.complaint_at(begin, format!("{field} stands here twice")));
            }
            fields.push(field);
            if !self.goes_on() {
                return Ok(fields);
            }
        }
    }

    /// The fields to sort by: `-a`, `+b`, `c desc`.
    pub(super) fn sort_keys(&mut self) -> Result<Vec<SortKey>, Diagnostic> {
        let mut keys = Vec::new();
        self.eat_word("by");
        loop {
            self.bounded(&keys)?;
            let minus = self.eat("-");
            if !minus {
                self.eat("+");
            }
            let field = self.field()?;
            let descending = self.eat_word("desc") || (!self.eat_word("asc") && minus);
            let direction = if descending { Direction::Descending } else { Direction::Ascending };
            keys.push(SortKey { field, direction });
            if !self.goes_on() {
                return Ok(keys);
            }
        }
    }

    /// Aggregates, with or without commas between them; at least one, their names different.
    pub(super) fn measures(&mut self) -> Result<Vec<Measure>, Diagnostic> {
        let mut measures: Vec<Measure> = Vec::new();
        loop {
            self.bounded(&measures)?;
            self.next();
            let begin = self.at;
            let measure = self.measure()?;
            if measures.iter().any(|other| other.name == measure.name) {
                return Err(self
                    .complaint_at(begin, format!("two aggregates have the name {}", measure.name))
                    .help("give one of them another name with as"));
            }
            measures.push(measure);
            if !self.goes_on() {
                return Ok(measures);
            }
        }
    }

    /// One aggregate: `count`, `avg(x)`, `p95(x) as slow`.
    pub(super) fn measure(&mut self) -> Result<Measure, Diagnostic> {
        self.count()?;
        let word = self.word();
        let begin = self.at;
        if word.is_empty() {
            return Err(self.expected("an aggregate").help("for example count, avg(latency), dc(user), p95(latency)"));
        }
        let Some(function) = MeasureFunction::of(word) else {
            let found = self.complaint(format!("there is no aggregate {word}"));
            let words = MeasureFunction::WORDS.iter().flat_map(|(_, words)| words.iter().copied());
            return Err(match nearest(word, words.clone()) {
                Some(meant) => found.help(format!("did you mean {meant}?")),
                None => {
                    let names: Vec<&str> = MeasureFunction::WORDS.iter().map(|(_, words)| words[0]).collect();
                    found.help(format!("the aggregates are {}, median and p95", names.join(", ")))
                }
            });
        };
        self.at += word.len();
        let mut argument = None;
        if self.touching() == Some('(') {
            self.at += 1;
            self.eat("*");
            if !self.eat(")") {
                argument = Some(self.term()?);
                self.expect(")", "the closing )")?;
            }
        }
        let alone = matches!(function, MeasureFunction::Count | MeasureFunction::Rate);
        if argument.is_none() && !alone {
            return Err(self.complaint_at(begin, format!("{word} needs a field")).help(format!("write {word}(field)")));
        }
        if argument.is_some() && function == MeasureFunction::Rate {
            return Err(self
                .complaint_at(begin, "rate counts rows and takes no field")
                .help("write sum(x) and divide"));
        }
        let name = match self.eat_word("as") {
            true => self.field()?,
            false => Measure::default_name(function, argument.as_ref()),
        };
        Ok(Measure { function, argument, name })
    }

    /// `by`, `every`, `over`, `within` and `gap` as they follow, and what other languages call them.
    pub(super) fn clauses(&mut self, allowed: &[&str]) -> Result<Clauses, Diagnostic> {
        const WORDS: [(&str, &str); 8] = [
            ("by", "by"),
            ("every", "every"),
            ("span", "every"),
            ("over", "over"),
            ("within", "within"),
            ("maxspan", "within"),
            ("gap", "gap"),
            ("maxpause", "gap"),
        ];
        let mut clauses = Clauses::default();
        loop {
            let word = self.word();
            let begin = self.at;
            let known = WORDS.iter().find(|(written, _)| written.eq_ignore_ascii_case(word));
            let Some((_, clause)) = known.filter(|(_, clause)| allowed.contains(clause)) else {
                return Ok(clauses);
            };
            self.at += word.len();
            if *clause == "by" {
                if !clauses.by.is_empty() {
                    return Err(self.complaint_at(begin, "by stands here twice"));
                }
                clauses.by = self.fields()?;
                continue;
            }
            self.eat("=");
            let span = Some(self.span()?);
            let slot = match *clause {
                "every" => &mut clauses.every,
                "over" => &mut clauses.over,
                "within" => &mut clauses.within,
                _ => &mut clauses.gap,
            };
            if std::mem::replace(slot, span).is_some() {
                return Err(self.complaint_at(begin, format!("{clause} stands here twice")));
            }
        }
    }

    /// A value that stands alone: a text in quotes, or all up to white space.
    pub(super) fn value(&mut self) -> Result<Value, Diagnostic> {
        self.next();
        if let Some(text) = self.quoted()? {
            return Ok(Value::Text(text));
        }
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || "|()[],\"'`".contains(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.expected("a value"));
        }
        self.at += end;
        Ok(value_of(&rest[..end]))
    }

    /// A text in quotes.
    pub(super) fn text_argument(&mut self, what: &str) -> Result<String, Diagnostic> {
        self.next();
        match self.quoted()? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(self.expected(what)),
        }
    }

    /// A span of time, not zero: `5m`.
    pub(super) fn span(&mut self) -> Result<Duration, Diagnostic> {
        self.next();
        let rest = self.rest();
        let token = &rest[..rest.find(|c: char| !in_name(c)).unwrap_or(rest.len())];
        match quantity::duration(token).filter(|span| !span.is_zero()) {
            Some(span) => {
                self.at += token.len();
                Ok(span)
            }
            None => Err(self.expected("a span of time").help("for example 30s, 5m or 1h")),
        }
    }

    /// A count, if one stands here; at least 1.
    pub(super) fn count_argument(&mut self) -> Result<Option<u64>, Diagnostic> {
        self.next();
        let rest = self.rest();
        let token = &rest[..rest.find(|c: char| !in_name(c)).unwrap_or(rest.len())];
        if !token.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(None);
        }
        match token.parse::<u32>() {
            Ok(count) if count > 0 => {
                self.at += token.len();
                Ok(Some(u64::from(count)))
            }
            _ => Err(self.expected("a count from 1 to 4294967295")),
        }
    }
}
