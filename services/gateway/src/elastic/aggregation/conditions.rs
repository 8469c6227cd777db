//! `filters`, `range` and `date_range`. Pure.

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::{
    super::{
        clause::{Edge, Reading, Test},
        moment::{self, Format},
        refused::{Refused, flag, known, number, object, text},
    },
    Conditions, MILLI, Shape, field,
};

pub(super) fn filters(reading: &Reading, members: &Map<String, Value>) -> Result<Conditions, Refused> {
    known(members, &["filters", "other_bucket", "other_bucket_key"], "filters")?;
    let mut buckets = Vec::new();
    let shape = match members.get("filters") {
        Some(Value::Object(named)) => {
            for (name, query) in named {
                buckets.push((keyed(name), reading.query(query)?));
            }
            Shape::Object
        }
        Some(Value::Array(all)) => {
            for query in all {
                buckets.push((Map::new(), reading.query(query)?));
            }
            Shape::List
        }
        _ => return Err(Refused::parsing("[filters] cannot be empty")),
    };
    let key = members.get("other_bucket_key").map(|key| text(key, "other_bucket_key")).transpose()?;
    if key.is_some() || members.get("other_bucket").is_some_and(|other| *other == Value::Bool(true)) {
        let none = Test::any(buckets.iter().map(|(_, test)| test.clone()).collect(), 1).not();
        buckets.push((keyed(&key.unwrap_or_else(|| "_other_".to_owned())), none));
    }
    Ok(Conditions { shape, buckets })
}

fn keyed(name: &str) -> Map<String, Value> {
    Map::from_iter([("key".to_owned(), name.into())])
}

pub(super) fn ranges(reading: &Reading, members: &Map<String, Value>, what: &str) -> Result<Conditions, Refused> {
    known(members, &["field", "ranges", "keyed", "format", "time_zone", "missing", "script"], what)?;
    if members.contains_key("missing") {
        return Err(Refused::absent("missing of range"));
    }
    let field = field(members, what)?;
    let given = |name: &str| members.get(name).map(|value| text(value, name)).transpose();
    let (format, zone) = (given("format")?, given("time_zone")?);
    let Some(Value::Array(all)) = members.get("ranges") else {
        return Err(Refused::parsing(format!("No [ranges] specified for the [{what}] aggregation")));
    };
    let mut buckets = Vec::new();
    for range in all {
        let range = object(range, "ranges")?;
        known(range, &["from", "to", "key", "mask"], "ranges")?;
        let edge = |end: &str| range.get(end).filter(|value| !value.is_null()).cloned();
        let (from, to) = (edge("from"), edge("to"));
        let mut shown = Map::new();
        let mut texts = Vec::new();
        for (end, value) in [("from", &from), ("to", &to)] {
            let Some(value) = value else {
                texts.push("*".to_owned());
                continue;
            };
            let (number, text) = if field.is_time() {
                let mut formats = format.as_deref().map_or(Ok(Vec::new()), Format::all)?;
                formats.extend(Format::defaults());
                let zone = zone.as_deref().map_or(Ok(TimeZone::UTC), moment::zone)?;
                let at = moment::read(value, &formats, &zone, reading.now)?.start;
                let text = formats.first().map_or_else(String::new, |format| format.shown(at, &zone));
                shown.insert(format!("{end}_as_string"), text.clone().into());
                (json!(at.div_euclid(MILLI)), text)
            } else {
                let number = number(value, end)?;
                (json!(number), format!("{number:?}"))
            };
            shown.insert(end.to_owned(), number);
            texts.push(text);
        }
        let key = range.get("key").map(|key| text(key, "key")).transpose()?;
        shown.insert("key".to_owned(), key.unwrap_or_else(|| texts.join("-")).into());
        let edge = |value: Option<Value>, included| value.map(|value| Edge { value, included });
        let test =
            reading.between(field.clone(), edge(from, true), edge(to, false), format.as_deref(), zone.as_deref())?;
        buckets.push((shown, test));
    }
    let keyed = members.get("keyed").map_or(Ok(false), |keyed| flag(keyed, "keyed"))?;
    Ok(Conditions { shape: if keyed { Shape::Object } else { Shape::List }, buckets })
}
