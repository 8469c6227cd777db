//! The order of hits, and where the next page begins. Pure.
//!
//! Of `@timestamp` alone, or with `_doc` behind it, rows come in the exact order of their times. `_doc` is a text that names the time to
//! the nanosecond and the place of a hit, so that a page behind it neither repeats nor leaves out any. Where other keys follow,
//! times are milliseconds, as clients see them.

use query::ColumnKind;
use serde_json::{Map, Value, json};
use types::{Position, Timestamp};

use super::{
    condition::shown,
    field::{Field, Fields, quoted},
    moment::{self, Format},
    refused::{Refused, known, listed, text},
};

const KEYS_MAX: usize = 16;
const MILLI: i64 = 1_000_000;

/// The order of hits.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sort {
    keys: Vec<Key>,
}

#[derive(Debug, Clone, PartialEq)]
struct Key {
    by: By,
    descending: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum By {
    /// The place of an event.
    Doc,
    /// All events are found equally well.
    Score,
    Field {
        field: Field,
        missing: Missing,
        format: Option<Format>,
    },
}

/// Where rows without a value come.
#[derive(Debug, Clone, PartialEq)]
enum Missing {
    First,
    Last,
    As(Value),
}

/// Where a page begins: behind a hit with these values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct After(Vec<Bound>);

#[derive(Debug, Clone, PartialEq)]
enum Bound {
    Place(i64, Position),
    Any,
    /// The first and the last nanosecond that a value names, of one millisecond.
    Time(i64, i64),
    Value(Value),
}

/// One expression of an order.
struct Term {
    sql: String,
    descending: bool,
    nulls_first: bool,
    /// Whether it can be null.
    nullable: bool,
}

impl Sort {
    /// Reads `sort`; without it the newest come first.
    pub(crate) fn read(given: Option<&Value>) -> Result<Self, Refused> {
        let mut keys = Vec::new();
        for one in given.map_or(&[][..], listed) {
            match one {
                Value::Object(members) => {
                    for (name, how) in members {
                        keys.push(Key::read(name, how)?);
                    }
                }
                name => keys.push(Key::read(&text(name, "sort")?, &Value::Null)?),
            }
        }
        if keys.len() > KEYS_MAX {
            return Err(Refused::illegal(format!("hits are sorted by at most {KEYS_MAX} keys")));
        }
        Ok(Self { keys })
    }

