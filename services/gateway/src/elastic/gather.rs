//! Rows of the statements of aggregations as the JSON of their answer. Pure.

use std::{cell::Cell, collections::HashMap};

use serde_json::{Map, Value, json};

use super::{
    aggregation::{
        BUCKETS_MAX, By, Conditions, Dates, Function, Histogram, Keys, Kind, Metric, Order, Shape, Terms, TopHits,
    },
    buckets::{Child, Plan, floor, next, unshifted},
    condition::shown,
    moment::Format,
    refused::Refused,
    shown::{instant, nanos},
};

/// A row as a statement answers it.
pub(crate) type Row = Map<String, Value>;

const MILLI: i64 = 1_000_000;
/// About what a member of an object takes beside its name.
const MEMBER_BYTES: usize = 48;

/// Why rows become no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    Refused(Refused),
    /// It would be too large.
    Full,
    /// It takes too long.
    Late,
}

impl From<Refused> for Unanswered {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Takes room for so many bytes of an answer while it is made: a small body must not become one that fills the memory.
pub(crate) type Pay<'p> = dyn Fn(usize) -> Result<(), Unanswered> + 'p;

/// What was answered to a plan.
pub(crate) struct Gathered<'p> {
    plan: &'p Plan<'p>,
    pay: &'p Pay<'p>,
    levels: Vec<Vec<Row>>,
    hits: Vec<Vec<Row>>,
    /// Of each place the rows by the keys of the buckets around them.
    by_keys: Vec<HashMap<String, Vec<usize>>>,
    hits_by_keys: Vec<HashMap<String, Vec<usize>>>,
    left: Cell<usize>,
}

/// A bucket as it is answered, beside its key.
type Keyed = (String, Map<String, Value>);

/// A bucket on its way: its key as rows have it, what is shown of it, its rows and its order.
struct Bucket {
    keys: Option<String>,
    shown: Map<String, Value>,
    count: u64,
    row: Option<usize>,
    rank: f64,
}

impl<'p> Gathered<'p> {
    /// Rows of all places of a plan, in its order.
    pub(crate) fn new(plan: &'p Plan<'p>, levels: Vec<Vec<Row>>, hits: Vec<Vec<Row>>, pay: &'p Pay<'p>) -> Self {
        let by = |rows: &[Row], depth: usize| {
            let mut all: HashMap<String, Vec<usize>> = HashMap::new();
            for (at, row) in rows.iter().enumerate() {
                all.entry(keys_of(row, depth)).or_default().push(at);
            }
            all
        };
        let depth = |level: usize| plan.levels[level].chain.len();
        let by_keys = levels
            .iter()
            .enumerate()
            .map(|(level, rows)| by(rows, depth(level) - usize::from(plan.levels[level].is_keys)));
        let by_keys = by_keys.collect();
        let hits_by_keys = hits.iter().zip(&plan.hits).map(|(rows, (level, _))| by(rows, depth(*level))).collect();
        Self { plan, pay, levels, hits, by_keys, hits_by_keys, left: Cell::new(BUCKETS_MAX) }
    }

    /// The member `aggregations` of the answer.
    pub(crate) fn answer(&self) -> Result<Map<String, Value>, Unanswered> {
        let row = self.row(0, "");
        self.inner(0, "", row)
    }

    fn row(&self, level: usize, keys: &str) -> Option<usize> {
        self.by_keys[level].get(keys).and_then(|rows| rows.first()).copied()
    }

