//! LogQL as SQL: lines in the order that is asked for, and series with a point for each step.

use types::{IndexName, Timestamp};

use std::time::Duration;

use super::{Grouping, Metric, POINTS_MAX, RangeFunction, RangeMetric, VectorFunction};
use crate::{
    Diagnostic, Select,
    lower::{Lowering, Rows, Surroundings, name, timestamp},
    plan::{MESSAGE, Plan, TIME},
};

/// In how many windows one line may stand: the range divided by the step.
const WINDOWS_MAX: i64 = 1_000;

/// The column of the number of a point, hidden from answers.
pub(super) const POINT: &str = "_point";
/// The column of a series' numbers.
pub(super) const VALUE: &str = "value";

/// Which part of the past a query is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogqlRange {
    /// The indexes that are read.
    pub indexes: Vec<IndexName>,
    /// The first instant: lines from here on; of metrics the first point.
    pub start: Timestamp,
    /// The last instant: lines before it; of metrics no point lies behind it.
    pub end: Timestamp,
    /// The distance between points; zero for one point at `end`.
    pub step: Duration,
    /// The labels of a stream, by which series are apart where the query does not group them.
    pub labels: Vec<String>,
}

/// A statement that answers a log query: every column, by time and, at one instant, by segment and offset.
///
/// Order: newest first, or oldest first where `forward`. Bounds: `around.rows_max` rows and one more.
/// Errors: as [`lower`](crate::lower), but a label that no event has is empty.
pub fn lower_logs(
    plan: &Plan,
    text: &str,
    around: &Surroundings,
    range: &LogqlRange,
    forward: bool,
) -> Result<Select, Diagnostic> {
    let mut lowering = Lowering::new(text, around, true);
    let plan = Plan { indexes: range.indexes.clone(), ..plan.clone() };
    let time = name(TIME);
    let within = vec![format!("{time} >= {}", timestamp(range.start)), format!("{time} < {}", timestamp(range.end))];
    let mut rows = lowering.rows_from(&plan, within)?;
    if forward {
        rows.order.iter_mut().for_each(|key| key.descending = false);
    }
    let last = rows.last(around.rows_max.saturating_add(1));
    lowering.select(&last)
}

/// A statement that answers a metric query: columns `_time` and `value`, and the labels between them; a label that is null
/// is not there. Points without a number are left out.
///
/// Order: by labels, then by time; the order of `sort`, `topk` and `bottomk` among the series of an instant is the caller's.
/// Bounds: [`POINTS_MAX`] points of a series, `around.rows_max` rows and one more.
/// Errors: as [`lower`](crate::lower); `not yet here: …` for what the crate's list of LogQL leaves out.
pub fn lower_metric(
    metric: &Metric,
    text: &str,
    around: &Surroundings,
    range: &LogqlRange,
) -> Result<Select, Diagnostic> {
    let step = i64::try_from(range.step.as_nanos()).unwrap_or(i64::MAX);
    let instant = step == 0;
    let start = if instant { range.end } else { range.start };
    let count = if instant { 1 } else { range.end.nanos().saturating_sub(start.nanos()) / step + 1 };
    if count < 1 || range.end < start {
        return Err(Diagnostic::new(1, 1, "the range ends before it begins"));
    }
    if count > POINTS_MAX {
        return Err(Diagnostic::new(1, 1, format!("the range has {count} points, {POINTS_MAX} are the most"))
            .help("choose a longer step"));
    }
    let grid = Grid { start: start.nanos(), step: step.max(1), count };
    let mut lowering = Lowering::new(text, around, true);
    let mut work = Work { lowering: &mut lowering, range, grid };
    let part = work.part(metric, &[])?;
    let series = work.series(part)?;
    let labels: String = series.labels.iter().map(|label| format!("{}, ", name(label))).collect();
    let limit = around.rows_max.saturating_add(1);
    let last = format!(
        "SELECT to_timestamp_nanos({} + \"{POINT}\" * {}) AS \"{TIME}\", {labels}\"{VALUE}\" FROM {} \
         WHERE \"{VALUE}\" IS NOT NULL ORDER BY {labels}\"{TIME}\" LIMIT {limit}",
        grid.start, grid.step, series.from,
    );
    lowering.select(&last)
}

/// The points of all series, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Grid {
    start: i64,
    step: i64,
    count: i64,
}

/// A relation of points, labels and numbers.
pub(super) struct Series {
    pub(super) from: String,
    pub(super) labels: Vec<String>,
}

/// What a part of a query gives.
pub(super) enum Part {
    /// The same number everywhere; `true` for a vector, which has a series.
    Constant(f64, bool),
    Series(Series),
}

/// A metric query on its way to SQL.
pub(super) struct Work<'l, 'a> {
    pub(super) lowering: &'l mut Lowering<'a>,
    range: &'l LogqlRange,
    grid: Grid,
}

