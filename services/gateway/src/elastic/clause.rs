//! What a query asks of a row, and how the query DSL says it. Pure.

mod single;

use std::cell::Cell;

use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use types::{Position, Timestamp};

use super::{
    field::Field,
    lucene,
    moment::{self, Format},
    refused::{Refused, flag, known, listed, object, only, text, texts},
};

use single::{ids, matched, no_slop, one_of, pattern, phrase, regexp, term};
pub(crate) use single::{least, named, operator_is_and, phrase_in, plain, regex, words_of};

/// Queries in queries.
pub(crate) const DEPTH_MAX: usize = 32;
/// Clauses of one query.
pub(crate) const CLAUSES_MAX: usize = 1_024;
/// Values of one `terms`.
const TERMS_MAX: usize = 4_096;
/// Characters of a regular expression, as in Elasticsearch.
const REGEX_CHARS_MAX: usize = 1_000;

/// What a row must have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    Everything,
    Nothing,
    /// So many of the words.
    Words {
        words: Vec<String>,
        least: usize,
    },
    /// The words one after the other; of an open one the last begins a word.
    Phrase {
        words: Vec<String>,
        open: bool,
    },
    /// One of the values.
    OneOf {
        field: Field,
        values: Vec<Value>,
        any_case: bool,
    },
    /// A value between two.
    Between {
        field: Field,
        from: Option<Edge>,
        to: Option<Edge>,
    },
    /// An instant: from the first nanosecond, before the second.
    Within {
        field: Field,
        from: Option<i64>,
        until: Option<i64>,
    },
    Exists(Field),
    /// A whole value, of the message a word, like a pattern.
    Like {
        field: Field,
        glob: String,
        any_case: bool,
    },
    /// A whole value, of the message a part of it.
    Matches {
        field: Field,
        regex: String,
        any_case: bool,
    },
    At(Vec<Position>),
    All(Vec<Test>),
    Any {
        of: Vec<Test>,
        least: usize,
    },
    Not(Box<Test>),
}

/// An end of a range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Edge {
    pub(crate) value: Value,
    pub(crate) included: bool,
}

