//! Which fields events have, and which values these have.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Float64Type, Int64Type},
};
use engine::Facet;
use query::{Column, ColumnKind, Diagnostic, Sifted, nearest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use types::IndexName;
use wire::Problem;

use super::{Explorer, Period, SpanText, Which, bounded, number, share};
use crate::{api::Door, error::HttpError, histogram::rfc3339};

/// Values of one field in one answer.
const VALUES_DEFAULT: usize = 10;
const VALUES_MAX: usize = 100;
/// Fields of one answer; others are asked for by name.
pub(super) const FIELDS_MAX: usize = 256;
/// Fields that one statement asks about.
const FIELDS_AT_ONCE: usize = 64;
/// Percentiles of numbers, and their names.
const PERCENTILES: [(&str, &str); 3] = [("p50", "0.5"), ("p90", "0.9"), ("p99", "0.99")];

/// What is asked.
#[derive(Debug, Deserialize)]
pub(crate) struct Body {
    #[serde(flatten)]
    which: Which,
    from: Option<String>,
    to: Option<String>,
    fields: Option<Vec<String>>,
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Answer {
    from: String,
    to: String,
    /// How many events were looked at.
    rows: u64,
    sampled: Option<Value>,
    fields: Vec<Told>,
    fields_left_out: usize,
}

/// What is told of a field.
#[derive(Debug, Serialize)]
struct Told {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    rows: u64,
    coverage: f64,
    distinct: u64,
    at_least: bool,
    values: Vec<Value>,
    #[serde(flatten)]
    numbers: serde_json::Map<String, Value>,
}

/// `POST /api/v1/indexes/{index}/facets`: for each field how many events have it, how many values it has, and which are the
/// commonest; of numbers also where they lie.
///
/// Bounds: 256 fields, those that come first by name; of each the first 10,000 different values are counted, with more the
/// answer says `at_least`. The events are all of the span unless the query has `sample`, then `sampled` says so.
pub(crate) async fn facets(
    request: HttpRequest,
    door: Data<Door>,
    index: Path<IndexName>,
    body: Json<Body>,
) -> Result<HttpResponse, HttpError> {
    let body = body.into_inner();
    let limit = bounded("limit", body.limit, VALUES_DEFAULT, VALUES_MAX)?;
    let explorer = Explorer::of(&request, &door, index.into_inner(), &body.which).await?;
    let period = Period::of(&SpanText { from: body.from, to: body.to }, door.clock.now())?;
    let wanted = Wanted { fields: body.fields, keep: limit, with_numbers: true };
    let Found { rows, facets, left } = found(&explorer, period, &wanted).await?;
    let mut fields: Vec<Told> = facets.into_iter().map(|of| told(of, rows)).collect();
    if wanted.fields.is_none() {
        fields.retain(|field| field.rows > 0);
    }
    fields.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.name.cmp(&b.name)));
    let one_in = explorer.sieve.one_in();
    Ok(HttpResponse::Ok().json(Answer {
        from: rfc3339(period.from.millis())?,
        to: rfc3339(period.to.millis())?,
        rows,
        sampled: (one_in > 1).then(|| json!({ "one_in": one_in })),
        fields,
        fields_left_out: left,
    }))
}

fn told(OfField { column, facet, numbers }: OfField, rows: u64) -> Told {
    let value =
        |(value, count): &(String, u64)| json!({ "value": value, "count": count, "share": share(*count, facet.rows) });
    Told {
        values: facet.values.iter().map(value).collect(),
        name: column.name,
        kind: word(column.kind),
        rows: facet.rows,
        coverage: share(facet.rows, rows),
        distinct: facet.distinct,
        at_least: !facet.is_complete,
        numbers,
    }
}

fn word(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text => "text",
        ColumnKind::Integer => "integer",
        ColumnKind::Number => "number",
        ColumnKind::Boolean => "boolean",
        ColumnKind::Time => "time",
        ColumnKind::Other => "other",
    }
}

/// What is wanted of which fields.
pub(super) struct Wanted {
    /// `None` for all that are not the platform's.
    pub(super) fields: Option<Vec<String>>,
    /// How many values of each.
    pub(super) keep: usize,
    /// Whether it is also wanted where numbers lie.
    pub(super) with_numbers: bool,
}

/// What was found of a field.
pub(super) struct OfField {
    pub(super) column: Column,
    pub(super) facet: Facet,
    numbers: serde_json::Map<String, Value>,
}

/// What was found.
pub(super) struct Found {
    /// How many events were looked at.
    pub(super) rows: u64,
    pub(super) facets: Vec<OfField>,
    /// How many fields were not looked at.
    pub(super) left: usize,
}

/// Counts the values of fields in a period, [`FIELDS_AT_ONCE`] at a time.
pub(super) async fn found(explorer: &Explorer, period: Period, wanted: &Wanted) -> Result<Found, HttpError> {
    let mut found = Found { rows: 0, facets: Vec::new(), left: 0 };
    let mut begin = 0;
    loop {
        let over = |sifted: &Sifted| {
            let (fields, _) = chosen(sifted, wanted.fields.as_deref())?;
            Ok(statement(sifted, fields.iter().skip(begin).take(FIELDS_AT_ONCE), wanted))
        };
        let (result, sifted) = explorer.ask_fields(period, &over).await?;
        let (fields, left) = chosen(&sifted, wanted.fields.as_deref())
            .map_err(|error| HttpError::query("InvalidQuery", &error, explorer.sieve.text()))?;
        if begin == 0 {
            found.rows = number(&result, "n");
        }
        found.left = left;
        let batch = result.batches.iter().find(|batch| batch.num_rows() > 0);
        let batch = batch.ok_or_else(|| Problem::internal("a count without a row"))?;
        for (i, column) in fields.iter().skip(begin).take(FIELDS_AT_ONCE).enumerate() {
            let facet = batch.column_by_name(&format!("f{i}")).and_then(|column| Facet::read(column, 0));
            let facet = facet.ok_or_else(|| Problem::internal("the values of a field cannot be read"))?;
            found.facets.push(OfField { column: column.clone(), facet, numbers: numbers(batch, i) });
        }
        begin += FIELDS_AT_ONCE;
        if begin >= fields.len() {
            return Ok(found);
        }
    }
}

