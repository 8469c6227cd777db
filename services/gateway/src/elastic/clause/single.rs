//! Queries of one field. Pure.

use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use types::{Position, Timestamp};

use super::{
    super::{
        field::Field,
        moment::{self, Format},
        refused::{Refused, count, flag, known, listed, only, text},
        words::{escaped, lower_words},
    },
    CLAUSES_MAX, REGEX_CHARS_MAX, Test,
};

/// The fields that names mean; without any, and as `*`, the message.
pub(crate) fn named(names: &[String]) -> Result<Vec<Field>, Refused> {
    if names.is_empty() {
        return Ok(vec![Field::Message]);
    }
    let one = |name: &String| {
        let name = name.split('^').next().unwrap_or_default();
        match name {
            "*" => Ok(Field::Message),
            name if name.contains('*') => Err(Refused::absent(&format!("pattern {name} of fields in a query"))),
            name => Ok(Field::of(name)),
        }
    };
    names.iter().map(one).collect()
}

pub(crate) fn operator_is_and(text: &str) -> Result<bool, Refused> {
    match text.to_ascii_lowercase().as_str() {
        "and" => Ok(true),
        "or" => Ok(false),
        other => Err(Refused::illegal(format!("No enum constant for operator [{other}]"))),
    }
}

/// How many of so many clauses must hold: a number, what may be missing, or per cent of either.
pub(crate) fn least(given: &Value, of: usize) -> Result<usize, Refused> {
    let text = text(given, "minimum_should_match")?;
    let wrong = || Refused::illegal(format!("[minimum_should_match] cannot be [{text}]"));
    let (number, percent) = match text.trim().strip_suffix('%') {
        Some(number) => (number, true),
        None => (text.trim(), false),
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let total = i64::try_from(of).unwrap_or(i64::MAX);
    let amount = if percent { total.saturating_mul(number.clamp(-100, 100)) / 100 } else { number };
    let wanted = if number < 0 { total.saturating_add(amount) } else { amount };
    usize::try_from(wanted.clamp(0, total.saturating_add(1))).map_err(|_| wrong())
}

/// A value of a field: words of the message, of another field the whole value.
pub(super) fn matched(
    field: &Field,
    query: &Value,
    every: bool,
    minimum: Option<&Value>,
    now: Timestamp,
) -> Result<Test, Refused> {
    if *field != Field::Message {
        return one_of(field.clone(), std::slice::from_ref(query), false, now);
    }
    let words = lower_words(&text(query, "query")?);
    let least = match minimum {
        Some(given) => least(given, words.len())?,
        None if every => words.len(),
        None => 1,
    };
    Ok(words_of(words, least))
}

/// So many of the words of the message; without a word nothing.
pub(crate) fn words_of(words: Vec<String>, least: usize) -> Test {
    if words.is_empty() { Test::Nothing } else { Test::Words { words, least: least.max(1) } }
}

pub(super) fn one_of(field: Field, values: &[Value], any_case: bool, now: Timestamp) -> Result<Test, Refused> {
    if values.iter().any(|value| value.is_object() || value.is_array()) {
        return Err(Refused::parsing("a value of a term must be a text, a number or a truth value"));
    }
    if field == Field::Id {
        return Ok(at(values));
    }
    if field == Field::Message {
        // A term is one word as it is in the index: in small letters.
        let words = values.iter().map(|value| text(value, "term")).collect::<Result<Vec<_>, _>>()?;
        let one = |word: &String| {
            let found = lower_words(word);
            let is_word = found.len() == 1 && (any_case || found[0] == *word);
            if is_word { words_of(found, 1) } else { Test::Nothing }
        };
        return Ok(Test::any(words.iter().map(one).collect(), 1));
    }
    if field.is_time() {
        let one = |value: &Value| {
            let at = moment::read(value, &Format::defaults(), &TimeZone::UTC, now)?;
            Ok(Test::Within { field: field.clone(), from: Some(at.start), until: Some(at.end) })
        };
        return Ok(Test::any(values.iter().map(one).collect::<Result<_, Refused>>()?, 1));
    }
    let values: Vec<Value> = values.iter().filter(|value| !value.is_null()).cloned().collect();
    Ok(if values.is_empty() { Test::Nothing } else { Test::OneOf { field, values, any_case } })
}

/// The events in these places.
fn at(values: &[Value]) -> Test {
    let places: Vec<Position> = values.iter().filter_map(|id| place(id.as_str()?)).collect();
    if places.is_empty() { Test::Nothing } else { Test::At(places) }
}

/// The place that an `_id` names.
fn place(id: &str) -> Option<Position> {
    let (segment, offset) = id.rsplit_once('-')?;
    Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

pub(super) fn term(body: &Value, now: Timestamp) -> Result<Test, Refused> {
    let (name, value) = only(body, "term")?;
    let Value::Object(members) = value else { return one_of(Field::of(name), std::slice::from_ref(value), false, now) };
    known(members, &["value", "case_insensitive", "boost", "_name"], "term")?;
    let value = members.get("value").ok_or_else(|| Refused::parsing("[term] query requires a value"))?;
    let any_case = members.get("case_insensitive").map_or(Ok(false), |any| flag(any, "case_insensitive"))?;
    one_of(Field::of(name), std::slice::from_ref(value), any_case, now)
}

pub(super) fn no_slop(members: &Map<String, Value>) -> Result<(), Refused> {
    match members.get("slop").map(|slop| count(slop, "slop")).transpose()? {
        None | Some(0) => Ok(()),
        Some(_) => Err(Refused::absent("slop")),
    }
}

pub(super) fn phrase(body: &Value, what: &str, open: bool, now: Timestamp) -> Result<Test, Refused> {
    let (name, value) = only(body, what)?;
    let query = match value {
        Value::Object(members) => {
            let names = ["query", "slop", "analyzer", "boost", "zero_terms_query", "max_expansions", "_name"];
            known(members, &names, what)?;
            no_slop(members)?;
            members.get("query").ok_or_else(|| Refused::parsing(format!("[{what}] requires a query value")))?
        }
        value => value,
    };
    phrase_in(&Field::of(name), &text(query, "query")?, open, now)
}

/// Words one after the other in the message, of another field the whole value, or how it begins.
pub(crate) fn phrase_in(field: &Field, query: &str, open: bool, now: Timestamp) -> Result<Test, Refused> {
    match field {
        Field::Message => {
            let words = lower_words(query);
            Ok(if words.is_empty() { Test::Nothing } else { Test::Phrase { words, open } })
        }
        field if open => Ok(Test::Like { field: field.clone(), glob: format!("{}*", plain(query)), any_case: false }),
        field => one_of(field.clone(), &[query.into()], false, now),
    }
}

/// A text as a pattern that is that text.
pub(crate) fn plain(text: &str) -> String {
    text.replace('\\', "\\\\").replace('*', "\\*").replace('?', "\\?")
}

pub(super) fn pattern(body: &Value, what: &str) -> Result<Test, Refused> {
    let (name, value) = only(body, what)?;
    let (value, any_case) = match value {
        Value::Object(members) => {
            known(members, &["value", "wildcard", "prefix", "case_insensitive", "rewrite", "boost", "_name"], what)?;
            let given = members.get("value").or_else(|| members.get(what));
            let given = given.ok_or_else(|| Refused::parsing(format!("[{what}] query requires a value")))?;
            let any = members.get("case_insensitive").map_or(Ok(false), |any| flag(any, "case_insensitive"))?;
            (text(given, what)?, any)
        }
        value => (text(value, what)?, false),
    };
    let glob = if what == "prefix" { format!("{}*", plain(&value)) } else { value };
    Ok(Test::Like { field: Field::of(name), glob, any_case })
}

pub(super) fn regexp(body: &Value) -> Result<Test, Refused> {
    let (name, value) = only(body, "regexp")?;
    let (value, any_case) = match value {
        Value::Object(members) => {
            let names = [
                "value",
                "flags",
                "case_insensitive",
                "max_determinized_states",
                "rewrite",
                "boost",
                "_name",
                "flags_value",
            ];
            known(members, &names, "regexp")?;
            let given = members.get("value").ok_or_else(|| Refused::parsing("[regexp] query requires a value"))?;
            let any = members.get("case_insensitive").map_or(Ok(false), |any| flag(any, "case_insensitive"))?;
            (text(given, "regexp")?, any)
        }
        value => (text(value, "regexp")?, false),
    };
    Ok(Test::Matches { field: Field::of(name), regex: regex(&value)?, any_case })
}

/// A regular expression of Lucene's as one of ours. Its operators `~`, `&`, `<>` have no likeness here.
pub(crate) fn regex(lucene: &str) -> Result<String, Refused> {
    if lucene.chars().count() > REGEX_CHARS_MAX {
        return Err(Refused::illegal(format!(
            "The length of regex [{}] used in the Regexp Query request has exceeded the allowed maximum of [{REGEX_CHARS_MAX}]",
            lucene.chars().count()
        )));
    }
    let (mut out, mut in_class) = (String::new(), false);
    let mut chars = lucene.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(class @ ('d' | 'D' | 'w' | 'W' | 's' | 'S')) => out.extend(['\\', class]),
                Some(other) => out.push_str(&escaped(other.encode_utf8(&mut [0; 4]))),
                None => return Err(Refused::parsing("a regular expression must not end with a single \\")),
            },
            ']' if in_class => {
                in_class = false;
                out.push(c);
            }
            '[' if in_class => out.push_str("\\["),
            '&' | '~' if in_class => out.extend(['\\', c]),
            c if in_class => out.push(c),
            '[' => {
                in_class = true;
                out.push(c);
            }
            '"' => {
                let literal: String = chars.by_ref().take_while(|c| *c != '"').collect();
                out.push_str(&escaped(&literal));
            }
            '^' | '$' => out.extend(['\\', c]),
            '@' => out.push_str(".*"),
            '~' | '&' | '<' | '>' | '#' => {
                return Err(Refused::absent(&format!("operator {c} of a regular expression")));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

pub(super) fn ids(members: &Map<String, Value>) -> Result<Test, Refused> {
    known(members, &["values", "boost", "_name"], "ids")?;
    let values = members.get("values").ok_or_else(|| Refused::parsing("[ids] requires providing a values"))?;
    let values = listed(values);
    if values.len() > CLAUSES_MAX {
        return Err(Refused::illegal(format!("more than {CLAUSES_MAX} ids")));
    }
    Ok(at(values))
}
