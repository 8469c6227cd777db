//! Texts of Lucene's query language, as Grafana and Kibana send them. Pure.

mod simple;
mod tokens;

use serde_json::{Map, Value};

use super::{
    clause::{Edge, Reading, Test, least, named, operator_is_and, phrase_in, regex, words_of},
    field::Field,
    refused::{Refused, flag, known, text, texts},
    words::lower_words,
};

pub(crate) use simple::simple;

/// The longest text of a query.
const TEXT_BYTES_MAX: usize = 32 << 10;

/// `query_string`
pub(crate) fn query_string(reading: &Reading, members: &Map<String, Value>) -> Result<Test, Refused> {
    let names = [
        "query",
        "default_field",
        "fields",
        "default_operator",
        "analyze_wildcard",
        "allow_leading_wildcard",
        "lenient",
        "type",
        "minimum_should_match",
        "time_zone",
        "analyzer",
        "quote_analyzer",
        "boost",
        "escape",
        "fuzziness",
        "fuzzy_max_expansions",
        "phrase_slop",
        "quote_field_suffix",
        "tie_breaker",
        "rewrite",
        "enable_position_increments",
        "max_determinized_states",
        "auto_generate_synonyms_phrase_query",
        "_name",
    ];
    known(members, &names, "query_string")?;
    let query =
        members.get("query").ok_or_else(|| Refused::parsing("[query_string] must be provided with a [query]"))?;
    let query = text(query, "query")?;
    let mut fields = members.get("fields").map_or(Ok(Vec::new()), |fields| texts(fields, "fields"))?;
    if let Some(default) = members.get("default_field") {
        fields.push(text(default, "default_field")?);
    }
    let every =
        members.get("default_operator").map_or(Ok(false), |op| operator_is_and(&text(op, "default_operator")?))?;
    let leading =
        members.get("allow_leading_wildcard").map_or(Ok(true), |flagged| flag(flagged, "allow_leading_wildcard"))?;
    let zone = members.get("time_zone").map(|zone| text(zone, "time_zone")).transpose()?;
    let minimum = members.get("minimum_should_match").cloned();
    let options = Options { every, leading, zone, minimum };
    lucene(reading, &query, &fields, options)
}

/// A text alone, as in a query string of a request.
pub(crate) fn plain(reading: &Reading, query: &str, fields: &[String], every: bool) -> Result<Test, Refused> {
    lucene(reading, query, fields, Options { every, leading: true, zone: None, minimum: None })
}

#[derive(Debug)]
struct Options {
    /// Whether clauses without an operator between them must all hold.
    every: bool,
    leading: bool,
    zone: Option<String>,
    minimum: Option<Value>,
}

fn lucene(reading: &Reading, query: &str, fields: &[String], options: Options) -> Result<Test, Refused> {
    bounded(query)?;
    let fields = named(fields)?;
    let mut parser = Parser { reading, text: query, at: 0, options };
    if query.trim().is_empty() {
        return Ok(Test::Nothing);
    }
    let found = parser.group(&fields, 1)?;
    parser.space();
    if parser.at < query.len() { Err(parser.wrong("an operator or a field")) } else { Ok(found) }
}

fn bounded(query: &str) -> Result<(), Refused> {
    if query.len() > TEXT_BYTES_MAX {
        return Err(Refused::illegal(format!("the query has {} bytes, {TEXT_BYTES_MAX} are the most", query.len())));
    }
    Ok(())
}

/// What a clause of a group is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occur {
    Must,
    Should,
    Not,
}