impl Test {
    /// Every one of them.
    pub(crate) fn all(tests: Vec<Self>) -> Self {
        let mut flat = Vec::new();
        for test in tests {
            match test {
                Self::Everything => {}
                Self::Nothing => return Self::Nothing,
                Self::All(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Self::Everything,
            1 => flat.swap_remove(0),
            _ => Self::All(flat),
        }
    }

    /// At least so many of them.
    pub(crate) fn any(mut of: Vec<Self>, least: usize) -> Self {
        match (least, of.len()) {
            (0, _) => Self::Everything,
            (least, length) if least > length => Self::Nothing,
            (_, 1) => of.swap_remove(0),
            (least, length) if least == length => Self::all(of),
            _ => Self::Any { of, least },
        }
    }

    pub(crate) fn not(self) -> Self {
        match self {
            Self::Everything => Self::Nothing,
            Self::Nothing => Self::Everything,
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }
}

/// A query that is being read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) now: Timestamp,
    clauses: Cell<usize>,
}

impl Reading {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { now, clauses: Cell::new(0) }
    }

    /// Takes note of one more clause.
    pub(crate) fn clause(&self, depth: usize) -> Result<(), Refused> {
        self.clauses.set(self.clauses.get() + 1);
        if self.clauses.get() > CLAUSES_MAX {
            let reason = format!("Query contains too many nested clauses; maxClauseCount is set to {CLAUSES_MAX}");
            return Err(Refused { kind: "too_many_nested_clauses", reason });
        }
        if depth > DEPTH_MAX {
            return Err(Refused::illegal(format!("The nested depth of the query exceeds the maximum of {DEPTH_MAX}")));
        }
        Ok(())
    }

    /// A query of the DSL.
    pub(crate) fn query(&self, value: &Value) -> Result<Test, Refused> {
        self.at(value, 1)
    }

    fn at(&self, value: &Value, depth: usize) -> Result<Test, Refused> {
        self.clause(depth)?;
        let (name, body) = only(value, "query")?;
        Ok(match name {
            "match_all" => Test::Everything,
            "match_none" => Test::Nothing,
            "bool" => self.boolean(object(body, "bool")?, depth)?,
            "constant_score" => {
                let members = object(body, "constant_score")?;
                known(members, &["filter", "boost", "_name"], "constant_score")?;
                let filter = members.get("filter");
                let filter = filter.ok_or_else(|| Refused::parsing("[constant_score] requires a 'filter' element"))?;
                self.at(filter, depth + 1)?
            }
            "match" => self.words(body)?,
            "match_phrase" => phrase(body, "match_phrase", false, self.now)?,
            "match_phrase_prefix" => phrase(body, "match_phrase_prefix", true, self.now)?,
            "match_bool_prefix" => phrase(body, "match_bool_prefix", true, self.now)?,
            "multi_match" => self.several(object(body, "multi_match")?)?,
            "term" => term(body, self.now)?,
            "terms" => self.terms(object(body, "terms")?)?,
            "range" => self.range(body)?,
            "exists" => {
                let members = object(body, "exists")?;
                known(members, &["field", "boost", "_name"], "exists")?;
                let field = members.get("field");
                let field = field.ok_or_else(|| Refused::parsing("[exists] must be provided with a [field]"))?;
                Test::Exists(Field::of(&text(field, "field")?))
            }
            "prefix" => pattern(body, "prefix")?,
            "wildcard" => pattern(body, "wildcard")?,
            "regexp" => regexp(body)?,
            "ids" => ids(object(body, "ids")?)?,
            "query_string" => lucene::query_string(self, object(body, "query_string")?)?,
            "simple_query_string" => lucene::simple(self, object(body, "simple_query_string")?)?,
            other => return Err(Refused::parsing(format!("unknown query [{other}]"))),
        })
    }

    fn boolean(&self, members: &Map<String, Value>, depth: usize) -> Result<Test, Refused> {
        let names =
            ["must", "filter", "should", "must_not", "minimum_should_match", "boost", "adjust_pure_negative", "_name"];
        known(members, &names, "bool")?;
        let read = |name: &str| -> Result<Vec<Test>, Refused> {
            let given = members.get(name).filter(|given| !given.is_null());
            listed(given.unwrap_or(&Value::Array(Vec::new()))).iter().map(|one| self.at(one, depth + 1)).collect()
        };
        let mut all = read("must")?;
        all.extend(read("filter")?);
        let should = read("should")?;
        let default = usize::from(all.is_empty() && !should.is_empty());
        let least = match members.get("minimum_should_match") {
            Some(given) => least(given, should.len())?,
            None => default,
        };
        all.extend(read("must_not")?.into_iter().map(Test::not));
        all.push(Test::any(should, least));
        Ok(Test::all(all))
    }

    /// `match`: words of the message, else a value.
    fn words(&self, body: &Value) -> Result<Test, Refused> {
        let (name, value) = only(body, "match")?;
        let (query, options) = match value {
            Value::Object(members) => {
                let names = [
                    "query",
                    "operator",
                    "minimum_should_match",
                    "boost",
                    "lenient",
                    "zero_terms_query",
                    "analyzer",
                    "auto_generate_synonyms_phrase_query",
                    "_name",
                ];
                known(members, &names, "match")?;
                (members.get("query").ok_or_else(|| Refused::parsing("[match] requires a query value"))?, Some(members))
            }
            value => (value, None),
        };
        let option = |name: &str| options.and_then(|members| members.get(name));
        let every = match option("operator") {
            Some(operator) => operator_is_and(&text(operator, "operator")?)?,
            None => false,
        };
        matched(&Field::of(name), query, every, option("minimum_should_match"), self.now)
    }

    fn several(&self, members: &Map<String, Value>) -> Result<Test, Refused> {
        let names = [
            "query",
            "fields",
            "type",
            "operator",
            "minimum_should_match",
            "lenient",
            "boost",
            "tie_breaker",
            "analyzer",
            "slop",
            "zero_terms_query",
            "_name",
        ];
        known(members, &names, "multi_match")?;
        let query = members.get("query").ok_or_else(|| Refused::parsing("No text specified for multi_match query"))?;
        let fields = members.get("fields").map_or(Ok(Vec::new()), |fields| texts(fields, "fields"))?;
        let kind = members.get("type").map_or(Ok("best_fields".to_owned()), |kind| text(kind, "type"))?;
        let every = members.get("operator").map_or(Ok(false), |op| operator_is_and(&text(op, "operator")?))?;
        no_slop(members)?;
        let one = |field: &Field| {
            self.clause(0)?;
            match kind.as_str() {
                "phrase" | "phrase_prefix" => {
                    phrase_in(field, &text(query, "query")?, kind == "phrase_prefix", self.now)
                }
                "best_fields" | "most_fields" | "cross_fields" | "bool_prefix" => {
                    matched(field, query, every, members.get("minimum_should_match"), self.now)
                }
                other => Err(Refused::absent(&format!("multi_match type {other}"))),
            }
        };
        let tests = named(&fields)?.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        Ok(Test::any(tests, 1))
    }

    fn terms(&self, members: &Map<String, Value>) -> Result<Test, Refused> {
        let mut fields = members.iter().filter(|(name, _)| !matches!(name.as_str(), "boost" | "_name"));
        let (Some((name, values)), None) = (fields.next(), fields.next()) else {
            return Err(Refused::parsing("[terms] query requires exactly one field"));
        };
        let Value::Array(values) = values else {
            return Err(if values.is_object() {
                Refused::absent("terms lookup")
            } else {
                Refused::parsing(format!("[terms] query does not support [{name}]"))
            });
        };
        if values.len() > TERMS_MAX {
            return Err(Refused::illegal(format!(
                "The number of terms [{}] used in the Terms Query request has exceeded the allowed maximum of [{TERMS_MAX}]",
                values.len()
            )));
        }
        one_of(Field::of(name), values, false, self.now)
    }

    fn range(&self, body: &Value) -> Result<Test, Refused> {
        let (name, bounds) = only(body, "range")?;
        let members = object(bounds, "range")?;
        let names = [
            "gte",
            "gt",
            "lte",
            "lt",
            "from",
            "to",
            "include_lower",
            "include_upper",
            "format",
            "time_zone",
            "relation",
            "boost",
            "_name",
        ];
        known(members, &names, "range")?;
        let edge = |inclusive: &str, exclusive: &str, old: &str, kept: &str| -> Result<Option<Edge>, Refused> {
            let given = |name: &str| members.get(name).filter(|value| !value.is_null()).cloned();
            let included = members.get(kept).map_or(Ok(true), |kept| flag(kept, old))?;
            Ok(given(exclusive)
                .map(|value| Edge { value, included: false })
                .or_else(|| given(inclusive).map(|value| Edge { value, included: true }))
                .or_else(|| given(old).map(|value| Edge { value, included })))
        };
        let from = edge("gte", "gt", "from", "include_lower")?;
        let to = edge("lte", "lt", "to", "include_upper")?;
        let format = members.get("format").map(|format| text(format, "format")).transpose()?;
        let zone = members.get("time_zone").map(|zone| text(zone, "time_zone")).transpose()?;
        self.between(Field::of(name), from, to, format.as_deref(), zone.as_deref())
    }

    /// A range of any field.
    pub(crate) fn between(
        &self,
        field: Field,
        from: Option<Edge>,
        to: Option<Edge>,
        format: Option<&str>,
        zone: Option<&str>,
    ) -> Result<Test, Refused> {
        let plain =
            |edge: &Option<Edge>| edge.as_ref().is_none_or(|edge| !edge.value.is_object() && !edge.value.is_array());
        if !plain(&from) || !plain(&to) {
            return Err(Refused::parsing("[range] query: a bound must be a number or a text"));
        }
        if !field.is_time() {
            return Ok(Test::Between { field, from, to });
        }
        let formats = format.map_or_else(|| Ok(Format::defaults()), Format::all)?;
        let zone = zone.map_or(Ok(TimeZone::UTC), moment::zone)?;
        let read = |edge: &Edge| moment::read(&edge.value, &formats, &zone, self.now);
        let from = from.map(|edge| read(&edge).map(|at| if edge.included { at.start } else { at.end })).transpose()?;
        let until = to.map(|edge| read(&edge).map(|at| if edge.included { at.end } else { at.start })).transpose()?;
        Ok(Test::Within { field, from, until })
    }

    /// A value of a field as it stands in a query of Lucene's.
    pub(crate) fn equal(&self, field: Field, value: &str) -> Result<Test, Refused> {
        if field.is_time() {
            let edge = || Some(Edge { value: value.into(), included: true });
            return self.between(field, edge(), edge(), None, None);
        }
        matched(&field, &value.into(), false, None, self.now)
    }
}

#[cfg(test)]
#[path = "clause_tests.rs"]
mod tests;