/// The fields that are looked at, and how many are left out.
fn chosen(sifted: &Sifted, wanted: Option<&[String]>) -> Result<(Vec<Column>, usize), Diagnostic> {
    let mut fields: Vec<Column> = match wanted {
        None => sifted.columns.iter().filter(|column| !column.name.starts_with('_')).cloned().collect(),
        Some(names) => {
            let one = |name: &String| {
                sifted.column(name).cloned().ok_or_else(|| {
                    let found = Diagnostic::new(1, 1, format!("there is no field {name}"));
                    match nearest(name, sifted.columns.iter().map(|column| column.name.as_str())) {
                        Some(meant) => found.help(format!("did you mean {meant}?")),
                        None => found,
                    }
                })
            };
            names.iter().map(one).collect::<Result<_, _>>()?
        }
    };
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    fields.dedup_by(|a, b| a.name == b.name);
    let left = fields.len().saturating_sub(FIELDS_MAX);
    fields.truncate(FIELDS_MAX);
    Ok((fields, left))
}

fn is_number(column: &Column) -> bool {
    matches!(column.kind, ColumnKind::Integer | ColumnKind::Number)
}

fn statement<'c>(sifted: &Sifted, fields: impl Iterator<Item = &'c Column>, wanted: &Wanted) -> String {
    let mut list = vec!["count(*) AS \"n\"".to_owned()];
    for (i, column) in fields.enumerate() {
        list.push(format!("facet({}, {}) AS \"f{i}\"", sifted.text_of(&column.name), wanted.keep));
        if wanted.with_numbers && is_number(column) {
            let name = sifted.name_of(&column.name);
            list.push(format!("min({name}) AS \"min_{i}\", max({name}) AS \"max_{i}\""));
            list.extend(PERCENTILES.map(|(word, share)| {
                format!(
                    "approx_percentile_cont({share}) WITHIN GROUP (ORDER BY CAST({name} AS DOUBLE)) AS \"{word}_{i}\""
                )
            }));
        }
    }
    format!("SELECT {} FROM {}", list.join(", "), sifted.from)
}

/// Where the numbers of a field lie, where it has any.
fn numbers(batch: &RecordBatch, i: usize) -> serde_json::Map<String, Value> {
    let of = |word: &str| {
        let column = batch.column_by_name(&format!("{word}_{i}")).filter(|column| column.is_valid(0))?;
        let value = match column.data_type() {
            DataType::Int64 => Value::from(column.as_primitive::<Int64Type>().value(0)),
            DataType::Float64 => Value::from(column.as_primitive::<Float64Type>().value(0)),
            _ => return None,
        };
        Some((word.to_owned(), value))
    };
    ["min", "max"].into_iter().chain(PERCENTILES.map(|(word, _)| word)).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sifted(count: usize) -> Sifted {
        let column = |name: String, kind| Column { name, kind };
        let mut columns: Vec<Column> = (0..count).map(|i| column(format!("f{i:03}"), ColumnKind::Text)).collect();
        columns.push(column("_time".to_owned(), ColumnKind::Time));
        columns.push(column("took".to_owned(), ColumnKind::Number));
        Sifted { from: "\"P1\"".to_owned(), columns }
    }

    #[test]
    fn fields_are_those_that_are_not_the_platforms() {
        let names = |fields: &[Column]| fields.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        let (fields, left) = chosen(&sifted(2), None).unwrap();
        assert_eq!((names(&fields), left), (vec!["f000".into(), "f001".into(), "took".into()], 0));
        let (fields, left) = chosen(&sifted(300), None).unwrap();
        assert_eq!((fields.len(), left), (FIELDS_MAX, 45));
        let asked = ["took".to_owned(), "_time".to_owned(), "took".to_owned()];
        assert_eq!(names(&chosen(&sifted(0), Some(&asked)).unwrap().0), ["_time", "took"]);
        let missing = chosen(&sifted(0), Some(&["tok".to_owned()])).unwrap_err();
        assert_eq!(missing.help.as_deref(), Some("did you mean took?"));
    }

    #[test]
    fn one_statement_asks_about_several_fields() {
        let wanted = Wanted { fields: None, keep: 5, with_numbers: true };
        let (sifted, all) = (sifted(1), chosen(&sifted(1), None).unwrap().0);
        assert_eq!(
            statement(&sifted, all.iter(), &wanted),
            "SELECT count(*) AS \"n\", facet(\"f000\", 5) AS \"f0\", facet(CAST(\"took\" AS TEXT), 5) AS \"f1\", \
             min(\"took\") AS \"min_1\", max(\"took\") AS \"max_1\", \
             approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY CAST(\"took\" AS DOUBLE)) AS \"p50_1\", \
             approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY CAST(\"took\" AS DOUBLE)) AS \"p90_1\", \
             approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY CAST(\"took\" AS DOUBLE)) AS \"p99_1\" FROM \"P1\""
        );
    }
}
