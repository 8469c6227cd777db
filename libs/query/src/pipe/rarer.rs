//! What stands behind the commands that bring queries together, look at time, or say where rows go.

use super::{cursor::Cursor, step::Read};
use crate::{
    Diagnostic,
    plan::{Format, JoinKind, Step, Value},
};

impl Cursor<'_> {
    pub(super) fn session_step(&mut self, _: &str) -> Read {
        let bare = self.word();
        let keyed = ["by", "gap", "maxpause"].iter().any(|clause| clause.eq_ignore_ascii_case(bare));
        let fields = if keyed || bare.is_empty() { Vec::new() } else { self.session_fields()? };
        let clauses = self.clauses(&["by", "gap"])?;
        let by = if fields.is_empty() { clauses.by } else { fields };
        match clauses.gap {
            Some(gap) => Ok(Step::Session { by, gap }),
            None => Err(self.expected("gap and the longest pause")),
        }
    }

    /// The keys of `transaction sid maxpause=5m`, where no `by` stands.
    fn session_fields(&mut self) -> Result<Vec<String>, Diagnostic> {
        let mut fields = Vec::new();
        while !self.ended() && !self.word().eq_ignore_ascii_case("gap") && !self.word().eq_ignore_ascii_case("maxpause")
        {
            self.bounded(&fields)?;
            fields.push(self.field()?);
            self.eat(",");
        }
        Ok(fields)
    }

    pub(super) fn sequence_step(&mut self, _: &str) -> Read {
        let mut terms = Vec::new();
        loop {
            self.bounded(&terms)?;
            terms.push(self.predicate(&["then", "by", "within", "maxspan"])?);
            if !self.eat_word("then") {
                break;
            }
        }
        if terms.len() < 2 {
            return Err(self.expected("then and the next event"));
        }
        let clauses = self.clauses(&["by", "within"])?;
        match clauses.within {
            Some(within) => Ok(Step::Sequence { terms, by: clauses.by, within }),
            None => Err(self.expected("within and a span of time")),
        }
    }

    pub(super) fn join_step(&mut self, _: &str) -> Read {
        self.eat_assigned("type");
        let kind = if self.eat_word("left") || self.eat_word("outer") {
            JoinKind::Left
        } else {
            self.eat_word("inner");
            JoinKind::Inner
        };
        self.eat_word("by");
        let on = self.fields()?;
        self.expect("[", "[ and another query")?;
        let plan = Box::new(self.nested()?);
        Ok(Step::Join { kind, on, plan })
    }

    pub(super) fn append_step(&mut self, _: &str) -> Read {
        self.expect("[", "[ and another query")?;
        Ok(Step::Append(Box::new(self.nested()?)))
    }

    pub(super) fn lookup_step(&mut self, _: &str) -> Read {
        self.next();
        let rest = self.rest();
        let token = &rest[..rest.find(|c: char| c.is_whitespace() || "|)]".contains(c)).unwrap_or(rest.len())];
        if token.is_empty() {
            return Err(self.expected("the name of a lookup"));
        }
        let table = token.parse().map_err(|invalid: types::Invalid| {
            self.complaint(format!("{token:?} is not the name of a lookup: {}", invalid.rule))
        })?;
        self.at += token.len();
        if !self.eat_word("by") {
            self.eat_word("on");
        }
        let mut on = Vec::new();
        loop {
            self.bounded(&on)?;
            on.push(self.field()?);
            let more = self.eat(",");
            self.next();
            let named = self.eat("->") || self.eat_word("output");
            if named || (!more && self.ended()) {
                let fields = if named { self.fields()? } else { Vec::new() };
                return Ok(Step::Lookup { table, on, fields });
            }
        }
    }

    pub(super) fn expand_step(&mut self, _: &str) -> Read {
        self.field().map(Step::Expand)
    }

    pub(super) fn follow_step(&mut self, _: &str) -> Read {
        Ok(Step::Follow)
    }

    pub(super) fn patterns_step(&mut self, _: &str) -> Read {
        Ok(Step::Patterns)
    }

    pub(super) fn explain_step(&mut self, _: &str) -> Read {
        Ok(Step::Explain)
    }

    pub(super) fn context_step(&mut self, _: &str) -> Read {
        if let Some(around) = self.count_argument()? {
            return Ok(Step::Context { before: around, after: around });
        }
        let (mut before, mut after) = (0, 0);
        while !self.ended() {
            let slot = if self.eat_word("before") {
                &mut before
            } else if self.eat_word("after") {
                &mut after
            } else {
                return Err(self.expected("a count, before or after"));
            };
            self.eat("=");
            // Nothing on one side is written as 0.
            *slot = if self.eat("0") { 0 } else { self.count_argument()?.ok_or_else(|| self.expected("a count"))? };
        }
        if before + after == 0 { Err(self.expected("a count of rows")) } else { Ok(Step::Context { before, after }) }
    }

    pub(super) fn anomaly_step(&mut self, _: &str) -> Read {
        let measure = self.measure()?;
        let clauses = self.clauses(&["by", "every"])?;
        match clauses.every {
            Some(every) => Ok(Step::Anomaly { measure, by: clauses.by, every }),
            None => Err(self.expected("every and a span of time")),
        }
    }

    pub(super) fn compare_step(&mut self, _: &str) -> Read {
        self.eat_word("with");
        self.eat("-");
        self.span().map(Step::Compare)
    }

    pub(super) fn alert_step(&mut self, _: &str) -> Read {
        if !self.eat_word("when") {
            self.eat_word("if");
        }
        let when = self.term()?;
        let hold = if self.eat_word("for") { Some(self.span()?) } else { None };
        Ok(Step::Alert { when, hold })
    }

    pub(super) fn index_step(&mut self, _: &str) -> Read {
        if self.eat_word("index") {
            self.eat("=");
        }
        self.next();
        let rest = self.rest();
        let token = &rest[..rest.find(|c: char| c.is_whitespace() || "|)]".contains(c)).unwrap_or(rest.len())];
        if token.is_empty() {
            return Err(self.expected("the name of an index"));
        }
        let index = token.parse().map_err(|invalid: types::Invalid| {
            self.complaint(format!("{token:?} is not an index name: {}", invalid.rule))
        })?;
        self.at += token.len();
        Ok(Step::Into(index))
    }

    pub(super) fn export_step(&mut self, word: &str) -> Read {
        if word == "outputcsv" {
            return Ok(Step::Export(Format::Csv));
        }
        match Format::WORDS.iter().find(|(_, name)| self.eat_word(name)) {
            Some((format, _)) => Ok(Step::Export(*format)),
            None => Err(self.expected("csv, json or parquet")),
        }
    }

    pub(super) fn create_step(&mut self, _: &str) -> Read {
        if !self.eat_word("view") {
            self.eat_word("as");
        }
        self.field().map(Step::View)
    }

    pub(super) fn fill_step(&mut self, _: &str) -> Read {
        if self.eat_assigned("value") {
            let value = self.value()?;
            return Ok(Step::Fill { fields: self.fields()?, value });
        }
        let fields = self.fields()?;
        if !self.eat_word("with") {
            return Err(self.expected("with and a value"));
        }
        Ok(Step::Fill { fields, value: self.value()? })
    }

    pub(super) fn sample_step(&mut self, _: &str) -> Read {
        match self.count_argument()? {
            Some(one_in) => Ok(Step::Sample(one_in)),
            None => Err(self.expected("a count: one row in so many is kept")),
        }
    }

    pub(super) fn replace_step(&mut self, _: &str) -> Read {
        let from = self.text_argument("the text in quotes")?;
        if !self.eat_word("with") {
            return Err(self.expected("with and what to write instead"));
        }
        self.next();
        let Some(to) = self.quoted()? else { return Err(self.expected("the new text in quotes")) };
        if !self.eat_word("in") {
            return Err(self.expected("in and the field"));
        }
        Ok(Step::Replace { from, to, field: self.field()? })
    }

    pub(super) fn format_step(&mut self, _: &str) -> Read {
        self.next();
        let begin = self.at;
        let template = self.text_argument("a text in quotes")?;
        if let Err(found) = crate::lower::template(&template) {
            return Err(self
                .complaint_at(begin, found)
                .help("write {field} where a field stands, and {{ for one brace"));
        }
        if !self.eat_word("as") {
            return Err(self.expected("as and the field that holds it"));
        }
        Ok(Step::Format { template, name: self.field()? })
    }

    pub(super) fn running_step(&mut self, _: &str) -> Read {
        let measures = self.measures()?;
        Ok(Step::Running { measures, by: self.clauses(&["by"])?.by })
    }

    pub(super) fn annotate_step(&mut self, _: &str) -> Read {
        let measures = self.measures()?;
        Ok(Step::Annotate { measures, by: self.clauses(&["by"])?.by })
    }

    pub(super) fn delta_step(&mut self, _: &str) -> Read {
        let field = self.field()?;
        let name = if self.eat_word("as") { self.field()? } else { format!("delta_{field}") };
        Ok(Step::Delta { field, name })
    }

    pub(super) fn bin_step(&mut self, _: &str) -> Read {
        let field = self.field()?;
        if self.eat_word("by") || self.eat_word("span") {
            self.eat("=");
        }
        self.next();
        let begin = self.at;
        let width = self.value()?;
        let positive = match &width {
            Value::Integer(number) => *number > 0,
            Value::Number(number) => *number > 0.0,
            Value::Duration(span) => !span.is_zero(),
            Value::Bytes(size) => *size > 0,
            _ => false,
        };
        if positive {
            Ok(Step::Bin { field, width })
        } else {
            Err(self.complaint_at(begin, "a width is a number above 0"))
        }
    }
}
