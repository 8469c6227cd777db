//! Steps that look at what lies around a row: sequences, context, anomalies.

use std::time::Duration;

use super::{ColumnKind, Lowering, Out, Rows, name, quote};
use crate::{
    Diagnostic,
    plan::{Measure, Predicate, TIME},
};

/// Of how many hits, the first ones, the rows around are looked for.
const HITS_MAX: u64 = 1_000;
/// How many points before one say what is usual.
const POINTS_BEFORE: u32 = 30;
/// With fewer points before it nothing is unusual.
const POINTS_BEFORE_MIN: u32 = 5;
/// So many standard deviations from the mean is unusual.
const DEVIATIONS: u32 = 3;

impl Lowering<'_> {
    /// A row for each event of the last kind that has one of each kind before it, in order and soon enough: from the
    /// latest first one on.
    pub(super) fn sequence(
        &mut self,
        rows: &mut Rows,
        terms: &[Predicate],
        by: &[String],
        within: Duration,
    ) -> Result<(), Diagnostic> {
        let time = self.column(rows, TIME)?.sql;
        let mut columns = Vec::new();
        for key in by {
            let column = self.column(rows, key)?;
            rows.filters.push(format!("{} IS NOT NULL", column.sql));
            columns.push(Out::column(key, column.kind));
        }
        let kinds = terms.iter().map(|term| self.predicate(rows, term)).collect::<Result<Vec<_>, _>>()?;
        let any: Vec<String> = kinds.iter().map(|kind| format!("({kind})")).collect();
        rows.filters.push(format!("({})", any.join(" OR ")));
        let keys: String = by.iter().map(|key| format!("{}, ", name(key))).collect();
        let marks = |from: usize| (from..kinds.len()).map(|i| format!(", \"_is_{i}\"")).collect::<String>();
        let is: String =
            kinds.iter().enumerate().skip(1).map(|(i, kind)| format!(", ({kind}) AS \"_is_{i}\"")).collect();
        let first = &kinds[0];
        let mut from = self.stage(&format!(
            "SELECT {keys}CAST({time} AS BIGINT) AS \"_at\", CASE WHEN {first} THEN CAST({time} AS BIGINT) END AS \"_from\"{is} FROM {}",
            rows.filtered()
        ))?;
        let partition =
            if by.is_empty() { String::new() } else { format!("PARTITION BY {} ", keys.trim_end_matches(", ")) };
        for i in 1..kinds.len() {
            from = self.stage(&format!(
                "SELECT {keys}\"_at\", CASE WHEN \"_is_{i}\" THEN max(\"_from\") OVER ({partition}ORDER BY \"_at\" \
                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) END AS \"_from\"{} FROM {from}",
                marks(i + 1)
            ))?;
        }
        let from = self.stage(&format!(
            "SELECT {keys}to_timestamp_nanos(\"_from\") AS {}, to_timestamp_nanos(\"_at\") AS \"until\" FROM {from} \
             WHERE \"_from\" IS NOT NULL AND \"_at\" - \"_from\" <= {}",
            name(TIME),
            quote::nanos(within)
        ))?;
        columns.extend([Out::column(TIME, ColumnKind::Time), Out::column("until", ColumnKind::Time)]);
        self.runs(rows, from, columns);
        Ok(())
    }

    /// Rows about runs of events, from `_time` to `until`: newest first, with their duration.
    pub(super) fn runs(&self, rows: &mut Rows, from: String, columns: Vec<Out>) {
        let behind = columns.iter().position(|out| out.name == "until").map_or(columns.len(), |place| place + 1);
        *rows = Rows::new(from, columns);
        let nanos = |column: &str| format!("CAST({column} AS BIGINT)");
        let sql = format!("CAST({} - {} AS DOUBLE) / 1000000000.0", nanos("\"until\""), nanos(&name(TIME)));
        rows.columns.insert(behind, Out { name: "duration".to_owned(), sql, kind: ColumnKind::Number, plain: false });
        rows.order_by([(name(TIME), true)]);
    }

    /// The rows beside each hit in its segment, each once, the hits among them.
    pub(super) fn context(
        &mut self,
        rows: &mut Rows,
        mut source: Rows,
        before: u64,
        after: u64,
    ) -> Result<(), Diagnostic> {
        let [segment, offset] = ["_segment", "_offset"].map(name);
        if [&segment, &offset].iter().any(|place| !rows.columns.iter().any(|out| out.plain && out.sql == **place)) {
            let found = self.complaint("context", "context follows a search, whose rows are events");
            return Err(found.help("for example error | head 5 | context 10"));
        }
        self.settle(rows, Some(HITS_MAX))?;
        let around = self.stage(&format!(
            "SELECT {segment} AS \"_in\", unnest(range({offset} - {before}, {offset} + {})) AS \"_at\" FROM {}",
            after.saturating_add(1),
            rows.from
        ))?;
        let around = self.stage(&format!("SELECT DISTINCT \"_in\", \"_at\" FROM {around}"))?;
        self.settle(&mut source, None)?;
        let list: Vec<String> = source.columns.iter().map(|out| format!("l.{0} AS {0}", name(&out.name))).collect();
        let from = self.stage(&format!(
            "SELECT {} FROM {} AS l JOIN {around} AS r ON l.{segment} = r.\"_in\" AND l.{offset} = r.\"_at\"",
            list.join(", "),
            source.from
        ))?;
        let order: Vec<_> = source.order.iter().map(|key| (key.sql.clone(), key.descending)).collect();
        self.replace(rows, from, source.columns, order);
        Ok(())
    }

    /// The points of a chart that lie far from those before them.
    pub(super) fn anomaly(
        &mut self,
        rows: &mut Rows,
        measure: &Measure,
        by: &[String],
        every: Duration,
    ) -> Result<(), Diagnostic> {
        self.chart(rows, std::slice::from_ref(measure), by, Some(every), None)?;
        let value = format!("CAST({} AS DOUBLE)", name(&measure.name));
        let keys: Vec<String> = by.iter().map(|key| name(key)).collect();
        let partition = if by.is_empty() { String::new() } else { format!("PARTITION BY {} ", keys.join(", ")) };
        let over = |aggregate: &str| {
            format!(
                "{aggregate}({value}) OVER ({partition}ORDER BY {} ROWS BETWEEN {POINTS_BEFORE} PRECEDING AND 1 PRECEDING)",
                name(TIME)
            )
        };
        let expected = Out { name: "expected".to_owned(), sql: over("avg"), kind: ColumnKind::Number, plain: false };
        rows.set(expected);
        let beside = [("_deviation".to_owned(), over("stddev")), ("_before".to_owned(), over("count"))];
        self.settle_with(rows, None, &beside)?;
        let off = format!("({value} - \"expected\")");
        rows.filters.extend([
            format!("\"_before\" >= {POINTS_BEFORE_MIN}"),
            format!("{off} <> 0"),
            format!("abs({off}) > {DEVIATIONS} * \"_deviation\""),
        ]);
        let sql = format!("{off} / nullif(\"_deviation\", 0)");
        rows.set(Out { name: "score".to_owned(), sql, kind: ColumnKind::Number, plain: false });
        Ok(())
    }
}