impl Work<'_, '_> {
    /// A metric; `wanted` are labels by which it is grouped further out.
    fn part(&mut self, metric: &Metric, wanted: &[String]) -> Result<Part, Diagnostic> {
        Ok(match metric {
            Metric::Number(number) => Part::Constant(*number, false),
            Metric::Vector(number) => Part::Constant(*number, true),
            Metric::Range(range) => Part::Series(self.windows(range, wanted, None)?),
            Metric::Aggregate { function, count, grouping, of } => {
                Part::Series(self.aggregate(*function, *count, grouping.as_ref(), of, wanted)?)
            }
            Metric::Binary { op, boolean, matching, left, right } => {
                let mut inner = wanted.to_vec();
                inner.extend(matching.iter().filter(|on| !on.without).flat_map(|on| on.labels.clone()));
                let (left, right) = (self.part(left, &inner)?, self.part(right, &inner)?);
                self.binary(*op, *boolean, matching.as_ref(), left, right)?
            }
        })
    }

    /// A part as series: a constant has a point everywhere.
    pub(super) fn series(&mut self, part: Part) -> Result<Series, Diagnostic> {
        match part {
            Part::Series(series) => Ok(series),
            Part::Constant(number, _) => {
                let from = self.points(number)?;
                Ok(Series { from, labels: Vec::new() })
            }
        }
    }

    pub(super) fn points(&mut self, number: f64) -> Result<String, Diagnostic> {
        let value = if number.is_finite() {
            format!("CAST({number:?} AS DOUBLE)")
        } else {
            format!("CAST('{number}' AS DOUBLE)")
        };
        self.lowering
            .stage(&format!("SELECT unnest(range(0, {})) AS \"{POINT}\", {value} AS \"{VALUE}\"", self.grid.count))
    }

    /// The lines of the windows as numbers, grouped by exactly `only` where that is given.
    fn windows(
        &mut self,
        metric: &RangeMetric,
        wanted: &[String],
        only: Option<&[String]>,
    ) -> Result<Series, Diagnostic> {
        let Grid { start, step, count } = self.grid;
        let range = i64::try_from(metric.range.as_nanos()).unwrap_or(i64::MAX);
        if count > 1 && range / step > WINDOWS_MAX {
            return Err(self
                .lowering
                .complaint("[", format!("a range is at most {WINDOWS_MAX} times the step"))
                .help("choose a longer step or a shorter range"));
        }
        let time = name(TIME);
        let at = |nanos: i64| timestamp(Timestamp::from_nanos(nanos.saturating_sub(metric.offset)));
        let end = start.saturating_add(step.saturating_mul(count - 1));
        let within = vec![format!("{time} > {}", at(start.saturating_sub(range))), format!("{time} <= {}", at(end))];
        let plan = Plan { indexes: self.range.indexes.clone(), ..metric.logs.clone() };
        let mut rows = self.lowering.rows_from(&plan, within)?;
        rows.order.clear();
        // A window begins behind its first instant and holds its last: (point - range, point].
        let nanos = format!("CAST({time} AS BIGINT) + {}", metric.offset);
        let first = format!("greatest(0, ({nanos} - {start} + {}) / {step})", step - 1);
        let behind = format!("least({count}, ({nanos} + {range} - {start} + {}) / {step})", step - 1);
        let point = match (count, range == step) {
            (1, _) => "CAST(0 AS BIGINT)".to_owned(),
            (_, true) => first,
            _ => format!("unnest(range({first}, {behind}))"),
        };
        self.lowering.settle_with(&mut rows, None, &[(POINT.to_owned(), point)])?;
        if metric.function == RangeFunction::Absent {
            return self.absent(&rows);
        }
        let labels = match (only, &metric.grouping) {
            (Some(only), _) => only.to_vec(),
            (None, grouping) => self.labels(&self.range.labels, wanted, grouping.as_ref()),
        };
        let value = self.window_value(&mut rows, metric)?;
        let mut list = format!("\"{POINT}\"");
        for label in &labels {
            list.push_str(&format!(", {} AS {}", self.lowering.label_text(&rows, label)?, name(label)));
        }
        let groups: Vec<String> = (1..=labels.len() + 1).map(|number| number.to_string()).collect();
        let from = self.lowering.stage(&format!(
            "SELECT {list}, {value} AS \"{VALUE}\" FROM {} GROUP BY {}",
            rows.filtered(),
            groups.join(", ")
        ))?;
        Ok(Series { from, labels })
    }

    /// The labels of a series: those of a stream and those wanted further out, as the grouping leaves them.
    fn labels(&self, own: &[String], wanted: &[String], grouping: Option<&Grouping>) -> Vec<String> {
        let mut all: Vec<String> = own.to_vec();
        for label in wanted {
            if !all.contains(label) {
                all.push(label.clone());
            }
        }
        match grouping {
            None => all,
            Some(grouping) if grouping.without => {
                all.into_iter().filter(|label| !grouping.labels.contains(label)).collect()
            }
            Some(grouping) => grouping.labels.clone(),
        }
    }

