//! Labels, their values, streams, and how much there is of them.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Bytes, Data, Path},
};
use query::logql::{LogqlRange, RangeFunction};
use serde_json::{Value, json};
use wire::Problem;

use super::{
    answer::{self, Labels, Series},
    ask::{Asker, Most, logs_of, sum_by},
    labels, said,
};
use crate::{api::Door, error::HttpError};

/// Values, or streams, of one answer.
const VALUES_MAX: usize = 10_000;
/// Selectors of one request for series: each is a query.
const SELECTORS_MAX: usize = 16;
/// Volumes where no limit is given.
const VOLUMES_DEFAULT: usize = 100;

/// `GET`, `POST /loki/api/v1/labels`: every field that the index has, whenever its events were.
pub(super) async fn names(request: HttpRequest, door: Data<Door>, form: Bytes) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door, &form).await?;
        Ok(json!({ "status": "success", "data": labels::all(&asker.columns().await?) }))
    };
    said(found.await)
}

/// `GET`, `POST /loki/api/v1/label/{name}/values`: the values of a label in the range, of the lines that `query` selects.
///
/// Bounds: the first 10,000 values.
pub(super) async fn values(request: HttpRequest, door: Data<Door>, name: Path<String>, form: Bytes) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door, &form).await?;
        let name = name.into_inner();
        let mut values = Vec::new();
        if labels::all(&asker.columns().await?).contains(&name) || name == "level" {
            let span = asker.parameters.span(asker.now())?;
            let by = vec![name.clone()];
            let all = asker.grouped(RangeFunction::Count, &asker.selected()?, span, by, Most::Cut(VALUES_MAX)).await?;
            values.extend(all.into_iter().filter_map(|mut one| one.labels.remove(&name)));
        }
        Ok(json!({ "status": "success", "data": values }))
    };
    said(found.await)
}

/// `GET`, `POST /loki/api/v1/series`: the labels of the streams that any `match` selects.
///
/// Bounds: the first 10,000 streams; 16 selectors.
pub(super) async fn series(request: HttpRequest, door: Data<Door>, form: Bytes) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door, &form).await?;
        let span = asker.parameters.span(asker.now())?;
        let selectors = asker.parameters.all(&["match", "match[]"]);
        let selectors = if selectors.is_empty() { vec!["{}"] } else { selectors };
        if selectors.len() > SELECTORS_MAX {
            let message =
                format!("at most {SELECTORS_MAX} matches in one request, not {}: ask in parts", selectors.len());
            return Err(Problem::bad_request("MalformedRequest", message).into());
        }
        let mut all: BTreeSet<Labels> = BTreeSet::new();
        for selector in selectors {
            let plan = logs_of(selector)?;
            let by = labels::of_query(&asker.columns().await?, &[&plan]);
            let found = asker.grouped(RangeFunction::Count, &plan, span, by, Most::Cut(VALUES_MAX)).await?;
            all.extend(found.into_iter().map(|one| one.labels));
            keep_first(&mut all, VALUES_MAX);
        }
        Ok(json!({ "status": "success", "data": all }))
    };
    said(found.await)
}

/// `GET`, `POST /loki/api/v1/index/stats`: how many streams, lines and bytes of lines a query would read. Chunks hold lines of
/// all streams here and are not counted.
pub(super) async fn stats(request: HttpRequest, door: Data<Door>, form: Bytes) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door, &form).await?;
        let (plan, span) = (asker.selected()?, asker.parameters.span(asker.now())?);
        let by = labels::of_query(&asker.columns().await?, &[&plan]);
        let streams = asker.grouped(RangeFunction::Count, &plan, span, by, Most::Refuse(VALUES_MAX)).await?;
        let bytes = asker.grouped(RangeFunction::Bytes, &plan, span, Vec::new(), Most::Refuse(1)).await?;
        Ok(
            json!({ "streams": streams.len(), "chunks": 0, "bytes": whole(sum(&bytes)), "entries": whole(sum(&streams)) }),
        )
    };
    said(found.await)
}

/// `GET`, `POST /loki/api/v1/index/volume`: bytes of lines by stream, or by label, most first.
pub(super) async fn volume(request: HttpRequest, door: Data<Door>, form: Bytes) -> HttpResponse {
    let found = async {
        let (asker, by) = volumes_of(&request, &door, &form).await?;
        let span = asker.parameters.span(asker.now())?;
        let limit = asker.parameters.count("limit", VOLUMES_DEFAULT, VALUES_MAX)?;
        let mut all =
            asker.grouped(RangeFunction::Bytes, &asker.selected()?, span, by, Most::Refuse(VALUES_MAX)).await?;
        if asker.parameters.get("aggregateBy") == Some("labels") {
            all = by_label(&all);
        }
        largest(&mut all, limit);
        all.iter_mut().flat_map(|one| &mut one.points).for_each(|point| point.0 = span.end.nanos());
        Ok(answer::success("vector", &answer::vector(&all), &json!({}), false))
    };
    said(found.await)
}

