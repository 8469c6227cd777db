//! What stands behind each command.

use super::{command::Command, cursor::Cursor};
use crate::{
    Diagnostic, nearest,
    plan::{Measure, MeasureFunction, Parsing, Step},
};

/// How many values `top`, and how many rows `head` give when the text does not say.
const COUNT_DEFAULT: u64 = 10;

pub(super) type Read = Result<Step, Diagnostic>;

impl Cursor<'_> {
    /// One step, up to the next `|` or the end.
    pub(super) fn step(&mut self) -> Read {
        let word = self.word();
        let begin = self.at;
        if word.is_empty() {
            return Err(self.expected("a command").help("for example | stats count by service"));
        }
        let Some(command) = Command::of(word) else {
            let found = self.complaint(format!("there is no command {word}"));
            let words = Command::ALL.iter().flat_map(|command| command.words.iter().copied());
            let function = MeasureFunction::of(word).is_some();
            return Err(match nearest(word, words) {
                Some(meant) => found.help(format!("did you mean {meant}?")),
                None if function => found.help(format!("write stats {word}(…)")),
                None => {
                    let names: Vec<&str> = Command::ALL.iter().map(Command::name).collect();
                    found.help(format!("the commands are {}", names.join(", ")))
                }
            });
        };
        self.at += word.len();
        let step = (command.read)(self, &word.to_ascii_lowercase()).map_err(|found| match found.help {
            None => found.help(format!("write {}", command.usage)),
            Some(_) => found,
        })?;
        if self.ended() {
            return Ok(step);
        }
        let shown = &self.text[begin..begin + word.len()];
        Err(self.expected(&format!("the end of {shown}, or |")).help(format!("write {}", command.usage)))
    }

    pub(super) fn search_step(&mut self, _: &str) -> Read {
        Ok(Step::Search(self.predicate(&[])?))
    }

    pub(super) fn where_step(&mut self, _: &str) -> Read {
        Ok(Step::Where(self.term()?))
    }

    pub(super) fn keep_step(&mut self, _: &str) -> Read {
        Ok(Step::Keep(self.fields()?))
    }

    pub(super) fn drop_step(&mut self, _: &str) -> Read {
        Ok(Step::Drop(self.fields()?))
    }

    pub(super) fn fields_step(&mut self, _: &str) -> Read {
        if self.ended() {
            return Ok(Step::Fields);
        }
        if self.eat("-") {
            return Ok(Step::Drop(self.fields()?));
        }
        self.eat("+");
        Ok(Step::Keep(self.fields()?))
    }

    pub(super) fn rename_step(&mut self, _: &str) -> Read {
        let mut pairs: Vec<(String, String)> = Vec::new();
        loop {
            self.bounded(&pairs)?;
            let from = self.field()?;
            if !self.eat_word("as") {
                return Err(self.expected("as and the new name"));
            }
            let to = self.field()?;
            pairs.push((from, to));
            if !self.eat(",") {
                return Ok(Step::Rename(pairs));
            }
        }
    }

    pub(super) fn let_step(&mut self, _: &str) -> Read {
        let mut fields = Vec::new();
        loop {
            self.bounded(&fields)?;
            let name = self.field()?;
            self.expect("=", "= and an expression")?;
            fields.push((name, self.term()?));
            if !self.eat(",") {
                return Ok(Step::Let(fields));
            }
        }
    }

    pub(super) fn sort_step(&mut self, _: &str) -> Read {
        Ok(Step::Sort(self.sort_keys()?))
    }

    pub(super) fn head_step(&mut self, _: &str) -> Read {
        Ok(Step::Head(self.count_argument()?.unwrap_or(COUNT_DEFAULT)))
    }

    pub(super) fn tail_step(&mut self, _: &str) -> Read {
        Ok(Step::Tail(self.count_argument()?.unwrap_or(COUNT_DEFAULT)))
    }

    pub(super) fn stats_step(&mut self, _: &str) -> Read {
        let measures = self.measures()?;
        Ok(Step::Stats { measures, by: self.clauses(&["by"])?.by })
    }

    pub(super) fn count_step(&mut self, _: &str) -> Read {
        let count = Measure { function: MeasureFunction::Count, argument: None, name: "count".to_owned() };
        Ok(Step::Stats { measures: vec![count], by: self.clauses(&["by"])?.by })
    }

    pub(super) fn chart_step(&mut self, _: &str) -> Read {
        let front = self.clauses(&["every"])?;
        let measures = self.measures()?;
        let clauses = self.clauses(&["by", "every", "over"])?;
        let every = clauses.every.or(front.every);
        Ok(Step::Chart { measures, by: clauses.by, every, over: clauses.over })
    }

    pub(super) fn top_step(&mut self, word: &str) -> Read {
        self.eat_assigned("limit");
        let count = self.count_argument()?.unwrap_or(COUNT_DEFAULT);
        let fields = self.fields()?;
        Ok(Step::Top { count, fields, by: self.clauses(&["by"])?.by, rare: word == "rare" })
    }

    pub(super) fn dedup_step(&mut self, _: &str) -> Read {
        self.eat_word("by");
        Ok(Step::Dedup(self.fields()?))
    }

    fn source_clause(&mut self) -> Result<Option<String>, Diagnostic> {
        if self.eat_word("from") { self.field().map(Some) } else { Ok(None) }
    }

    pub(super) fn parse_step(&mut self, word: &str) -> Read {
        const LAYOUTS: [(&str, Parsing); 5] = [
            ("json", Parsing::Json),
            ("logfmt", Parsing::Logfmt),
            ("clf", Parsing::Clf),
            ("syslog", Parsing::Syslog),
            ("combined", Parsing::Clf),
        ];
        self.next();
        let begin = self.at;
        let how = if let Some(pattern) = self.quoted()? {
            if !pattern.contains('<') || pattern.is_empty() {
                return Err(self
                    .complaint_at(begin, "the pattern takes no field out")
                    .help("write <name> where a field stands, <_> where anything may: parse \"<ip> - <_> <path>\""));
            }
            Parsing::Pattern(pattern)
        } else if let Some((name, how)) = LAYOUTS.iter().find(|(name, _)| self.rest().starts_with(name)) {
            self.at += name.len();
            how.clone()
        } else if matches!(word, "spath" | "unpack_json") && (self.ended() || self.word() == "from") {
            Parsing::Json
        } else if matches!(word, "extract" | "extract_kv" | "unpack_logfmt") && (self.ended() || self.word() == "from")
        {
            Parsing::Logfmt
        } else {
            return Err(self.expected("a pattern in quotes, json, logfmt, clf or syslog"));
        };
        Ok(Step::Parse { how, from: self.source_clause()? })
    }

    pub(super) fn rex_step(&mut self, _: &str) -> Read {
        let mut from = None;
        if self.eat_assigned("field") {
            from = Some(self.field()?);
        }
        let regex = self.text_argument("a regular expression in quotes")?;
        if !regex.contains("(?<") && !regex.contains("(?P<") {
            return Err(self.complaint("the expression takes no field out").help("name a group: (?<user>\\w+)"));
        }
        let from = from.or(self.source_clause()?);
        Ok(Step::Parse { how: Parsing::Regex(regex), from })
    }
}