    fn inner(&self, level: usize, keys: &str, row: Option<usize>) -> Result<Map<String, Value>, Unanswered> {
        let own = &self.plan.levels[level];
        let row = row.map(|at| &self.levels[level][at]);
        let mut all = Map::new();
        for (at, (one, child)) in own.inner.iter().zip(&own.children).enumerate() {
            // Name and `meta` stand in every bucket again.
            (self.pay)(MEMBER_BYTES + one.name.len() + one.meta.as_ref().map_or(0, bytes_of))?;
            let mut answer = match (&one.kind, child) {
                (Kind::Metric(of), _) => {
                    let metric = metric(of, &|j| row.and_then(|row| row.get(&format!("#m{at}_{j}"))));
                    (self.pay)(bytes_of(&metric))?;
                    metric
                }
                (Kind::Keys(of), Child::Keys(child)) => self.buckets(of, *child, keys)?,
                (Kind::Conditions(of), Child::Conditions(children)) => self.conditions(of, children, keys)?,
                (Kind::Hits(of), Child::Hits(number)) => self.hits(of, *number, keys)?,
                _ => Value::Null,
            };
            if let Some(meta) = &one.meta {
                answer["meta"] = meta.clone();
            }
            all.insert(one.name.clone(), answer);
        }
        Ok(all)
    }

    /// Room for one more bucket.
    fn take(&self, shown: &Map<String, Value>) -> Result<(), Unanswered> {
        self.left.set(self.left.get().checked_sub(1).ok_or_else(too_many_buckets)?);
        (self.pay)(MEMBER_BYTES + members_bytes(shown))
    }

    fn conditions(&self, of: &Conditions, children: &[usize], keys: &str) -> Result<Value, Unanswered> {
        let mut buckets = Vec::new();
        for ((shown, _), level) in of.buckets.iter().zip(children) {
            self.take(shown)?;
            let row = self.row(*level, keys);
            let mut bucket = shown.clone();
            bucket.insert("doc_count".to_owned(), count(row.map(|at| &self.levels[*level][at])).into());
            bucket.extend(self.inner(*level, keys, row)?);
            buckets.push(bucket);
        }
        Ok(match of.shape {
            Shape::One => buckets.pop().map_or(Value::Null, Value::Object),
            Shape::List => json!({ "buckets": buckets }),
            Shape::Object => {
                let named = buckets.into_iter().map(|mut bucket| {
                    let key = bucket.remove("key").map(|key| shown_key(&key)).unwrap_or_default();
                    (key, Value::Object(bucket))
                });
                json!({ "buckets": named.collect::<Map<_, _>>() })
            }
        })
    }

    fn buckets(&self, of: &Keys, level: usize, keys: &str) -> Result<Value, Unanswered> {
        let rows = self.by_keys[level].get(keys).map_or(&[][..], Vec::as_slice);
        let depth = self.plan.levels[level].chain.len();
        let found = rows.iter().map(|at| (*at, &self.levels[level][*at]));
        let key = format!("#k{depth}");
        match of {
            Keys::Terms(terms) => {
                let total = rows.first().and_then(|at| self.levels[level][*at].get("#t")?.as_u64()).unwrap_or(0);
                let buckets: Vec<Bucket> = found.map(|(at, row)| term(terms, row, &key, (at, depth))).collect();
                let shown: u64 = buckets.iter().map(|bucket| bucket.count).sum();
                let buckets = self.shown(level, buckets)?;
                let buckets: Vec<Map<String, Value>> = buckets.into_iter().map(|(_, bucket)| bucket).collect();
                Ok(json!({
                    "doc_count_error_upper_bound": 0,
                    "sum_other_doc_count": total.saturating_sub(shown),
                    "buckets": buckets,
                }))
            }
            Keys::Dates(dates) => {
                let starts = found.filter_map(|(at, row)| Some((nanos(row.get(&key)?)?, at))).collect();
                let mut buckets = self.dates(dates, starts, (level, depth))?;
                self.arrange(&dates.order, level, &mut buckets);
                self.listed(level, buckets, dates.keyed)
            }
            Keys::Histogram(histogram) => {
                let steps = found.filter_map(|(at, row)| Some((row.get(&key)?.as_f64()?, at))).collect();
                let mut buckets = self.histogram(histogram, steps, (level, depth))?;
                self.arrange(&histogram.order, level, &mut buckets);
                self.listed(level, buckets, histogram.keyed)
            }
        }
    }

