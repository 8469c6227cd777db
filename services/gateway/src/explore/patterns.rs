//! What messages have in common, how many there are of each kind, and what has changed since an earlier time.

use std::{cmp::Reverse, collections::HashMap};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use engine::{SEVERITIES, Signed};
use ingest::template::{BRANCHES, Dictionary};
use query::Sifted;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use types::IndexName;
use wire::Problem;

use super::{
    Explorer, Period, PeriodSaid, SpanText, Which, bounded, needs, number, share,
    significance::{MARKED, of_rates},
};
use crate::{
    api::Door,
    error::HttpError,
    histogram::{Grid, rfc3339_nanos},
};

/// Patterns of one answer.
const PATTERNS_DEFAULT: usize = 50;
const PATTERNS_MAX: usize = 500;
/// Points of a pattern's counts over time.
const BUCKETS_DEFAULT: usize = 30;
const BUCKETS_MAX: usize = 200;
/// A rate that grew or fell by this is told as changed, if that is hardly chance.
const CHANGED: f64 = 1.5;
/// What stands for the span right before the one that is asked for.
const BEFORE: &str = "before";
/// The template of messages that have none.
const VARIABLE: &str = "<*>";
/// Names of severities in the order of [`Signed::severities`].
const NAMES: [&str; SEVERITIES] = ["trace", "debug", "info", "warn", "error", "fatal", "none"];

/// What is asked.
#[derive(Debug, Deserialize)]
pub(crate) struct Body {
    #[serde(flatten)]
    which: Which,
    from: Option<String>,
    to: Option<String>,
    compare_from: Option<String>,
    compare_to: Option<String>,
    limit: Option<usize>,
    buckets: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Answer {
    from: String,
    to: String,
    rows: u64,
    compare: Option<PeriodSaid>,
    bucket_ms: i64,
    patterns: Vec<Value>,
    /// What was left out.
    other: Other,
}

#[derive(Debug, Default, Serialize)]
struct Other {
    patterns: usize,
    count: u64,
}

/// `POST /api/v1/indexes/{index}/patterns`: templates of messages, with counts, times, severities and an example; with an
/// earlier span besides, sorted by how much they changed.
///
/// Bounds: 500 patterns of 8,192 signatures, 200 buckets; messages beyond are counted under the template `<*>`.
pub(crate) async fn patterns(
    request: HttpRequest,
    door: Data<Door>,
    index: Path<IndexName>,
    body: Json<Body>,
) -> Result<HttpResponse, HttpError> {
    let body = body.into_inner();
    let limit = bounded("limit", body.limit, PATTERNS_DEFAULT, PATTERNS_MAX)?;
    let buckets = bounded("buckets", body.buckets, BUCKETS_DEFAULT, BUCKETS_MAX)?;
    let explorer = Explorer::of(&request, &door, index.into_inner(), &body.which).await?;
    let now = door.clock.now();
    let period = Period::of(&SpanText { from: body.from, to: body.to }, now)?;
    let earlier = match (body.compare_from, body.compare_to) {
        (None, None) => None,
        (Some(from), None) if from == BEFORE => Some(period.before()),
        (from, to) => {
            let to = to.or_else(|| Some(period.from.millis().to_string()));
            Some(Period::of(&SpanText { from, to }, now)?)
        }
    };
    let grid = Grid::new(period.from, period.to, u32::try_from(buckets).unwrap_or(1))?;
    let (rows, found) = signed(&explorer, period, grid.width_ms, grid.count).await?;
    let before = match earlier {
        None => None,
        // Of what was before, only the whole counts.
        Some(earlier) => Some((earlier, signed(&explorer, earlier, i64::MAX / 2_000_000, 1).await?)),
    };
    let mut all = mined(&found, before.as_ref().map(|(_, (_, found))| found.as_slice()));
    let seconds = before.as_ref().map(|(earlier, _)| (period.length().as_secs_f64(), earlier.length().as_secs_f64()));
    sort(&mut all, seconds);
    let left = all.split_off(limit.min(all.len()));
    let rows_before = before.as_ref().map_or(0, |(_, (rows, _))| *rows);
    let said = |pattern: &Pattern| pattern.said((rows, rows_before), seconds);
    let Period { from, to } = period;
    let answer = Answer {
        from: rfc3339_nanos(from.nanos())?,
        to: rfc3339_nanos(to.nanos())?,
        rows,
        compare: before.map(|(earlier, (rows, _))| earlier.said(rows)).transpose()?,
        bucket_ms: grid.width_ms,
        patterns: all.iter().map(said).collect::<Result<_, _>>()?,
        other: Other { patterns: left.len(), count: left.iter().map(|pattern| pattern.now.lines).sum() },
    };
    Ok(HttpResponse::Ok().json(answer))
}

/// How many events there are in a period, and of which signatures.
async fn signed(
    explorer: &Explorer,
    period: Period,
    width_ms: i64,
    count: i64,
) -> Result<(u64, Vec<Signed>), HttpError> {
    let over = |sifted: &Sifted| {
        needs(sifted, &["_msg", "_time", "_offset"])?;
        Ok(format!(
            "SELECT signatures({}, CAST(\"_time\" AS BIGINT), {}, {}, CAST(\"_offset\" AS BIGINT), {}, {}, {count}) AS \"found\", \
             count(*) AS \"rows\" FROM {}",
            sifted.text_of("_msg"),
            sifted.text_of("severity"),
            sifted.text_of("_segment"),
            period.from.nanos(),
            width_ms.saturating_mul(1_000_000),
            sifted.from
        ))
    };
    let result = explorer.ask(period, &over).await?;
    let batch = result.batches.iter().find(|batch| batch.num_rows() > 0);
    let found = batch.and_then(|batch| batch.column_by_name("found")).and_then(|column| Signed::read(column, 0));
    let found = found.ok_or_else(|| Problem::internal("the signatures of a query cannot be read"))?;
    Ok((number(&result, "rows"), found))
}

/// Messages of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Pattern {
    id: String,
    template: String,
    now: Signed,
    before: Option<Signed>,
}

