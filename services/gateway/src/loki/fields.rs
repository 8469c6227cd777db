//! What the lines of a query have besides labels: fields with their types and values, and patterns of their texts.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Bytes, Data, Path},
};
use serde_json::{Value, json};

use super::{
    answer::Line,
    ask::{Asker, apart, logs_of},
    patterns, said,
};
use crate::{api::Door, error::HttpError};

/// The newest lines that are looked at for fields, where the request does not say how many, and at most.
const LOOKED_AT_DEFAULT: usize = 1_000;
const LOOKED_AT_MAX: usize = 5_000;
/// Fields, or values of one, of an answer.
const FIELDS_MAX: usize = 1_000;
/// The newest lines that patterns are made of; older lines of the range are not counted.
const MINED_MAX: usize = 10_000;

/// `GET`, `POST /loki/api/v1/detected_fields`: the fields of the newest lines of a query.
pub(super) async fn fields(request: HttpRequest, door: Data<Door>, form: Bytes) -> HttpResponse {
    let found = async {
        let (lines, limit) = looked_at(&request, &door, &form).await?;
        let mut fields = detected(&lines);
        fields.truncate(limit);
        Ok(json!({ "fields": fields, "limit": limit }))
    };
    said(found.await)
}

/// `GET`, `POST /loki/api/v1/detected_field/{name}/values`: the values that a field has in them.
pub(super) async fn values(request: HttpRequest, door: Data<Door>, name: Path<String>, form: Bytes) -> HttpResponse {
    let found = async {
        let (lines, limit) = looked_at(&request, &door, &form).await?;
        let name = name.into_inner();
        let all = lines.iter().flat_map(|line| [&line.stream, &line.metadata, &line.parsed]);
        let values: BTreeSet<&String> = all.filter_map(|labels| labels.get(&name)).collect();
        Ok(json!({ "values": values.into_iter().take(limit).collect::<Vec<_>>(), "limit": limit }))
    };
    said(found.await)
}

/// `GET`, `POST /loki/api/v1/patterns`: what the newest lines of a query have in common, with counts over time.
///
/// Bounds: 10,000 lines; 300 patterns, those with the most lines.
pub(super) async fn patterns(request: HttpRequest, door: Data<Door>, form: Bytes) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door, &form).await?;
        let text = asker.parameters.query()?;
        let (plan, span) = (logs_of(text)?, asker.parameters.span(asker.now())?);
        let step = asker.parameters.step(span)?;
        let limit = MINED_MAX.min(asker.rows_max());
        let found = asker.lines((text, &plan), span, (limit, false)).await?;
        let mined = apart(move || patterns::mine(found.lines.iter().map(|line| (line.time, line.text.as_str())), step));
        let one = |pattern: &patterns::Found| json!({ "pattern": pattern.text, "samples": pattern.samples });
        Ok(json!({ "status": "success", "data": mined.await?.iter().map(one).collect::<Vec<_>>() }))
    };
    said(found.await)
}

/// The newest lines of the query, and how many of what is in them is wanted.
async fn looked_at(request: &HttpRequest, door: &Data<Door>, form: &[u8]) -> Result<(Vec<Line>, usize), HttpError> {
    let asker = Asker::of(request, door, form).await?;
    let text = asker.parameters.query()?;
    let (plan, span) = (logs_of(text)?, asker.parameters.span(asker.now())?);
    let limit = asker.parameters.count("limit", FIELDS_MAX, FIELDS_MAX)?;
    let wanted = asker.parameters.count("line_limit", LOOKED_AT_DEFAULT, LOOKED_AT_MAX)?.min(asker.rows_max());
    Ok((asker.lines((text, &plan), span, (wanted, false)).await?.lines, limit))
}

/// The fields of lines, those in the most lines first.
fn detected(lines: &[Line]) -> Vec<Value> {
    let mut found: BTreeMap<&str, (u64, BTreeSet<&str>)> = BTreeMap::new();
    for (label, value) in lines.iter().flat_map(|line| line.metadata.iter().chain(&line.parsed)) {
        let (count, values) = found.entry(label).or_default();
        *count += 1;
        values.insert(value);
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let one = |(label, (_, values)): &(&str, (u64, BTreeSet<&str>))| json!({ "label": label, "type": kind(values), "cardinality": values.len(), "parsers": null });
    found.iter().map(one).collect()
}

/// Whether a value is of a kind.
type Holds<'a> = &'a dyn Fn(&str) -> bool;

/// What all the values are.
fn kind(values: &BTreeSet<&str>) -> &'static str {
    let with_unit = |value: &str, units: &[&str]| {
        let number = value.trim_end_matches(|c: char| c.is_alphabetic());
        number.parse::<f64>().is_ok() && units.contains(&&value[number.len()..])
    };
    let kinds: [(&str, Holds<'_>); 5] = [
        ("int", &|value| value.parse::<i64>().is_ok()),
        ("float", &|value| value.parse::<f64>().is_ok_and(f64::is_finite)),
        ("boolean", &|value| matches!(value, "true" | "false")),
        ("duration", &|value| with_unit(value, &["ns", "us", "µs", "ms", "s", "m", "h"])),
        ("bytes", &|value| with_unit(value, &["B", "kB", "KB", "MB", "GB", "KiB", "MiB", "GiB"])),
    ];
    kinds.iter().find(|(_, holds)| values.iter().all(|value| holds(value))).map_or("string", |(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_all_values() {
        for (values, expected) in [
            (vec!["1", "-2"], "int"),
            (vec!["1", "2.5"], "float"),
            (vec!["true", "false"], "boolean"),
            (vec!["5ms", "1.5s"], "duration"),
            (vec!["10KB", "3MiB"], "bytes"),
            (vec!["5ms", "x"], "string"),
            (vec!["1", "true"], "string"),
            (vec!["NaN"], "string"),
            (vec!["ms"], "string"),
            (vec!["é5é"], "string"),
        ] {
            assert_eq!(kind(&values.iter().copied().collect()), expected, "{values:?}");
        }
    }

    #[test]
    fn fields_are_counted_without_labels_of_streams() {
        let line = |status: &str, more: Option<&str>| {
            let mut line = Line::default();
            line.stream.insert("app".into(), "a".into());
            line.metadata.insert("status".into(), status.into());
            line.parsed.extend(more.map(|more| ("took".to_owned(), more.to_owned())));
            line
        };
        assert_eq!(
            detected(&[line("200", None), line("500", Some("5ms")), line("200", None)]),
            [
                json!({ "label": "status", "type": "int", "cardinality": 2, "parsers": null }),
                json!({ "label": "took", "type": "duration", "cardinality": 1, "parsers": null }),
            ]
        );
    }
}