    fn listed(&self, level: usize, buckets: Vec<Bucket>, keyed: bool) -> Result<Value, Unanswered> {
        let buckets = self.shown(level, buckets)?;
        Ok(if keyed {
            json!({ "buckets": buckets.into_iter().map(|(key, bucket)| (key, Value::Object(bucket))).collect::<Map<_, _>>() })
        } else {
            json!({ "buckets": buckets.into_iter().map(|(_, bucket)| bucket).collect::<Vec<_>>() })
        })
    }

    /// Each bucket under its key.
    fn shown(&self, level: usize, buckets: Vec<Bucket>) -> Result<Vec<Keyed>, Unanswered> {
        let mut all = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            self.take(&bucket.shown)?;
            let mut shown = bucket.shown;
            let key = shown.get("key_as_string").or_else(|| shown.get("key")).map(shown_key).unwrap_or_default();
            shown.insert("doc_count".to_owned(), bucket.count.into());
            // No row has these keys where the bucket is empty.
            let keys = bucket.keys.unwrap_or_else(|| "\u{0}".to_owned());
            shown.extend(self.inner(level, &keys, bucket.row)?);
            all.push((key, shown));
        }
        Ok(all)
    }

    fn dates(
        &self,
        dates: &Dates,
        mut starts: Vec<(i64, usize)>,
        (level, depth): (usize, usize),
    ) -> Result<Vec<Bucket>, Refused> {
        starts.sort_unstable();
        let rows: HashMap<i64, usize> = starts.iter().copied().collect();
        let mut wanted: Vec<i64> = starts.iter().map(|(start, _)| *start).collect();
        if dates.least == 0 {
            let bounds = dates.bounds.and_then(|(min, max)| Some((floor(dates, min)?, floor(dates, max)?)));
            let (first, last) = (wanted.first().copied(), wanted.last().copied());
            let begin = bounds.map(|(min, _)| min).into_iter().chain(first).min();
            let end = bounds.map(|(_, max)| max).into_iter().chain(last).max();
            wanted.clear();
            let (mut at, end) = (begin, end.unwrap_or(i64::MIN));
            while let Some(start) = at.filter(|start| *start <= end) {
                if wanted.len() > self.left.get() {
                    return Err(too_many_buckets());
                }
                wanted.push(start);
                at = next(dates, start).filter(|next| *next > start);
            }
        }
        let bucket = |start: i64| {
            let row = rows.get(&start).copied();
            let count = count(row.map(|at| &self.levels[level][at]));
            let at = unshifted(dates, start).unwrap_or(start);
            let mut shown = Map::new();
            shown.insert("key_as_string".to_owned(), dates.format.shown(at, &dates.zone).into());
            shown.insert("key".to_owned(), at.div_euclid(MILLI).into());
            let keys = row.map(|at| keys_of(&self.levels[level][at], depth));
            Bucket { keys, shown, count, row, rank: as_f64(at) }
        };
        Ok(wanted.into_iter().map(bucket).filter(|bucket| bucket.count >= dates.least).collect())
    }

    fn histogram(
        &self,
        histogram: &Histogram,
        mut steps: Vec<(f64, usize)>,
        (level, depth): (usize, usize),
    ) -> Result<Vec<Bucket>, Refused> {
        steps.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut wanted: Vec<(f64, Option<usize>)> = Vec::new();
        if histogram.least == 0 {
            let floor = |value: f64| ((value - histogram.offset) / histogram.interval).floor();
            let bounds = histogram.bounds.map(|(min, max)| (floor(min), floor(max)));
            let begin = bounds.map(|b| b.0).into_iter().chain(steps.first().map(|s| s.0)).reduce(f64::min);
            let end = bounds.map(|b| b.1).into_iter().chain(steps.last().map(|s| s.0)).reduce(f64::max);
            // Without rows and bounds there are no buckets.
            let (mut at, end) = (begin.unwrap_or(0.0), end.unwrap_or(-1.0));
            if !at.is_finite() || !end.is_finite() || end - at >= as_f64(BUCKETS_MAX as i64) {
                return Err(too_many_buckets());
            }
            let mut rows = steps.iter().peekable();
            while at <= end {
                let row = rows.next_if(|(step, _)| *step <= at).map(|(_, row)| *row);
                wanted.push((at, row));
                // Beyond 2^53 a step of one is none.
                at = (at + 1.0).max(at.next_up());
            }
        } else {
            wanted.extend(steps.iter().map(|(step, row)| (*step, Some(*row))));
        }
        let bucket = |(step, row): (f64, Option<usize>)| {
            let count = count(row.map(|at| &self.levels[level][at]));
            let key = step * histogram.interval + histogram.offset;
            let shown = Map::from_iter([("key".to_owned(), json!(key))]);
            let keys = row.map(|at| keys_of(&self.levels[level][at], depth));
            Bucket { keys, shown, count, row, rank: key }
        };
        Ok(wanted.into_iter().map(bucket).filter(|bucket| bucket.count >= histogram.least).collect())
    }

    /// Puts buckets, which come by their keys, in another order.
    fn arrange(&self, orders: &[Order], level: usize, buckets: &mut [Bucket]) {
        for order in orders.iter().rev() {
            let by = |bucket: &Bucket| match &order.by {
                By::Key => Some(bucket.rank),
                By::Count => Some(as_f64(i64::try_from(bucket.count).unwrap_or(i64::MAX))),
                By::Metric(name, part) => {
                    let inner = self.plan.levels[level].inner;
                    let at = inner.iter().position(|one| one.name == *name)?;
                    let Kind::Metric(metric) = &inner[at].kind else { return None };
                    let column = format!("#m{at}_{}", metric.function.place(part)?);
                    self.levels[level][bucket.row?].get(&column)?.as_f64()
                }
            };
            buckets.sort_by(|a, b| match (by(a), by(b)) {
                (Some(a), Some(b)) if order.descending => b.total_cmp(&a),
                (Some(a), Some(b)) => a.total_cmp(&b),
                (a, b) => a.is_none().cmp(&b.is_none()),
            });
        }
    }

    fn hits(&self, of: &TopHits, number: usize, keys: &str) -> Result<Value, Unanswered> {
        let rows = self.hits_by_keys[number].get(keys).map_or(&[][..], Vec::as_slice);
        let rows = rows.iter().map(|at| &self.hits[number][*at]);
        let total = rows.clone().next().map_or(0, |row| count(Some(row)));
        let one = |row| {
            let hit = hit(&of.shown, &of.sort, row);
            (self.pay)(bytes_of(&hit)).map(|()| hit)
        };
        let hits = rows.take(of.size).map(one).collect::<Result<Vec<Value>, _>>()?;
        let score = if of.sort.is_default() && !hits.is_empty() { json!(1.0) } else { Value::Null };
        Ok(json!({ "hits": { "total": { "value": total, "relation": "eq" }, "max_score": score, "hits": hits } }))
    }
}