    /// Whether nothing is said about the order.
    pub(crate) fn is_default(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether times are compared to the nanosecond.
    fn is_exact(&self) -> bool {
        let keys = self.keys.iter().filter(|key| key.by != By::Score);
        let keys: Vec<&By> = keys.map(|key| &key.by).collect();
        matches!(
            keys.as_slice(),
            [By::Field { field: Field::Time, .. }] | [By::Field { field: Field::Time, .. }, By::Doc]
        )
    }

    fn terms(&self, key: &Key, fields: &Fields) -> Vec<Term> {
        let place = |column: &str| {
            let sql = super::field::name(column);
            Term { sql, descending: key.descending, nulls_first: false, nullable: false }
        };
        match &key.by {
            By::Score => Vec::new(),
            By::Doc => vec![place("_segment"), place("_offset")],
            By::Field { field, missing, .. } => {
                let Some(sql) = expression(field, missing, self.is_exact(), fields) else { return Vec::new() };
                let nulls_first = *missing == Missing::First;
                let nullable =
                    matches!(field, Field::Column(_) | Field::Severity) && !matches!(missing, Missing::As(_));
                vec![Term { sql, descending: key.descending, nulls_first, nullable }]
            }
        }
    }

    /// What stands behind `ORDER BY`.
    pub(crate) fn order(&self, fields: &Fields) -> String {
        let mut terms: Vec<Term> = self.keys.iter().flat_map(|key| self.terms(key, fields)).collect();
        let descending = self.keys.first().is_none_or(|key| key.descending);
        let mut columns = vec!["_segment", "_offset"];
        if self.keys.is_empty() {
            columns.insert(0, "_time");
        }
        for column in columns {
            let sql = super::field::name(column);
            if terms.iter().all(|term| term.sql != sql) {
                terms.push(Term { sql, descending, nulls_first: false, nullable: false });
            }
        }
        let one = |term: &Term| {
            let direction = if term.descending { "DESC" } else { "ASC" };
            format!("{} {direction} NULLS {}", term.sql, if term.nulls_first { "FIRST" } else { "LAST" })
        };
        terms.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The columns from which the values of a hit are read.
    pub(crate) fn columns(&self, fields: &Fields) -> Vec<String> {
        let one = |(number, key): (usize, &Key)| match &key.by {
            By::Field { field, .. } if field.is_time() => None,
            By::Field { field, missing, .. } => {
                Some(format!("{} AS \"#s{number}\"", expression(field, missing, true, fields)?))
            }
            By::Doc | By::Score => None,
        };
        self.keys.iter().enumerate().filter_map(one).collect()
    }

    /// The values of a hit.
    pub(crate) fn values(&self, row: &Map<String, Value>, nanos: impl Fn(&str) -> Option<i64>) -> Vec<Value> {
        let text = |column: &str| row.get(column).map(shown).unwrap_or_default();
        let one = |(number, key): (usize, &Key)| match &key.by {
            By::Score => json!(1.0),
            By::Doc => {
                format!("{}:{}:{}", nanos("_time").unwrap_or_default(), text("_segment"), text("_offset")).into()
            }
            By::Field { field, format, .. } if field.is_time() => {
                let at = nanos(if *field == Field::Time { "_time" } else { "_received" });
                match (at, format) {
                    (Some(at), Some(format)) => format.shown(at, &jiff::tz::TimeZone::UTC).into(),
                    (Some(at), None) => at.div_euclid(MILLI).into(),
                    (None, _) => Value::Null,
                }
            }
            By::Field { .. } => row.get(&format!("#s{number}")).cloned().unwrap_or(Value::Null),
        };
        self.keys.iter().enumerate().map(one).collect()
    }

    /// Reads `search_after`.
    pub(crate) fn after(&self, given: &Value) -> Result<After, Refused> {
        let Value::Array(values) = given else { return Err(Refused::parsing("[search_after] must be a list")) };
        if self.keys.is_empty() {
            return Err(Refused::illegal("Sort must contain at least one field."));
        }
        if values.len() != self.keys.len() {
            let reason = format!("search_after has {} value(s) but sort has {}.", values.len(), self.keys.len());
            return Err(Refused::illegal(reason));
        }
        let one = |(key, value): (&Key, &Value)| {
            Ok(match &key.by {
                By::Score => Bound::Any,
                By::Doc => value.as_str().and_then(cursor).ok_or_else(|| {
                    Refused::illegal(format!("search_after: {value} is no value of [_doc] that was answered here"))
                })?,
                By::Field { field, format, .. } if field.is_time() => {
                    let mut formats: Vec<Format> = format.iter().cloned().collect();
                    formats.extend(Format::defaults());
                    let at = moment::read(value, &formats, &jiff::tz::TimeZone::UTC, Timestamp::from_nanos(0))?;
                    Bound::Time(at.start, at.end.min(at.start.saturating_add(MILLI)).saturating_sub(1))
                }
                By::Field { .. } if value.is_object() || value.is_array() => {
                    return Err(Refused::parsing("[search_after] must be a list of texts and numbers"));
                }
                By::Field { .. } => Bound::Value(value.clone()),
            })
        };
        self.keys.iter().zip(values).map(one).collect::<Result<_, Refused>>().map(After)
    }

    /// The condition that rows behind a hit pass.
    pub(crate) fn behind(&self, after: &After, fields: &Fields) -> String {
        let mut equal: Vec<String> = Vec::new();
        let mut either: Vec<String> = Vec::new();
        let exact = after.0.iter().find_map(|bound| match bound {
            Bound::Place(nanos, _) if self.is_exact() => Some(*nanos),
            _ => None,
        });
        for (key, bound) in self.keys.iter().zip(&after.0) {
            let constants: Vec<Option<String>> = match bound {
                Bound::Any => continue,
                Bound::Place(_, place) => {
                    vec![Some(quoted(&place.segment.to_string())), Some(place.offset.to_string())]
                }
                Bound::Time(first, last) => vec![Some(moment::sql(match exact {
                    Some(nanos) => nanos,
                    None if !self.is_exact() => first.div_euclid(MILLI).saturating_mul(MILLI),
                    None if key.descending => *first,
                    // Up to the last of them all have been seen.
                    None => *last,
                }))],
                Bound::Value(value) => vec![constant(key, value, fields)],
            };
            for (term, constant) in self.terms(key, fields).into_iter().zip(constants) {
                let mut all = equal.clone();
                all.push(term.behind(constant.as_deref()));
                either.push(super::condition::joined(&all, "AND"));
                equal.push(match constant {
                    Some(constant) => format!("{} = {constant}", term.sql),
                    None => format!("{} IS NULL", term.sql),
                });
            }
        }
        super::condition::joined(&either, "OR")
    }
}

impl Term {
    fn behind(&self, constant: Option<&str>) -> String {
        let sign = if self.descending { "<" } else { ">" };
        match constant {
            None if self.nulls_first => format!("{} IS NOT NULL", self.sql),
            None => "FALSE".to_owned(),
            Some(constant) if self.nullable && !self.nulls_first => {
                format!("({} {sign} {constant} OR {} IS NULL)", self.sql, self.sql)
            }
            Some(constant) => format!("{} {sign} {constant}", self.sql),
        }
    }
}

impl Key {
    fn read(name: &str, how: &Value) -> Result<Self, Refused> {
        let (order, members) = match how {
            Value::Null => (None, None),
            Value::Object(members) => {
                let names = ["order", "missing", "unmapped_type", "mode", "format", "numeric_type", "nested"];
                known(members, &names, "sort")?;
                if members.contains_key("nested") {
                    return Err(Refused::absent("nested in sort"));
                }
                (members.get("order"), Some(members))
            }
            order => (Some(order), None),
        };
        let by = match name {
            "_doc" | "_shard_doc" => By::Doc,
            "_score" => By::Score,
            "_script" | "_geo_distance" => return Err(Refused::absent(&format!("sort by {name}"))),
            name => {
                let given = |name: &str| members.and_then(|members| members.get(name));
                let missing = match given("missing") {
                    None => Missing::Last,
                    Some(Value::String(word)) if word == "_last" => Missing::Last,
                    Some(Value::String(word)) if word == "_first" => Missing::First,
                    Some(value) if value.is_object() || value.is_array() => {
                        return Err(Refused::parsing("[missing] of sort must be a text or a number"));
                    }
                    Some(value) => Missing::As(value.clone()),
                };
                let format = given("format").map(|format| Format::all(&text(format, "format")?)).transpose()?;
                let format = format.and_then(|all| all.into_iter().next());
                By::Field { field: Field::of(name), missing, format }
            }
        };
        let descending = match order.map(|order| text(order, "order")).transpose()? {
            None => by == By::Score,
            Some(order) => match order.to_ascii_lowercase().as_str() {
                "asc" => false,
                "desc" => true,
                other => return Err(Refused::illegal(format!("Unknown SortOrder [{other}]"))),
            },
        };
        Ok(Self { by, descending })
    }
}

fn cursor(text: &str) -> Option<Bound> {
    let mut parts = text.split(':');
    let (nanos, segment, offset) = (parts.next()?, parts.next()?, parts.next()?);
    let place = Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? };
    parts.next().is_none().then_some(Bound::Place(nanos.parse().ok()?, place))
}

fn expression(field: &Field, missing: &Missing, exact: bool, fields: &Fields) -> Option<String> {
    let column = fields.typed(field)?;
    Some(match missing {
        _ if field.is_time() && !exact => format!("date_trunc('millisecond', {})", column.sql),
        Missing::As(value) => match as_kind(value, column.kind) {
            Some(constant) => format!("coalesce({}, {constant})", column.sql),
            None => column.sql,
        },
        _ => column.sql,
    })
}

/// The value as a constant of a column's kind; `None` where it is none.
pub(crate) fn as_kind(value: &Value, kind: ColumnKind) -> Option<String> {
    let text = shown(value);
    Some(match kind {
        ColumnKind::Integer | ColumnKind::Number => match text.parse::<i64>() {
            Ok(whole) if whole < 0 => format!("({whole})"),
            Ok(whole) => whole.to_string(),
            Err(_) => super::condition::decimal(text.parse().ok().filter(|number: &f64| number.is_finite())?),
        },
        ColumnKind::Boolean => text.parse::<bool>().ok()?.to_string(),
        ColumnKind::Text | ColumnKind::Other => quoted(&text),
        ColumnKind::Time => return None,
    })
}

fn constant(key: &Key, value: &Value, fields: &Fields) -> Option<String> {
    let By::Field { field, .. } = &key.by else { return None };
    if value.is_null() {
        return None;
    }
    as_kind(value, fields.typed(field)?.kind)
}

#[cfg(test)]
#[path = "sort_tests.rs"]
mod tests;
