//! Aggregations as a body says them. Pure.

mod conditions;
mod dates;

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::{
    clause::{Reading, Test},
    field::Field,
    moment::{Format, Unit},
    refused::{Refused, count, flag, known, listed, number, object, text},
    shown::Shown,
    sort::Sort,
};

/// Aggregations in aggregations that give buckets.
const DEPTH_MAX: usize = 4;
/// Aggregations of one body, buckets of `filters` and `range` included; each may be a query of its own.
pub(crate) const AGGREGATIONS_MAX: usize = 64;
/// Buckets of one answer, as in Elasticsearch.
pub(crate) const BUCKETS_MAX: usize = 65_535;
/// Hits of one bucket.
const TOP_HITS_MAX: usize = 100;
const MILLI: i64 = 1_000_000;

/// One aggregation with those in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Aggregation {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) inner: Vec<Aggregation>,
    pub(crate) meta: Option<Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Keys(Keys),
    /// Buckets of rows that pass conditions.
    Conditions(Conditions),
    Metric(Metric),
    Hits(TopHits),
}

/// Buckets by the values of rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Keys {
    Terms(Terms),
    Dates(Dates),
    Histogram(Histogram),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terms {
    pub(crate) field: Field,
    pub(crate) size: usize,
    pub(crate) order: Vec<Order>,
    pub(crate) least: u64,
    pub(crate) missing: Option<Value>,
    /// Of which values there are buckets.
    pub(crate) only: Test,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dates {
    pub(crate) field: Field,
    pub(crate) step: Step,
    pub(crate) zone: TimeZone,
    /// Nanoseconds by which buckets begin later.
    pub(crate) offset: i64,
    pub(crate) least: u64,
    pub(crate) order: Vec<Order>,
    /// Nanoseconds between which there are buckets even where there are no rows.
    pub(crate) bounds: Option<(i64, i64)>,
    /// Of buckets outside there are none.
    pub(crate) hard: Option<(i64, i64)>,
    pub(crate) format: Format,
    pub(crate) keyed: bool,
}

/// How far buckets of time are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many nanoseconds.
    Fixed(i64),
    Calendar(Unit),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Histogram {
    pub(crate) field: Field,
    pub(crate) interval: f64,
    pub(crate) offset: f64,
    pub(crate) least: u64,
    pub(crate) order: Vec<Order>,
    pub(crate) bounds: Option<(f64, f64)>,
    pub(crate) missing: Option<f64>,
    pub(crate) keyed: bool,
}

/// By what buckets are put in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) by: By,
    pub(crate) descending: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum By {
    Count,
    Key,
    /// A metric, and which of its numbers.
    Metric(String, String),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conditions {
    pub(crate) shape: Shape,
    pub(crate) buckets: Vec<(Map<String, Value>, Test)>,
}

/// How buckets of conditions are answered; those of objects are called by their `key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The bucket is the answer.
    One,
    List,
    Object,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metric {
    pub(crate) function: Function,
    pub(crate) field: Field,
    pub(crate) missing: Option<Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Function {
    Avg,
    Sum,
    Min,
    Max,
    Count,
    Cardinality,
    Stats,
    ExtendedStats { sigma: f64 },
    Percentiles { percents: Vec<f64>, keyed: bool },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopHits {
    pub(crate) size: usize,
    pub(crate) sort: Sort,
    pub(crate) shown: Shown,
}

/// Reads all aggregations of a body.
pub(crate) fn read(reading: &Reading, value: &Value) -> Result<Vec<Aggregation>, Refused> {
    let mut left = AGGREGATIONS_MAX;
    all(reading, value, Around { depth: 0, times: 1 }, &mut left)
}

/// What an aggregation is in.
#[derive(Clone, Copy)]
struct Around {
    depth: usize,
    /// Buckets of conditions: for each of them it is asked again.
    times: usize,
}

fn all(reading: &Reading, value: &Value, around: Around, left: &mut usize) -> Result<Vec<Aggregation>, Refused> {
    object(value, "aggs")?.iter().map(|(name, body)| one(reading, name, body, around, left)).collect()
}

fn one(
    reading: &Reading,
    name: &str,
    body: &Value,
    Around { depth, times }: Around,
    left: &mut usize,
) -> Result<Aggregation, Refused> {
    if name.is_empty() || name.contains(['[', ']', '>']) {
        let reason = "Aggregation names can contain any character except '[', ']', and '>'";
        return Err(Refused::parsing(format!("Invalid aggregation name [{name}]. {reason}")));
    }
    take(left, times)?;
    let (mut kind, mut inner, mut meta) = (None, &Value::Null, None);
    for (what, body) in object(body, name)? {
        match what.as_str() {
            "aggs" | "aggregations" => inner = body,
            "meta" => meta = Some(body.clone()),
            what => {
                if kind.is_some() {
                    let reason = format!("Found two aggregation type definitions in [{name}]: the second is [{what}]");
                    return Err(Refused::parsing(reason));
                }
                kind = Some(self::kind(reading, what, body)?);
            }
        }
    }
    let kind = kind.ok_or_else(|| Refused::parsing(format!("Missing definition for aggregation [{name}]")))?;
    let mut around = Around { depth: depth + 1, times };
    if let Kind::Conditions(Conditions { shape: Shape::List | Shape::Object, buckets }) = &kind {
        around.times = times.saturating_mul(buckets.len());
        take(left, around.times)?;
    }
    let inner = if inner.is_null() { Vec::new() } else { all(reading, inner, around, left)? };
    match &kind {
        Kind::Metric(_) | Kind::Hits(_) if !inner.is_empty() => {
            return Err(Refused::illegal(format!("Aggregator [{name}] cannot accept sub-aggregations")));
        }
        Kind::Keys(_) | Kind::Conditions(_) if depth >= DEPTH_MAX => {
            return Err(Refused::illegal(format!("aggregations nest deeper than {DEPTH_MAX}")));
        }
        _ => {}
    }
    orders(&kind, &inner)?;
    Ok(Aggregation { name: name.to_owned(), kind, inner, meta })
}

fn take(left: &mut usize, count: usize) -> Result<(), Refused> {
    let reason = || Refused::illegal(format!("more than {AGGREGATIONS_MAX} aggregations and filters of them"));
    *left = left.checked_sub(count).ok_or_else(reason)?;
    Ok(())
}

/// Whether what buckets are ordered by is there.
fn orders(kind: &Kind, inner: &[Aggregation]) -> Result<(), Refused> {
    let order = match kind {
        Kind::Keys(Keys::Terms(terms)) => &terms.order,
        Kind::Keys(Keys::Dates(dates)) => &dates.order,
        Kind::Keys(Keys::Histogram(histogram)) => &histogram.order,
        _ => return Ok(()),
    };
    for order in order {
        if let By::Metric(name, part) = &order.by {
            let unknown = || {
                let reason =
                    format!("Invalid aggregation order path [{name}]. Cannot find a metric [{name}] with [{part}]");
                Refused { kind: "aggregation_execution_exception", reason }
            };
            let found = inner.iter().find(|one| one.name == *name).ok_or_else(unknown)?;
            let Kind::Metric(metric) = &found.kind else { return Err(unknown()) };
            metric.function.place(part).ok_or_else(unknown)?;
        }
    }
    Ok(())
}

fn kind(reading: &Reading, what: &str, body: &Value) -> Result<Kind, Refused> {
    let metric = |function| metric(what, body, function).map(Kind::Metric);
    Ok(match what {
        "terms" => Kind::Keys(Keys::Terms(terms(object(body, what)?)?)),
        "date_histogram" => Kind::Keys(Keys::Dates(dates::dates(reading, object(body, what)?)?)),
        "histogram" => Kind::Keys(Keys::Histogram(histogram(object(body, what)?)?)),
        "filter" => conditions(Shape::One, vec![(Map::new(), reading.query(body)?)]),
        "missing" => {
            let field = field(object(body, what)?, what)?;
            conditions(Shape::One, vec![(Map::new(), Test::Exists(field).not())])
        }
        "filters" => Kind::Conditions(conditions::filters(reading, object(body, what)?)?),
        "range" | "date_range" => Kind::Conditions(conditions::ranges(reading, object(body, what)?, what)?),
        "avg" => metric(Function::Avg)?,
        "sum" => metric(Function::Sum)?,
        "min" => metric(Function::Min)?,
        "max" => metric(Function::Max)?,
        "value_count" => metric(Function::Count)?,
        "cardinality" => metric(Function::Cardinality)?,
        "stats" => metric(Function::Stats)?,
        "extended_stats" => {
            let sigma = body.get("sigma").map_or(Ok(2.0), |sigma| number(sigma, "sigma"))?;
            metric(Function::ExtendedStats { sigma })?
        }
        "percentiles" => metric(percentiles(body)?)?,
        "top_hits" => Kind::Hits(top_hits(object(body, what)?)?),
        other => {
            return Err(Refused::parsing(format!(
                "Unknown aggregation type [{other}], or one that is not supported here"
            )));
        }
    })
}

fn conditions(shape: Shape, buckets: Vec<(Map<String, Value>, Test)>) -> Kind {
    Kind::Conditions(Conditions { shape, buckets })
}

fn field(members: &Map<String, Value>, what: &str) -> Result<Field, Refused> {
    if members.contains_key("script") {
        return Err(Refused::absent("script"));
    }
    let field = members.get("field");
    let field = field.ok_or_else(|| {
        Refused::illegal(format!("Required one of fields [field], but none were specified in [{what}]"))
    })?;
    Ok(Field::of(&text(field, "field")?))
}

fn metric(what: &str, body: &Value, function: Function) -> Result<Metric, Refused> {
    let members = object(body, what)?;
    let names = [
        "field",
        "missing",
        "format",
        "percents",
        "keyed",
        "tdigest",
        "hdr",
        "precision_threshold",
        "sigma",
        "rehash",
        "execution_hint",
        "script",
    ];
    known(members, &names, what)?;
    let missing = members.get("missing").filter(|missing| !missing.is_null()).cloned();
    if missing.as_ref().is_some_and(|missing| missing.is_object() || missing.is_array()) {
        return Err(Refused::parsing(format!("[{what}] [missing] must be a text or a number")));
    }
    Ok(Metric { function, field: field(members, what)?, missing })
}

fn percentiles(body: &Value) -> Result<Function, Refused> {
    let default = json!([1, 5, 25, 50, 75, 95, 99]);
    let percents = listed(body.get("percents").unwrap_or(&default));
    let percents = percents.iter().map(|one| number(one, "percents")).collect::<Result<Vec<_>, _>>()?;
    if percents.is_empty() || percents.len() > 32 || percents.iter().any(|one| !(0.0..=100.0).contains(one)) {
        return Err(Refused::illegal("[percents] must be from 1 to 32 numbers from 0 to 100"));
    }
    let keyed = body.get("keyed").map_or(Ok(true), |keyed| flag(keyed, "keyed"))?;
    Ok(Function::Percentiles { percents, keyed })
}

impl Function {
    /// Which of the numbers of the metric is called so.
    pub(crate) fn place(&self, part: &str) -> Option<usize> {
        let of = |names: &[&str]| names.iter().position(|name| *name == part);
        match self {
            Self::Stats => of(&["count", "min", "max", "avg", "sum"]),
            Self::ExtendedStats { .. } => {
                of(&["count", "min", "max", "avg", "sum", "sum_of_squares", "variance", "std_deviation"])
            }
            Self::Percentiles { percents, .. } => {
                let wanted: f64 = part.parse().ok()?;
                percents.iter().position(|percent| (percent - wanted).abs() < 1e-9)
            }
            _ => of(&["value", ""]).map(|_| 0),
        }
    }
}

fn order(members: &Map<String, Value>, default: Order) -> Result<Vec<Order>, Refused> {
    let Some(given) = members.get("order").filter(|given| !given.is_null()) else { return Ok(vec![default]) };
    let mut all = Vec::new();
    for one in listed(given) {
        for (by, direction) in object(one, "order")? {
            let descending = match text(direction, "order")?.to_ascii_lowercase().as_str() {
                "asc" => false,
                "desc" => true,
                other => return Err(Refused::parsing(format!("Unknown order direction [{other}]"))),
            };
            let by = match by.as_str() {
                "_count" => By::Count,
                "_key" | "_term" | "_time" => By::Key,
                metric => match metric.split_once('[') {
                    Some((name, part)) => By::Metric(name.to_owned(), part.trim_end_matches(']').to_owned()),
                    None => {
                        let (name, part) = metric.split_once('.').unwrap_or((metric, "value"));
                        By::Metric(name.to_owned(), part.to_owned())
                    }
                },
            };
            all.push(Order { by, descending });
        }
    }
    if all.len() > 8 {
        return Err(Refused::illegal("buckets are ordered by at most 8 things"));
    }
    Ok(all)
}

fn terms(members: &Map<String, Value>) -> Result<Terms, Refused> {
    let names = [
        "field",
        "size",
        "shard_size",
        "order",
        "min_doc_count",
        "shard_min_doc_count",
        "missing",
        "include",
        "exclude",
        "execution_hint",
        "collect_mode",
        "show_term_doc_count_error",
        "format",
        "value_type",
        "script",
    ];
    known(members, &names, "terms")?;
    let field = field(members, "terms")?;
    let size = members.get("size").map_or(Ok(10), |size| count(size, "size"))?;
    if size == 0 {
        return Err(Refused::illegal("[size] must be greater than 0. Found [0] in [terms]"));
    }
    let least = members.get("min_doc_count").map_or(Ok(1), |least| count(least, "min_doc_count"))?;
    if least == 0 {
        return Err(Refused::absent("min_doc_count 0 of terms"));
    }
    let mut tests = Vec::new();
    for (name, negated) in [("include", false), ("exclude", true)] {
        let Some(given) = members.get(name) else { continue };
        let test = match given {
            Value::Array(values) => Test::OneOf { field: field.clone(), values: plain(values)?, any_case: false },
            Value::String(regex) => {
                Test::Matches { field: field.clone(), regex: super::clause::regex(regex)?, any_case: false }
            }
            _ => return Err(Refused::absent(&format!("partitions in {name}"))),
        };
        tests.push(if negated { test.not() } else { test });
    }
    let missing = members.get("missing").filter(|missing| !missing.is_null()).cloned();
    plain(missing.as_slice())?;
    Ok(Terms {
        field,
        size: size.min(BUCKETS_MAX),
        order: order(members, Order { by: By::Count, descending: true })?,
        least: least as u64,
        missing,
        only: Test::all(tests),
    })
}

fn plain(values: &[Value]) -> Result<Vec<Value>, Refused> {
    if values.iter().any(|value| value.is_object() || value.is_array()) {
        return Err(Refused::parsing("[terms] a value must be a text, a number or a truth value"));
    }
    Ok(values.to_vec())
}

fn histogram(members: &Map<String, Value>) -> Result<Histogram, Refused> {
    let names = [
        "field",
        "interval",
        "offset",
        "min_doc_count",
        "order",
        "extended_bounds",
        "keyed",
        "missing",
        "format",
        "script",
    ];
    known(members, &names, "histogram")?;
    let interval = members.get("interval").map_or(Ok(0.0), |interval| number(interval, "interval"))?;
    if interval <= 0.0 {
        return Err(Refused::illegal("[interval] must be >0 for histogram aggregation"));
    }
    let bounds = members.get("extended_bounds").filter(|bounds| !bounds.is_null());
    let bounds = bounds.map(|bounds| {
        let read = |end: &str| number(bounds.get(end).unwrap_or(&Value::Null), end);
        Ok((read("min")?, read("max")?))
    });
    Ok(Histogram {
        field: field(members, "histogram")?,
        interval,
        offset: members.get("offset").map_or(Ok(0.0), |offset| number(offset, "offset"))?,
        least: members.get("min_doc_count").map_or(Ok(0), |least| count(least, "min_doc_count"))? as u64,
        order: order(members, Order { by: By::Key, descending: false })?,
        bounds: bounds.transpose()?,
        missing: members.get("missing").map(|missing| number(missing, "missing")).transpose()?,
        keyed: members.get("keyed").map_or(Ok(false), |keyed| flag(keyed, "keyed"))?,
    })
}

fn top_hits(members: &Map<String, Value>) -> Result<TopHits, Refused> {
    known(
        members,
        &[
            "size",
            "from",
            "sort",
            "_source",
            "fields",
            "docvalue_fields",
            "highlight",
            "track_scores",
            "version",
            "seq_no_primary_term",
            "explain",
            "stored_fields",
        ],
        "top_hits",
    )?;
    let size = members.get("size").map_or(Ok(3), |size| count(size, "size"))?;
    if size > TOP_HITS_MAX || members.get("from").is_some_and(|from| *from != json!(0)) {
        let reason = format!("Top hits result window is too large, from must be 0 and size at most [{TOP_HITS_MAX}]");
        return Err(Refused::illegal(reason));
    }
    let sort = Sort::read(members.get("sort"))?;
    Ok(TopHits { size, sort, shown: Shown::read(members)? })
}