/// `GET`, `POST /loki/api/v1/index/volume_range`: the same in steps of time.
pub(super) async fn volume_range(request: HttpRequest, door: Data<Door>, form: Bytes) -> HttpResponse {
    let found = async {
        let (asker, by) = volumes_of(&request, &door, &form).await?;
        let span = asker.parameters.span(asker.now())?;
        let step = asker.parameters.step(span)?;
        let limit = asker.parameters.count("limit", VOLUMES_DEFAULT, VALUES_MAX)?;
        let metric = sum_by(RangeFunction::Bytes, &asker.selected()?, step, by);
        let range = LogqlRange { step, ..asker.range(span.start, span.end) };
        let mut all = asker.series(("", &metric), range, Most::Refuse(asker.rows_max())).await?.0;
        if asker.parameters.get("aggregateBy") == Some("labels") {
            all = by_label(&all);
        }
        largest(&mut all, limit);
        Ok(answer::success("matrix", &answer::matrix(&all), &json!({}), false))
    };
    said(found.await)
}

/// `GET`, `POST /loki/api/v1/detected_labels`: the labels of streams, and how many values each has.
pub(super) async fn detected_labels(request: HttpRequest, door: Data<Door>, form: Bytes) -> HttpResponse {
    let found = async {
        let asker = Asker::of(&request, &door, &form).await?;
        let (plan, span) = (asker.selected()?, asker.parameters.span(asker.now())?);
        let by = labels::of_query(&asker.columns().await?, &[&plan]);
        let all = asker.grouped(RangeFunction::Count, &plan, span, by, Most::Refuse(VALUES_MAX)).await?;
        let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (label, value) in all.iter().flat_map(|one| &one.labels) {
            values.entry(label).or_default().insert(value);
        }
        let one = |(label, values): (&&str, &BTreeSet<&str>)| json!({ "label": label, "cardinality": values.len() });
        Ok(json!({ "detectedLabels": values.iter().map(one).collect::<Vec<Value>>() }))
    };
    said(found.await)
}

/// Who asks for volumes, and by which labels.
async fn volumes_of(request: &HttpRequest, door: &Data<Door>, form: &[u8]) -> Result<(Asker, Vec<String>), HttpError> {
    let asker = Asker::of(request, door, form).await?;
    let named = asker.parameters.get("targetLabels").map(|names| names.split(',').map(str::to_owned).collect());
    let by = match named {
        Some(named) => named,
        None => labels::of_query(&asker.columns().await?, &[&asker.selected()?]),
    };
    Ok((asker, by))
}

fn keep_first<T: Ord>(all: &mut BTreeSet<T>, max: usize) {
    while all.len() > max {
        all.pop_last();
    }
}

/// Volumes of labels: each has those of all streams that have the label.
fn by_label(all: &[Series]) -> Vec<Series> {
    let mut sums: BTreeMap<&str, BTreeMap<i64, f64>> = BTreeMap::new();
    for one in all {
        for label in one.labels.keys() {
            let points = sums.entry(label).or_default();
            one.points.iter().for_each(|(at, bytes)| *points.entry(*at).or_default() += bytes);
        }
    }
    let series = |(label, points): (&str, BTreeMap<i64, f64>)| Series {
        labels: Labels::from([(label.to_owned(), String::new())]),
        points: points.into_iter().collect(),
    };
    sums.into_iter().map(series).collect()
}

/// Keeps the largest.
fn largest(all: &mut Vec<Series>, limit: usize) {
    let size = |one: &Series| one.points.iter().map(|point| point.1).sum::<f64>();
    all.sort_by(|a, b| size(b).total_cmp(&size(a)));
    all.truncate(limit);
}

fn sum(all: &[Series]) -> f64 {
    all.iter().flat_map(|one| &one.points).map(|point| point.1).sum()
}

/// A count out of a sum of counts.
fn whole(sum: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a sum of counts is whole and not negative"
    )]
    let whole = sum as u64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept() {
        let mut all = BTreeSet::from([4, 1, 3, 2]);
        keep_first(&mut all, 2);
        assert_eq!(all, BTreeSet::from([1, 2]));
    }

    #[test]
    fn volumes_are_of_streams_or_of_labels() {
        let one = |labels: &[(&str, &str)], bytes: f64| Series {
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            points: vec![(1, bytes), (2, 1.0)],
        };
        let mut all = vec![one(&[("a", "x")], 1.0), one(&[("a", "y"), ("b", "z")], 5.0), one(&[], 3.0)];
        let mut labels = by_label(&all);
        largest(&mut labels, 9);
        assert_eq!(
            answer::matrix(&labels),
            json!([{ "metric": { "a": "" }, "values": [[0, "6"], [0, "2"]] }, { "metric": { "b": "" }, "values": [[0, "5"], [0, "1"]] }])
        );
        largest(&mut all, 2);
        assert_eq!(all.iter().map(|one| one.points[0].1).collect::<Vec<_>>(), [5.0, 3.0]);
        assert_eq!(whole(sum(&all)), 10);
    }
}
