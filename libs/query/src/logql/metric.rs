//! Metric queries: range and vector aggregations, operators between them.

use std::time::Duration;

use super::{Grouping, Metric, MetricOperator, RangeFunction, RangeMetric, VectorFunction, parse::LogQuery};
use crate::{Diagnostic, nearest, pipe::Cursor, plan::Plan, quantity};

impl Cursor<'_> {
    pub(super) fn metric(&mut self) -> Result<Metric, Diagnostic> {
        self.deeper(|cursor| cursor.operators(1))
    }

    fn operators(&mut self, least: u8) -> Result<Metric, Diagnostic> {
        let mut left = self.one()?;
        loop {
            let begin = self.at;
            let found = MetricOperator::WORDS.iter().find(|(op, word)| match op {
                MetricOperator::Or | MetricOperator::And | MetricOperator::Unless => self.eat_word(word),
                _ => self.eat(word),
            });
            let Some((op, _)) = found.filter(|(op, _)| op.rank() >= least) else {
                self.at = begin;
                return Ok(left);
            };
            self.count()?;
            let boolean = self.eat_word("bool");
            let matching = if self.eat_word("on") {
                Some(Grouping { without: false, labels: self.labels()? })
            } else if self.eat_word("ignoring") {
                Some(Grouping { without: true, labels: self.labels()? })
            } else {
                None
            };
            if self.word().starts_with("group_") {
                return Err(
                    self.complaint(format!("not yet here: {}", self.rest().split('(').next().unwrap_or_default()))
                );
            }
            // Powers bind from the right.
            let right = self.operators(if *op == MetricOperator::Power { 6 } else { op.rank() + 1 })?;
            left = Metric::Binary { op: *op, boolean, matching, left: Box::new(left), right: Box::new(right) };
        }
    }

    fn one(&mut self) -> Result<Metric, Diagnostic> {
        if self.eat("(") {
            let inner = self.metric()?;
            self.expect(")", "the closing )")?;
            return Ok(inner);
        }
        if self.next().is_some_and(|c| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
            return self.scalar().map(Metric::Number);
        }
        let word = self.word();
        let begin = self.at;
        if word == "vector" {
            self.at += word.len();
            self.expect("(", "( and a number")?;
            let number = self.scalar()?;
            self.expect(")", "the closing )")?;
            return Ok(Metric::Vector(number));
        }
        self.at += word.len();
        if let Some((function, _)) = RangeFunction::WORDS.iter().find(|(_, name)| *name == word) {
            return self.range_metric(*function);
        }
        if let Some((function, _)) = VectorFunction::WORDS.iter().find(|(_, name)| *name == word) {
            return self.aggregate(*function);
        }
        self.at = begin;
        if word == "label_replace" {
            return Err(self.complaint("not yet here: label_replace"));
        }
        let names = RangeFunction::WORDS
            .iter()
            .map(|(_, name)| *name)
            .chain(VectorFunction::WORDS.iter().map(|(_, name)| *name));
        let found = self.expected("a selector, a function or a number");
        Err(match nearest(word, names) {
            Some(meant) => found.help(format!("did you mean {meant}?")),
            None => found.help("for example count_over_time({service=\"shop\"}[5m])"),
        })
    }

    fn scalar(&mut self) -> Result<f64, Diagnostic> {
        let negative = self.eat("-");
        if !negative {
            self.eat("+");
        }
        self.next();
        let rest = self.rest();
        let mut end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let digits = exponent[sign..].bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                end += 1 + sign + digits;
            }
        }
        match rest[..end].parse::<f64>().ok().filter(|number| number.is_finite()) {
            Some(number) => {
                self.at += end;
                Ok(if negative { -number } else { number })
            }
            None => Err(self.expected("a number")),
        }
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, Diagnostic> {
        if self.eat_word("by") {
            return Ok(Some(Grouping { without: false, labels: self.labels()? }));
        }
        if self.eat_word("without") {
            return Ok(Some(Grouping { without: true, labels: self.labels()? }));
        }
        Ok(None)
    }

    /// `(a, b)`, perhaps empty.
    fn labels(&mut self) -> Result<Vec<String>, Diagnostic> {
        let mut labels = Vec::new();
        self.expect("(", "( and labels")?;
        while !self.eat(")") {
            if !labels.is_empty() {
                self.expect(",", "a comma or the closing )")?;
            }
            self.bounded(&labels)?;
            let label = self.label()?;
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        Ok(labels)
    }

    fn aggregate(&mut self, function: VectorFunction) -> Result<Metric, Diagnostic> {
        let before = self.grouping()?;
        self.expect("(", "( and what is aggregated")?;
        let mut count = None;
        if matches!(function, VectorFunction::Top | VectorFunction::Bottom) {
            let begin = {
                self.next();
                self.at
            };
            let number = self.scalar()?;
            let whole = number.fract() == 0.0 && (1.0..=10_000.0).contains(&number);
            if !whole {
                return Err(self.complaint_at(begin, "the count of series is a whole number from 1 to 10000"));
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and from 1 to 10000")]
            let whole = number as u32;
            count = Some(whole);
            self.expect(",", "a comma")?;
        }
        let of = Box::new(self.metric()?);
        self.expect(")", "the closing )")?;
        let grouping = match before {
            Some(before) => Some(before),
            None => self.grouping()?,
        };
        Ok(Metric::Aggregate { function, count, grouping, of })
    }

    fn range_metric(&mut self, function: RangeFunction) -> Result<Metric, Diagnostic> {
        self.expect("(", "( and a log query")?;
        let mut quantile = None;
        if function == RangeFunction::Quantile {
            let share = self.scalar()?;
            if !(0.0..=1.0).contains(&share) {
                return Err(self.complaint("a quantile is from 0 to 1"));
            }
            quantile = Some(share);
            self.expect(",", "a comma")?;
        }
        self.next();
        let begin = self.at;
        let (query, range, offset) = self.ranged()?;
        self.expect(")", "the closing )")?;
        let grouping = self.grouping()?;
        let counts = matches!(
            function,
            RangeFunction::Count
                | RangeFunction::Rate
                | RangeFunction::Bytes
                | RangeFunction::BytesRate
                | RangeFunction::Absent
        );
        if !counts && query.unwrap.is_none() {
            return Err(self
                .complaint_at(begin, format!("{} computes with the value of a label", function.as_str()))
                .help("add | unwrap label before the range"));
        }
        let metric =
            RangeMetric { function, quantile, logs: query.logs, unwrap: query.unwrap, range, offset, grouping };
        Ok(Metric::Range(Box::new(metric)))
    }

    /// A log query with its range, which may stand behind the selector or at the end, and its offset.
    fn ranged(&mut self) -> Result<(LogQuery, Duration, i64), Diagnostic> {
        if self.eat("(") {
            let mut query = self.deeper(Self::log_query)?;
            self.expect(")", "the closing )")?;
            self.stages(&mut query)?;
            let (range, offset) = self.range()?;
            return Ok((query, range, offset));
        }
        let mut query = LogQuery { logs: Plan { search: self.selector()?, ..Plan::default() }, unwrap: None };
        let early = if self.next() == Some('[') { Some(self.range()?) } else { None };
        self.stages(&mut query)?;
        let (range, offset) = match early {
            Some(early) => early,
            None => self.range()?,
        };
        Ok((query, range, offset))
    }

    /// `[5m] offset 1h`
    fn range(&mut self) -> Result<(Duration, i64), Diagnostic> {
        self.expect("[", "[ and a range: [5m]")?;
        let range = self.long()?;
        self.expect("]", "the closing ]")?;
        let mut offset = 0;
        if self.eat_word("offset") {
            let negative = self.eat("-");
            let nanos = i64::try_from(self.long()?.as_nanos()).unwrap_or(i64::MAX);
            offset = if negative { -nanos } else { nanos };
        }
        Ok((range, offset))
    }

    fn long(&mut self) -> Result<Duration, Diagnostic> {
        self.next();
        let rest = self.rest();
        let token = &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(rest.len())];
        match quantity::duration(token).filter(|span| !span.is_zero()) {
            Some(span) => {
                self.at += token.len();
                Ok(span)
            }
            None => Err(self.expected("a span of time").help("for example 5m")),
        }
    }
}