/// A hit with its order.
pub(crate) fn hit(shown: &super::shown::Shown, sort: &super::sort::Sort, row: &Row) -> Value {
    let index = row.get("#index").and_then(Value::as_str).unwrap_or_default();
    let mut hit = shown.hit(row, index);
    let score = if sort.is_default() { json!(1.0) } else { Value::Null };
    hit.insert("_score".to_owned(), score);
    if !sort.is_default() {
        let at = |column: &str| instant(column, row.get(column)?);
        hit.insert("sort".to_owned(), sort.values(row, at).into());
    }
    Value::Object(hit)
}

/// About how many bytes a value takes.
fn bytes_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(|one| size_of::<Value>() + bytes_of(one)).sum(),
        Value::Object(members) => members_bytes(members),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn members_bytes(members: &Map<String, Value>) -> usize {
    members.iter().map(|(name, value)| MEMBER_BYTES + name.len() + bytes_of(value)).sum()
}

pub(crate) fn too_many_buckets() -> Refused {
    let reason = format!("Trying to create too many buckets. Must be less than or equal to: [{BUCKETS_MAX}].");
    Refused { kind: "too_many_buckets_exception", reason }
}

fn term(terms: &Terms, row: &Row, key: &str, (at, depth): (usize, usize)) -> Bucket {
    let mut shown = Map::new();
    match row.get(key).cloned().unwrap_or_default() {
        Value::Bool(flag) => {
            shown.insert("key".to_owned(), u8::from(flag).into());
            shown.insert("key_as_string".to_owned(), flag.to_string().into());
        }
        value => {
            if let Some(millis) = value.as_i64().filter(|_| terms.field.is_time()) {
                let text = Format::Iso { nanos: false }.shown(millis.saturating_mul(MILLI), &jiff::tz::TimeZone::UTC);
                shown.insert("key_as_string".to_owned(), text.into());
            }
            shown.insert("key".to_owned(), value);
        }
    }
    Bucket { keys: Some(keys_of(row, depth)), shown, count: count(Some(row)), row: Some(at), rank: 0.0 }
}

