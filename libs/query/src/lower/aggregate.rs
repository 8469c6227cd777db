//! Steps that make groups: stats, chart, top, dedup, session, and what looks over groups without making them.

use std::time::Duration;

use super::{ColumnKind, Lowering, Out, Rows, name, quote, term::Typed, term::usual};
use crate::{
    Diagnostic,
    plan::{Measure, MeasureFunction, TIME, Term},
};

/// Most windows that one row of a sliding chart may stand in.
const WINDOWS_MAX: i64 = 1_000;

impl Lowering<'_> {
    /// The aggregate as SQL; rates are by so many seconds.
    pub(super) fn measure(&self, rows: &Rows, measure: &Measure, seconds: Option<f64>) -> Result<Typed, Diagnostic> {
        use ColumnKind::{Integer, Number, Other};
        let argument = measure.argument.as_ref().map(|term| self.term(rows, term)).transpose()?;
        let Some(argument) = argument else {
            return match measure.function {
                MeasureFunction::Rate => match seconds.filter(|seconds| *seconds > 0.0) {
                    Some(seconds) => {
                        Ok(Typed::new(format!("CAST(count(*) AS DOUBLE) / {}", quote::number(seconds)), Number))
                    }
                    None => Err(self.complaint("rate", "a rate needs a span of time").help("begin with since:1h")),
                },
                _ => Ok(Typed::new("count(*)", Integer)),
            };
        };
        let (sql, kind) = (&argument.sql, argument.kind);
        let number = argument.numeric();
        let by_time = || match rows.find(TIME) {
            Some(time) => Ok(time.sql.clone()),
            None => Err(self.no_field(TIME, rows.columns.iter().map(|out| out.name.as_str()))),
        };
        Ok(match measure.function {
            MeasureFunction::Count | MeasureFunction::Rate => Typed::new(format!("count({sql})"), Integer),
            MeasureFunction::CountIf => {
                Typed::new(format!("count(CASE WHEN {} THEN 1 END)", argument.condition()), Integer)
            }
            MeasureFunction::Distinct => Typed::new(format!("count(DISTINCT {sql})"), Integer),
            MeasureFunction::Sum if kind == Integer => Typed::new(format!("sum({sql})"), Integer),
            MeasureFunction::Sum => Typed::new(format!("sum({number})"), Number),
            MeasureFunction::Avg => Typed::new(format!("avg({number})"), Number),
            MeasureFunction::Min => Typed::new(format!("min({sql})"), kind),
            MeasureFunction::Max => Typed::new(format!("max({sql})"), kind),
            MeasureFunction::Percentile(percent) => {
                let share = quote::number(percent / 100.0);
                let number = format!("CAST({number} AS DOUBLE)");
                Typed::new(format!("approx_percentile_cont({share}) WITHIN GROUP (ORDER BY {number})"), Number)
            }
            MeasureFunction::Deviation => Typed::new(format!("stddev({number})"), Number),
            MeasureFunction::Variance => Typed::new(format!("var_samp({number})"), Number),
            MeasureFunction::First => Typed::new(format!("first_value({sql} ORDER BY {})", by_time()?), kind),
            MeasureFunction::Last => Typed::new(format!("last_value({sql} ORDER BY {})", by_time()?), kind),
            MeasureFunction::Values => Typed::new(format!("array_agg(DISTINCT {sql})"), Other),
        })
    }

    /// Aggregates by key and, for a chart, by a column of times that stands first.
    pub(super) fn group(
        &mut self,
        rows: &mut Rows,
        measures: &[Measure],
        by: &[String],
        time: Option<&str>,
        seconds: Option<f64>,
    ) -> Result<(), Diagnostic> {
        let mut columns = Vec::new();
        let mut list = Vec::new();
        if let Some(time) = time {
            list.push(format!("{time} AS {}", name(TIME)));
            columns.push(Out::column(TIME, ColumnKind::Time));
        }
        for key in by {
            let column = self.column(rows, key)?;
            list.push(format!("{} AS {}", column.sql, name(key)));
            columns.push(Out::column(key, column.kind));
        }
        let keys: Vec<String> = columns.iter().map(|out| out.name.clone()).collect();
        for measure in measures {
            if columns.iter().any(|out| out.name == measure.name) {
                return Err(self
                    .complaint(&measure.name, format!("two columns have the name {}", measure.name))
                    .help("give the aggregate another name with as"));
            }
            let value = self.measure(rows, measure, seconds)?;
            list.push(format!("{} AS {}", value.sql, name(&measure.name)));
            columns.push(Out::column(&measure.name, value.kind));
        }
        let numbers: Vec<String> = (1..=keys.len()).map(|number| number.to_string()).collect();
        let grouped = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", numbers.join(", ")) };
        let from = self.stage(&format!("SELECT {} FROM {}{grouped}", list.join(", "), rows.filtered()))?;
        let (begin, end) = (rows.begin, rows.end);
        *rows = Rows::new(from, columns);
        (rows.begin, rows.end) = (begin, end);
        rows.order_by(keys.iter().map(|key| (name(key), false)));
        rows.keys = Some(keys);
        Ok(())
    }

    pub(super) fn chart(
        &mut self,
        rows: &mut Rows,
        measures: &[Measure],
        by: &[String],
        every: Option<Duration>,
        over: Option<Duration>,
    ) -> Result<(), Diagnostic> {
        if by.iter().any(|key| key == TIME) {
            return Err(self.complaint(TIME, "a chart is by time anyway"));
        }
        let time = self.column(rows, TIME)?.sql;
        let every = match (every, rows.seconds()) {
            (Some(every), _) => every,
            (None, Some(seconds)) => usual(seconds),
            (None, None) => {
                return Err(self
                    .complaint("chart", "a chart needs a distance between its points")
                    .help("write every 1m, or begin with since:1h"));
            }
        };
        let over = over.unwrap_or(every);
        let bucket = format!("date_bin({}, {time})", quote::interval(every));
        if over == every {
            return self.group(rows, measures, by, Some(&bucket), Some(every.as_secs_f64()));
        }
        let (step, range) = (quote::nanos(every), quote::nanos(over));
        let windows = range / step;
        if range % step != 0 || windows > WINDOWS_MAX {
            let found = format!("over must be a multiple of every, at most {WINDOWS_MAX} times as long");
            return Err(self.complaint("over", found));
        }
        // Each row stands in so many points: the one of its own time, and those that look back on it.
        self.settle_with(rows, None, &[("_window".to_owned(), format!("unnest(range(0, {windows}))"))])?;
        let point = format!("to_timestamp_nanos(CAST({bucket} AS BIGINT) + \"_window\" * {step})");
        self.group(rows, measures, by, Some(&point), Some(over.as_secs_f64()))?;
        let (begin, end) = (rows.begin, rows.end.unwrap_or(self.around.now));
        rows.filters.push(format!("{} < {}", name(TIME), quote::timestamp(end)));
        rows.filters.extend(begin.map(|begin| format!("{} >= {}", name(TIME), quote::timestamp(begin))));
        Ok(())
    }

    pub(super) fn top(
        &mut self,
        rows: &mut Rows,
        count: u64,
        fields: &[String],
        by: &[String],
        rare: bool,
    ) -> Result<(), Diagnostic> {
        for field in fields {
            let column = self.column(rows, field)?;
            rows.filters.push(format!("{} IS NOT NULL", column.sql));
        }
        let keys: Vec<String> = by.iter().chain(fields).cloned().collect();
        let counted = Measure { function: MeasureFunction::Count, argument: None, name: "count".to_owned() };
        self.group(rows, &[counted], &keys, None, None)?;
        let order = |alias: &str| {
            let keys = keys.iter().map(|key| format!("{alias}{}", name(key)));
            let first = format!("\"count\" {}", if rare { "ASC" } else { "DESC" });
            [first].into_iter().chain(keys).collect::<Vec<_>>().join(", ")
        };
        let partition = if by.is_empty() { String::new() } else { format!("PARTITION BY {} ", list(by)) };
        let percent = format!("\"count\" * 100.0 / sum(\"count\") OVER ({})", partition.trim_end());
        rows.columns.push(Out { name: "percent".to_owned(), sql: percent, kind: ColumnKind::Number, plain: false });
        let rank = format!("row_number() OVER ({partition}ORDER BY {})", order(""));
        self.settle_with(rows, None, &[("_rank".to_owned(), rank)])?;
        rows.filters.push(format!("\"_rank\" <= {count}"));
        let keys = by.iter().map(|key| (name(key), false)).chain([("\"_rank\"".to_owned(), false)]);
        rows.order_by(keys);
        Ok(())
    }

    pub(super) fn dedup(&mut self, rows: &mut Rows, fields: &[String]) -> Result<(), Diagnostic> {
        let mut keys = Vec::new();
        for field in fields {
            let column = self.column(rows, field)?.sql;
            rows.filters.push(format!("{column} IS NOT NULL"));
            keys.push(column);
        }
        let rank = format!("row_number() OVER (PARTITION BY {}{})", keys.join(", "), rows.ordered());
        self.settle_with(rows, None, &[("_rank".to_owned(), rank)])?;
        rows.filters.push("\"_rank\" = 1".to_owned());
        Ok(())
    }

    /// Runs of events: the first of each is one whose predecessor lies too far back.
    pub(super) fn session(&mut self, rows: &mut Rows, by: &[String], gap: Duration) -> Result<(), Diagnostic> {
        let time = format!("CAST({} AS BIGINT)", self.column(rows, TIME)?.sql);
        for key in by {
            let column = self.column(rows, key)?.sql;
            rows.filters.push(format!("{column} IS NOT NULL"));
        }
        let partition = if by.is_empty() { String::new() } else { format!("PARTITION BY {} ", list(by)) };
        let window = format!("{partition}ORDER BY {}", name(TIME));
        let pause = format!("{time} - lag({time}) OVER ({window})");
        let begins = format!("CASE WHEN {pause} <= {} THEN 0 ELSE 1 END", quote::nanos(gap));
        self.settle_with(rows, None, &[("_begins".to_owned(), begins)])?;
        let number = format!("sum(\"_begins\") OVER ({window} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)");
        self.settle_with(rows, None, &[("_run".to_owned(), number)])?;
        let keys = by.iter().map(|key| self.column(rows, key).map(|column| (key, column)));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let mut columns: Vec<Out> = keys.iter().map(|(key, column)| Out::column(key, column.kind)).collect();
        columns.extend([
            Out::column(TIME, ColumnKind::Time),
            Out::column("until", ColumnKind::Time),
            Out::column("count", ColumnKind::Integer),
        ]);
        let mut group: Vec<String> = by.iter().map(|key| name(key)).collect();
        let listed: String = group.iter().map(|key| format!("{key}, ")).collect();
        group.push("\"_run\"".to_owned());
        let time = name(TIME);
        let from = self.stage(&format!(
            "SELECT {listed}min({time}) AS {time}, max({time}) AS \"until\", count(*) AS \"count\" FROM {} GROUP BY {}",
            rows.filtered(),
            group.join(", "),
        ))?;
        self.runs(rows, from, columns);
        Ok(())
    }

    /// Aggregates beside each row: of its key, or of the rows up to it.
    pub(super) fn beside(
        &mut self,
        rows: &mut Rows,
        measures: &[Measure],
        by: &[String],
        running: bool,
    ) -> Result<(), Diagnostic> {
        let keys =
            by.iter().map(|key| self.column(rows, key).map(|column| column.sql)).collect::<Result<Vec<_>, _>>()?;
        let mut window = if keys.is_empty() { String::new() } else { format!("PARTITION BY {}", keys.join(", ")) };
        if running {
            let time = self.column(rows, TIME)?.sql;
            window = format!("{window} ORDER BY {time} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW");
        }
        let mut added = Vec::new();
        for measure in measures {
            use MeasureFunction::{Avg, Count, CountIf, Deviation, Max, Min, Sum, Variance};
            if !matches!(measure.function, Count | CountIf | Sum | Avg | Min | Max | Deviation | Variance) {
                let word = measure.function.word();
                return Err(self
                    .not_yet(&word)
                    .help("count, countif, sum, avg, min, max, stdev and var can stand here"));
            }
            let value = self.measure(rows, measure, None)?;
            let sql = format!("{} OVER ({})", value.sql, window.trim());
            added.push(Out { name: measure.name.clone(), sql, kind: value.kind, plain: false });
        }
        added.into_iter().for_each(|out| rows.set(out));
        self.settle(rows, None)
    }

    /// The difference to the row before.
    pub(super) fn delta(&mut self, rows: &mut Rows, field: &str, to: &str) -> Result<(), Diagnostic> {
        let value = self.term(rows, &Term::Field(field.to_owned()))?;
        let time = self.column(rows, TIME)?.sql;
        let number = value.numeric();
        let kind = if value.kind == ColumnKind::Integer { ColumnKind::Integer } else { ColumnKind::Number };
        let sql = format!("{number} - lag({number}) OVER (ORDER BY {time})");
        rows.set(Out { name: to.to_owned(), sql, kind, plain: false });
        self.settle(rows, None)
    }
}

fn list(fields: &[String]) -> String {
    fields.iter().map(|field| name(field)).collect::<Vec<_>>().join(", ")
}
