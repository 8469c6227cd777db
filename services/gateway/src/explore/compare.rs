//! Which values of fields are commoner or rarer in one span of time than in another.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use engine::Facet;
use serde::{Deserialize, Serialize};
use types::IndexName;

use super::{
    Explorer, Period, PeriodSaid, SpanText, Which, bounded,
    facets::{FIELDS_MAX, Wanted, found},
    share,
    significance::{MARKED, of_shares},
};
use crate::{api::Door, error::HttpError};

/// Values of one answer.
const VALUES_DEFAULT: usize = 50;
const VALUES_MAX: usize = 500;
/// A field with more values than this in one of the spans says nothing: its values are ids.
const DISTINCT_MAX: usize = 1_000;

/// What is asked.
#[derive(Debug, Deserialize)]
pub(crate) struct Body {
    #[serde(flatten)]
    which: Which,
    a: SpanText,
    b: SpanText,
    fields: Option<Vec<String>>,
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Answer {
    a: PeriodSaid,
    b: PeriodSaid,
    values: Vec<Differing>,
    /// Values that differ too, beyond the limit.
    values_left_out: usize,
    fields: Vec<String>,
    fields_left_out: Vec<Left>,
}

#[derive(Debug, Serialize)]
struct Left {
    name: String,
    reason: String,
}

/// How many events have a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Support {
    rows: u64,
    share: f64,
}

/// A value that is commoner or rarer than before.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Differing {
    field: String,
    /// `None` where the field is not there.
    value: Option<String>,
    a: Support,
    b: Support,
    /// Its share in b against its share in a.
    ratio: Option<f64>,
    direction: &'static str,
    /// How surprising that is.
    significance: f64,
}

/// `POST /api/v1/indexes/{index}/compare`: the values of fields whose share of the events differs between the spans `a` and
/// `b` by more than chance, the most surprising first.
///
/// Bounds: 256 fields; those with more than 1,000 values in a span are left out, and named.
pub(crate) async fn compare(
    request: HttpRequest,
    door: Data<Door>,
    index: Path<IndexName>,
    body: Json<Body>,
) -> Result<HttpResponse, HttpError> {
    let body = body.into_inner();
    let limit = bounded("limit", body.limit, VALUES_DEFAULT, VALUES_MAX)?;
    let explorer = Explorer::of(&request, &door, index.into_inner(), &body.which).await?;
    let now = door.clock.now();
    let (a, b) = (Period::of(&body.a, now)?, Period::of(&body.b, now)?);
    let wanted = Wanted { fields: body.fields, keep: DISTINCT_MAX + 1, with_numbers: false };
    let of_a = found(&explorer, a, &wanted).await?;
    let of_b = found(&explorer, b, &wanted).await?;
    let (rows, left) = ((of_a.rows, of_b.rows), of_a.left.max(of_b.left));
    let mut facets: BTreeMap<String, (Facet, Facet)> = BTreeMap::new();
    for field in of_a.facets {
        facets.entry(field.column.name).or_default().0 = field.facet;
    }
    for field in of_b.facets {
        facets.entry(field.column.name).or_default().1 = field.facet;
    }
    let (mut values, mut fields, mut fields_left_out) = (Vec::new(), Vec::new(), Vec::new());
    for (name, (facet_a, facet_b)) in facets {
        match differing(&name, (&facet_a, rows.0), (&facet_b, rows.1)) {
            Some(found) => {
                values.extend(found);
                fields.push(name);
            }
            None => {
                let reason = format!("it has more than {DISTINCT_MAX} values");
                fields_left_out.push(Left { name, reason });
            }
        }
    }
    if left > 0 {
        let reason = format!("more than {FIELDS_MAX} fields: name those that matter");
        fields_left_out.push(Left { name: format!("{left} more"), reason });
    }
    values.sort_by(|a, b| {
        b.significance.total_cmp(&a.significance).then_with(|| (&a.field, &a.value).cmp(&(&b.field, &b.value)))
    });
    let values_left_out = values.len().saturating_sub(limit);
    values.truncate(limit);
    let (a, b) = (a.said(rows.0)?, b.said(rows.1)?);
    Ok(HttpResponse::Ok().json(Answer { a, b, values, values_left_out, fields, fields_left_out }))
}