/// What became of a pattern since the earlier time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Change {
    kind: &'static str,
    /// Its rate now against its rate then.
    ratio: Option<f64>,
    /// How surprising that is.
    score: f64,
}

/// The patterns of messages, of now and of an earlier time together, so that one means the same at both.
fn mined(now: &[Signed], before: Option<&[Signed]>) -> Vec<Pattern> {
    let mut dictionary = Dictionary::default();
    let mut by_signature: HashMap<u64, (Signed, Signed)> = HashMap::new();
    let parts = now.iter().map(|one| (one, true)).chain(before.unwrap_or_default().iter().map(|one| (one, false)));
    for (one, is_now) in parts {
        let signature = if one.is_mined { dictionary.learn_times(&one.message, one.lines.max(1)).signature } else { 0 };
        let (of_now, of_before) = by_signature.entry(signature).or_default();
        (if is_now { of_now } else { of_before }).add(one);
    }
    let mut patterns: Vec<Pattern> = Vec::new();
    let mut unmined = by_signature.remove(&0);
    let pattern = |id: String, template: String, parts: &mut dyn Iterator<Item = (Signed, Signed)>| {
        let (mut of_now, mut of_before) = (Signed::default(), Signed::default());
        for (now, before) in parts {
            if now.lines > 0 {
                of_now.add(&now);
            }
            if before.lines > 0 {
                of_before.add(&before);
            }
        }
        Pattern { id, template, now: of_now, before: before.is_some().then_some(of_before) }
    };
    for template in dictionary.templates(BRANCHES) {
        let whole = if template.text == VARIABLE { unmined.take() } else { None };
        let signatures = template.signatures.iter().filter_map(|signature| by_signature.remove(signature));
        patterns.push(pattern(template.id.to_string(), template.text.clone(), &mut signatures.chain(whole)));
    }
    if let Some(whole) = unmined {
        let id = ingest::template::TemplateId::of(VARIABLE).to_string();
        patterns.push(pattern(id, VARIABLE.to_owned(), &mut std::iter::once(whole)));
    }
    patterns
}

/// The commonest first, or those that changed most, by the seconds of both periods.
fn sort(patterns: &mut [Pattern], seconds: Option<(f64, f64)>) {
    patterns.sort_by(|a, b| {
        let key = |pattern: &Pattern| {
            let before = pattern.before.as_ref().map_or(0, |before| before.lines);
            (Reverse(pattern.now.lines), Reverse(before), pattern.template.clone())
        };
        let score = |pattern: &Pattern| seconds.map_or(0.0, |seconds| pattern.change(seconds).score);
        score(b).total_cmp(&score(a)).then_with(|| key(a).cmp(&key(b)))
    });
}

impl Pattern {
    /// What became of it.
    #[allow(clippy::cast_precision_loss, reason = "counts of events, for people")]
    fn change(&self, (now_s, before_s): (f64, f64)) -> Change {
        let (now, before) = (self.now.lines, self.before.as_ref().map_or(0, |before| before.lines));
        let score = of_rates((now, now_s), (before, before_s));
        let ratio = (before > 0).then(|| (now as f64 / now_s) / (before as f64 / before_s));
        let kind = match ratio {
            None => "new",
            Some(_) if now == 0 => "gone",
            Some(ratio) if ratio >= CHANGED && score >= MARKED => "more",
            Some(ratio) if ratio <= 1.0 / CHANGED && score >= MARKED => "fewer",
            Some(_) => "same",
        };
        Change { kind, ratio: ratio.map(|ratio| (ratio * 1e3).round() / 1e3), score }
    }