struct Parser<'a> {
    reading: &'a Reading,
    text: &'a str,
    at: usize,
    options: Options,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        let taken = self.rest().starts_with(token);
        if taken {
            self.at += token.len();
        }
        taken
    }

    /// Takes a word that stands for an operator.
    fn take_word(&mut self, word: &str) -> bool {
        let behind = self.rest().strip_prefix(word).map(|rest| rest.chars().next());
        let taken = behind.is_some_and(|next| next.is_none_or(|c| c.is_whitespace() || "()\"".contains(c)));
        if taken {
            self.at += word.len();
        }
        taken
    }

    fn wrong(&self, expected: &str) -> Refused {
        let shown: String = self.text.chars().take(200).collect();
        let column = self.text[..self.at].chars().count() + 1;
        Refused::parsing(format!("Failed to parse query [{shown}]: expected {expected} at column {column}"))
    }

    /// Clauses up to the end or a closing parenthesis, combined as Lucene's classic parser does it.
    fn group(&mut self, fields: &[Field], depth: usize) -> Result<Test, Refused> {
        let mut clauses: Vec<(Occur, Test)> = Vec::new();
        loop {
            self.space();
            if self.rest().is_empty() || self.rest().starts_with(')') {
                break;
            }
            let and = self.take_word("AND") || self.take("&&");
            let or = !and && (self.take_word("OR") || self.take("||"));
            if (and || or) && clauses.is_empty() {
                return Err(self.wrong("a term before an operator"));
            }
            self.space();
            let not = self.take_word("NOT") || self.take("!") || self.take("-");
            let must = !not && self.take("+");
            self.space();
            let test = self.clause(fields, depth)?;
            if let Some((occur, _)) = clauses.last_mut().filter(|(occur, _)| *occur != Occur::Not) {
                if and {
                    *occur = Occur::Must;
                } else if or && self.options.every {
                    *occur = Occur::Should;
                }
            }
            let required = must || if self.options.every { !or } else { and };
            clauses.push((
                if not {
                    Occur::Not
                } else if required {
                    Occur::Must
                } else {
                    Occur::Should
                },
                test,
            ));
        }
        if clauses.is_empty() {
            return Err(self.wrong("a term"));
        }
        let of =
            |wanted: Occur| clauses.iter().filter(move |(occur, _)| *occur == wanted).map(|(_, test)| test.clone());
        let (mut all, should): (Vec<Test>, Vec<Test>) = (of(Occur::Must).collect(), of(Occur::Should).collect());
        let fewest = match &self.options.minimum {
            Some(minimum) if depth == 1 => least(minimum, should.len())?,
            _ => usize::from(all.is_empty() && !should.is_empty()),
        };
        all.extend(of(Occur::Not).map(Test::not));
        all.push(Test::any(should, fewest));
        Ok(Test::all(all))
    }

    fn clause(&mut self, fields: &[Field], depth: usize) -> Result<Test, Refused> {
        self.reading.clause(depth)?;
        if self.take("(") {
            let found = self.group(fields, depth + 1)?;
            if !self.take(")") {
                return Err(self.wrong("[)]"));
            }
            self.boost()?;
            return Ok(found);
        }
        let begin = self.at;
        if self.take("*:*") {
            return Ok(Test::Everything);
        }
        if let Some(name) = self.name() {
            self.space();
            if name == "_exists_" {
                let (field, _) = self.word()?;
                return Ok(Test::Exists(Field::of(&field)));
            }
            if name.contains('*') && name != "*" {
                return Err(Refused::absent(&format!("pattern {name} of fields in a query")));
            }
            let field = if name == "*" { Field::Message } else { Field::of(&name) };
            if self.take("(") {
                let found = self.group(&[field], depth + 1)?;
                return if self.take(")") { Ok(found) } else { Err(self.wrong("[)]")) };
            }
            return self.value(&[field], true);
        }
        self.at = begin;
        self.value(fields, false)
    }

    /// `name:`
    fn name(&mut self) -> Option<String> {
        if self.rest().starts_with(['"', '/', '[', '{']) {
            return None;
        }
        let (name, _) = self.word().ok()?;
        self.take(":").then_some(name)
    }

    fn boost(&mut self) -> Result<(), Refused> {
        if self.take("^") {
            let digits = self.rest().bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
            if digits == 0 {
                return Err(self.wrong("a number"));
            }
            self.at += digits;
        }
        Ok(())
    }

    fn value(&mut self, fields: &[Field], given: bool) -> Result<Test, Refused> {
        let each = |parser: &Self, make: &dyn Fn(&Field) -> Result<Test, Refused>| {
            parser.reading.clause(0)?;
            Ok(Test::any(fields.iter().map(make).collect::<Result<Vec<_>, Refused>>()?, 1))
        };
        if self.take("\"") {
            let phrase = self.until('"')?;
            if self.take("~") {
                return Err(Refused::absent("slop ~ of a phrase"));
            }
            self.boost()?;
            return each(self, &|field| {
                if field.is_time() {
                    self.reading.equal(field.clone(), &phrase)
                } else {
                    phrase_in(field, &phrase, false, self.reading.now)
                }
            });
        }
        if self.take("/") {
            let pattern = self.regex()?;
            let pattern = regex(&pattern)?;
            return each(self, &|field| {
                Ok(Test::Matches { field: field.clone(), regex: pattern.clone(), any_case: false })
            });
        }
        if self.rest().starts_with(['[', '{']) {
            let (from, to) = self.range()?;
            return each(self, &|field| self.between(field, from.clone(), to.clone()));
        }
        if given && self.rest().starts_with(['<', '>']) {
            let above = self.take(">");
            let _below = !above && self.take("<");
            let included = self.take("=");
            self.space();
            let value = if self.take("\"") { self.until('"')? } else { self.word()?.0 };
            let edge = Some(Edge { value: value.into(), included });
            let (from, to) = if above { (edge, None) } else { (None, edge) };
            return each(self, &|field| self.between(field, from.clone(), to.clone()));
        }
        let (word, is_pattern) = self.word()?;
        if self.take("~") {
            return Err(Refused::absent("fuzziness ~ of a term"));
        }
        self.boost()?;
        if is_pattern && word.chars().all(|c| c == '*') {
            return if given { each(self, &|field| Ok(Test::Exists(field.clone()))) } else { Ok(Test::Everything) };
        }
        if is_pattern {
            if !self.options.leading && word.starts_with(['*', '?']) {
                return Err(Refused::parsing("'*' or '?' not allowed as first character in WildcardQuery"));
            }
            return each(self, &|field| {
                Ok(Test::Like { field: field.clone(), glob: word.clone(), any_case: *field == Field::Message })
            });
        }
        each(self, &|field| match field {
            Field::Message => {
                let words = lower_words(&word);
                let all = if self.options.every { words.len() } else { 1 };
                Ok(words_of(words, all))
            }
            field => self.reading.equal(field.clone(), &word),
        })
    }

    fn between(&self, field: &Field, from: Option<Edge>, to: Option<Edge>) -> Result<Test, Refused> {
        self.reading.between(field.clone(), from, to, None, self.options.zone.as_deref())
    }
}

#[cfg(test)]
#[path = "lucene_tests.rs"]
mod tests;