    /// What the lines of one window give.
    fn window_value(&mut self, rows: &mut Rows, metric: &RangeMetric) -> Result<String, Diagnostic> {
        let seconds = format!("{:?}", metric.range.as_secs_f64());
        let bytes = format!("CAST(sum(octet_length({})) AS DOUBLE)", self.lowering.label_text(rows, MESSAGE)?);
        let Some(unwrap) = &metric.unwrap else {
            return Ok(match metric.function {
                RangeFunction::Rate => format!("CAST(count(*) AS DOUBLE) / {seconds}"),
                RangeFunction::Bytes => bytes,
                RangeFunction::BytesRate => format!("{bytes} / {seconds}"),
                _ => "CAST(count(*) AS DOUBLE)".to_owned(),
            });
        };
        let number = self.lowering.label_number(rows, &unwrap.label, unwrap.unit)?;
        rows.filters.push(format!("{number} IS NOT NULL"));
        let x = format!("CAST({number} AS DOUBLE)");
        let time = name(TIME);
        Ok(match metric.function {
            RangeFunction::Count => "CAST(count(*) AS DOUBLE)".to_owned(),
            RangeFunction::Rate => format!("sum({x}) / {seconds}"),
            RangeFunction::Bytes => bytes,
            RangeFunction::BytesRate => format!("{bytes} / {seconds}"),
            RangeFunction::Sum | RangeFunction::Absent => format!("sum({x})"),
            RangeFunction::Avg => format!("avg({x})"),
            RangeFunction::Min => format!("min({x})"),
            RangeFunction::Max => format!("max({x})"),
            RangeFunction::Deviation => format!("stddev_pop({x})"),
            RangeFunction::Variance => format!("var_pop({x})"),
            RangeFunction::First => format!("first_value({x} ORDER BY {time})"),
            RangeFunction::Last => format!("last_value({x} ORDER BY {time})"),
            RangeFunction::Quantile => {
                let share = metric.quantile.unwrap_or(0.5);
                format!("approx_percentile_cont({share:?}) WITHIN GROUP (ORDER BY {x})")
            }
        })
    }

    /// 1 at the points without lines.
    fn absent(&mut self, rows: &Rows) -> Result<Series, Diagnostic> {
        let points = self.points(1.0)?;
        let sql = format!(
            "SELECT \"{POINT}\", \"{VALUE}\" FROM {points} WHERE \"{POINT}\" NOT IN (SELECT \"{POINT}\" FROM {})",
            rows.filtered()
        );
        Ok(Series { from: self.lowering.stage(&sql)?, labels: Vec::new() })
    }

    fn aggregate(
        &mut self,
        function: VectorFunction,
        count: Option<u32>,
        grouping: Option<&Grouping>,
        of: &Metric,
        wanted: &[String],
    ) -> Result<Series, Diagnostic> {
        let by: Option<&[String]> = match grouping {
            Some(grouping) if !grouping.without => Some(&grouping.labels),
            Some(_) => None,
            None => Some(&[]),
        };
        // A sum of sums is the sum of all: the streams need not be told apart first.
        if let (VectorFunction::Sum, Some(by), Metric::Range(range)) = (function, by, of)
            && range.grouping.is_none()
            && matches!(
                range.function,
                RangeFunction::Count
                    | RangeFunction::Rate
                    | RangeFunction::Bytes
                    | RangeFunction::BytesRate
                    | RangeFunction::Sum
            )
        {
            return self.windows(range, &[], Some(by));
        }
        let inner: Vec<String> = wanted.iter().chain(by.unwrap_or_default()).cloned().collect();
        let part = self.part(of, &inner)?;
        let series = self.series(part)?;
        if matches!(function, VectorFunction::Sort | VectorFunction::SortDescending) {
            return Ok(series);
        }
        let labels: Vec<String> = match grouping {
            None => Vec::new(),
            Some(grouping) => series
                .labels
                .iter()
                .filter(|label| grouping.labels.contains(label) != grouping.without)
                .cloned()
                .collect(),
        };
        let keys: String = labels.iter().map(|label| format!(", {}", name(label))).collect();
        if let Some(count) = count {
            let order = if function == VectorFunction::Top { "DESC" } else { "ASC" };
            let others: String = series.labels.iter().map(|label| format!(", {}", name(label))).collect();
            let from = self.lowering.stage(&format!(
                "SELECT *, row_number() OVER (PARTITION BY \"{POINT}\"{keys} ORDER BY \"{VALUE}\" {order}{others}) AS \"_rank\" FROM {}",
                series.from
            ))?;
            let from = self
                .lowering
                .stage(&format!("SELECT \"{POINT}\"{others}, \"{VALUE}\" FROM {from} WHERE \"_rank\" <= {count}"))?;
            return Ok(Series { from, labels: series.labels });
        }
        let value = match function {
            VectorFunction::Avg => "avg(\"value\")",
            VectorFunction::Min => "min(\"value\")",
            VectorFunction::Max => "max(\"value\")",
            VectorFunction::Count => "CAST(count(*) AS DOUBLE)",
            VectorFunction::Deviation => "stddev_pop(\"value\")",
            VectorFunction::Variance => "var_pop(\"value\")",
            _ => "sum(\"value\")",
        };
        let from = self.lowering.stage(&format!(
            "SELECT \"{POINT}\"{keys}, {value} AS \"{VALUE}\" FROM {} GROUP BY \"{POINT}\"{keys}",
            series.from
        ))?;
        Ok(Series { from, labels })
    }
}