    /// As an answer says it, of so many events now and before.
    fn said(&self, (rows, rows_before): (u64, u64), seconds: Option<(f64, f64)>) -> Result<Value, Problem> {
        let shown = if self.now.lines > 0 { &self.now } else { self.before.as_ref().unwrap_or(&self.now) };
        let severities = NAMES.into_iter().zip(shown.severities).filter(|(_, count)| *count > 0);
        let severities: Map<String, Value> =
            severities.map(|(name, count)| (name.to_owned(), Value::from(count))).collect();
        let before = self.before.as_ref().filter(|before| before.lines > 0);
        Ok(json!({
            "id": self.id,
            "template": self.template,
            "count": self.now.lines,
            "share": share(self.now.lines, rows),
            "first": rfc3339_nanos(shown.first)?,
            "last": rfc3339_nanos(shown.last)?,
            "buckets": self.now.buckets,
            "severities": severities,
            "example": {
                "segment": shown.segment,
                "offset": shown.offset,
                "time": rfc3339_nanos(shown.time)?,
                "message": shown.message,
            },
            "before": before.map(|before| json!({ "count": before.lines, "share": share(before.lines, rows_before) })),
            "change": seconds.map(|seconds| self.change(seconds)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(message: &str, lines: u64, first: i64) -> Signed {
        Signed {
            is_mined: true,
            message: message.to_owned(),
            segment: "1-0-0".to_owned(),
            offset: first,
            time: first,
            lines,
            first,
            last: first + 10,
            severities: [0, 0, lines, 0, 0, 0, 0],
            buckets: vec![lines, 0],
        }
    }

    fn found(now: &[Signed], before: Option<&[Signed]>) -> Vec<Pattern> {
        let mut all = mined(now, before);
        sort(&mut all, before.map(|_| (60.0, 60.0)));
        all
    }

    #[test]
    fn signatures_of_one_template_are_counted_together() {
        let names = ["ann", "bob", "cy", "dan", "eve", "fay", "gus"];
        let mut now: Vec<Signed> =
            (0..).zip(names).map(|(i, name)| signed(&format!("Accepted password for {name}"), 2, i)).collect();
        now.push(signed("disk 7 is full", 9, 50));
        now.push(Signed { is_mined: false, ..signed("x x x", 3, 60) });
        let all = found(&now, None);
        let told: Vec<(&str, u64)> = all.iter().map(|one| (one.template.as_str(), one.now.lines)).collect();
        assert_eq!(told, [("Accepted password for <*>", 14), ("disk <*> is full", 9), ("<*>", 3)]);
        assert_eq!((all[0].now.first, all[0].now.last, &all[0].now.buckets), (0, 16, &vec![14, 0]));
        let said = all[0].said((26, 0), None).unwrap();
        assert_eq!((said["share"].as_f64(), said["severities"].clone()), (Some(0.538_462), json!({ "info": 14 })));
        assert_eq!(
            (said["example"]["message"].as_str(), said["change"].is_null()),
            (Some("Accepted password for ann"), true)
        );
    }

    #[test]
    fn what_changed_stands_first() {
        let now = [
            signed("disk 7 is full", 40, 5),
            signed("user logged in", 100, 1),
            signed("hello world", 5, 0),
            signed("slower now", 20, 0),
        ];
        let before =
            [signed("user logged in", 104, 1), signed("cache was cleared", 12, 2), signed("slower now", 80, 0)];
        let all = found(&now, Some(&before));
        let told: Vec<(&str, &str, Option<f64>)> = all
            .iter()
            .map(|one| {
                let change = one.change((60.0, 60.0));
                (one.template.as_str(), change.kind, change.ratio)
            })
            .collect();
        let expected = [
            ("disk <*> is full", "new", None),
            ("slower now", "fewer", Some(0.25)),
            ("cache was cleared", "gone", Some(0.0)),
            ("hello world", "new", None),
            ("user logged in", "same", Some(0.962)),
        ];
        assert_eq!(told, expected);
        let gone = all[2].said((165, 196), Some((60.0, 60.0))).unwrap();
        assert_eq!((gone["count"].as_u64(), gone["example"]["offset"].as_u64()), (Some(0), Some(2)));
        assert_eq!(gone["before"], json!({ "count": 12, "share": 0.061_224 }));
        // Twice as long a time before: half the rate.
        let steady = Pattern { now: signed("x", 10, 0), before: Some(signed("x", 20, 0)), ..Pattern::default() };
        assert_eq!(steady.change((60.0, 120.0)), Change { kind: "same", ratio: Some(1.0), score: 0.0 });
    }
}