/// The first keys of a row, as one text.
fn keys_of(row: &Row, depth: usize) -> String {
    (1..=depth).map(|number| format!("{}\u{1}", row.get(&format!("#k{number}")).unwrap_or(&Value::Null))).collect()
}

fn count(row: Option<&Row>) -> u64 {
    row.and_then(|row| row.get("#n")?.as_u64()).unwrap_or(0)
}

fn shown_key(key: &Value) -> String {
    shown(key)
}

#[allow(clippy::cast_precision_loss, reason = "an order of buckets, or a bound")]
fn as_f64(number: i64) -> f64 {
    number as f64
}

fn metric<'r>(of: &Metric, number: &dyn Fn(usize) -> Option<&'r Value>) -> Value {
    let given = |j: usize| number(j).cloned().unwrap_or(Value::Null);
    let or_zero = |j: usize| match given(j) {
        Value::Null => json!(0.0),
        number => number,
    };
    let text = |value: &Value| value.as_f64().filter(|_| of.field.is_time()).map(instant_text);
    match &of.function {
        Function::Sum => json!({ "value": or_zero(0) }),
        Function::Count | Function::Cardinality => json!({ "value": given(0).as_u64().unwrap_or(0) }),
        Function::Avg | Function::Min | Function::Max => {
            let value = given(0);
            match text(&value) {
                Some(text) => json!({ "value": value, "value_as_string": text }),
                None => json!({ "value": value }),
            }
        }
        Function::Stats | Function::ExtendedStats { .. } => {
            let mut all = json!({
                "count": given(0).as_u64().unwrap_or(0), "min": given(1), "max": given(2), "avg": given(3), "sum": or_zero(4),
            });
            for (name, j) in [("min", 1), ("max", 2), ("avg", 3)] {
                if let Some(text) = text(&given(j)) {
                    all[format!("{name}_as_string")] = text.into();
                }
            }
            if let Function::ExtendedStats { sigma } = &of.function {
                all["sum_of_squares"] = given(5);
                all["variance"] = given(6);
                all["variance_population"] = given(6);
                all["std_deviation"] = given(7);
                all["std_deviation_population"] = given(7);
                let bound = |sign: f64| Some(given(3).as_f64()? + sign * sigma * given(7).as_f64()?);
                all["std_deviation_bounds"] = json!({ "upper": bound(1.0), "lower": bound(-1.0) });
            }
            all
        }
        Function::Percentiles { percents, keyed } => {
            let each = percents.iter().enumerate().map(|(j, percent)| (*percent, given(j)));
            if *keyed {
                json!({ "values": each.map(|(percent, value)| (format!("{percent:?}"), value)).collect::<Map<_, _>>() })
            } else {
                json!({ "values": each.map(|(key, value)| json!({ "key": key, "value": value })).collect::<Vec<_>>() })
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "milliseconds of any year that clients know are below 2^53")]
fn instant_text(millis: f64) -> String {
    super::moment::iso((millis as i64).saturating_mul(MILLI))
}