/// The values of a field that differ; `None` where it has too many.
fn differing(field: &str, (a, rows_a): (&Facet, u64), (b, rows_b): (&Facet, u64)) -> Option<Vec<Differing>> {
    let too_many = |facet: &Facet| facet.values.len() > DISTINCT_MAX || (facet.rows > 0 && !facet.is_complete);
    if too_many(a) || too_many(b) {
        return None;
    }
    let (counts_a, counts_b) = (counts(a, rows_a), counts(b, rows_b));
    let all: BTreeSet<Option<&str>> = counts_a.keys().chain(counts_b.keys()).copied().collect();
    let one = |value: Option<&str>| {
        let count = |counts: &BTreeMap<Option<&str>, u64>| counts.get(&value).copied().unwrap_or_default();
        let (with_a, with_b) = (count(&counts_a), count(&counts_b));
        let significance = of_shares((with_a, rows_a), (with_b, rows_b));
        let a = Support { rows: with_a, share: share(with_a, rows_a) };
        let b = Support { rows: with_b, share: share(with_b, rows_b) };
        let found = Differing {
            field: field.to_owned(),
            value: value.map(str::to_owned),
            ratio: exact_ratio((with_a, rows_a), (with_b, rows_b)),
            direction: if u128::from(with_b) * u128::from(rows_a) > u128::from(with_a) * u128::from(rows_b) {
                "over"
            } else {
                "under"
            },
            a,
            b,
            significance,
        };
        (significance >= MARKED).then_some(found)
    };
    Some(all.into_iter().filter_map(one).collect())
}

/// Events by value, those without the field too.
fn counts(facet: &Facet, rows: u64) -> BTreeMap<Option<&str>, u64> {
    let values = facet.values.iter().map(|(value, count)| (Some(value.as_str()), *count));
    values.chain([(None, rows.saturating_sub(facet.rows))]).collect()
}

#[allow(clippy::cast_precision_loss, reason = "counts of events, for people")]
fn exact_ratio((with_a, rows_a): (u64, u64), (with_b, rows_b): (u64, u64)) -> Option<f64> {
    let ratio = (with_b as f64 / rows_b as f64) / (with_a as f64 / rows_a as f64);
    (with_a > 0 && rows_b > 0).then_some((ratio * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facet(values: &[(&str, u64)]) -> Facet {
        Facet {
            rows: values.iter().map(|(_, count)| count).sum(),
            distinct: u64::try_from(values.len()).unwrap(),
            is_complete: true,
            values: values.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect(),
        }
    }

    #[test]
    fn what_is_commoner_or_rarer_is_told() {
        let (a, b) = (facet(&[("v1", 1_000)]), facet(&[("v1", 500), ("v2", 450)]));
        let found = differing("version", (&a, 1_000), (&b, 1_000)).unwrap();
        let told: Vec<_> =
            found.iter().map(|one| (one.value.as_deref(), one.direction, one.a.rows, one.b.rows, one.ratio)).collect();
        assert_eq!(
            told,
            [
                (None, "over", 0, 50, None),
                (Some("v1"), "under", 1_000, 500, Some(0.5)),
                (Some("v2"), "over", 0, 450, None)
            ]
        );
        assert!(found[1].significance > found[2].significance && found[2].significance > found[0].significance);
        assert_eq!(found[2].b.share, 0.45);
        // Twice as many of everything is no difference.
        let twice = facet(&[("v1", 2_000)]);
        assert_eq!(differing("version", (&a, 1_000), (&twice, 2_000)).unwrap(), []);
        assert_eq!(differing("version", (&a, 1_000), (&Facet::default(), 0)).unwrap(), []);
    }

    #[test]
    fn ids_are_left_out() {
        let many: Vec<(String, u64)> = (0..=DISTINCT_MAX).map(|i| (i.to_string(), 1)).collect();
        let many = Facet { rows: 1_001, distinct: 1_001, is_complete: true, values: many };
        let one = facet(&[("x", 5)]);
        assert!(differing("id", (&many, 2_000), (&one, 5)).is_none());
        assert!(differing("id", (&one, 5), (&Facet { is_complete: false, ..one.clone() }, 5)).is_none());
    }

    proptest! {
        /// Every value is in both or in one, and nothing depends on which span is called a.
        #[test]
        fn turned_it_says_the_same(a in prop::collection::btree_map("[a-d]", 1_u64..500, 0..4), b in prop::collection::btree_map("[a-d]", 1_u64..500, 0..4), more in 0_u64..500) {
            let of = |counts: &BTreeMap<String, u64>| {
                facet(&counts.iter().map(|(value, count)| (value.as_str(), *count)).collect::<Vec<_>>())
            };
            let (a, b) = (of(&a), of(&b));
            let (rows_a, rows_b) = (a.rows + more, b.rows);
            let found = differing("f", (&a, rows_a), (&b, rows_b)).unwrap();
            let turned = differing("f", (&b, rows_b), (&a, rows_a)).unwrap();
            prop_assert_eq!(found.len(), turned.len());
            for (one, other) in found.iter().zip(&turned) {
                prop_assert_eq!((&one.value, one.a, one.b), (&other.value, other.b, other.a));
                prop_assert!(one.direction != other.direction && (one.significance - other.significance).abs() < 1e-6);
                prop_assert_eq!(one.direction == "over", one.b.share > one.a.share);
            }
        }
    }
}
