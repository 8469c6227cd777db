//! Where rows come from: one index or several, within a span of time.

use types::{IndexName, Timestamp};

use super::{Column, ColumnKind, Lowering, Out, Rows, name, timestamp};
use crate::{
    Diagnostic,
    plan::{Moment, Plan, Step, TIME},
};

/// The columns by which events of one time are put in order.
const PLACE: [&str; 2] = ["_segment", "_offset"];

impl Lowering<'_> {
    /// The rows of the plan's indexes in its span, moved back by so many nanoseconds; newest first.
    pub(super) fn source(&mut self, plan: &Plan, back: i64) -> Result<Rows, Diagnostic> {
        let mut parts = Vec::new();
        for index in &plan.indexes {
            let columns = self.columns(index)?.iter().map(|c| Out::column(&c.name, c.kind)).collect();
            parts.push(Rows::new(name(index.as_str()), columns));
        }
        for view in &plan.views {
            parts.push(self.table(view)?);
        }
        // Several are one relation: a column that one of them lacks is null there, unequal kinds meet as text.
        let mut rows = match parts.len() {
            0 => return Err(Diagnostic::new(1, 1, "the query names no index").help("begin with index:name")),
            1 => parts.swap_remove(0),
            _ => self.union(parts)?,
        };
        let moved = |moment: Moment| {
            let at = moment.instant(self.around.now);
            Timestamp::from_nanos(at.nanos().saturating_sub(back))
        };
        // Before the first point of a chart lies what it looks back on.
        let looking_back = plan.steps.iter().find_map(|step| match step {
            Step::Chart { over: Some(over), .. } => Some(*over),
            _ => None,
        });
        let time = name(TIME);
        if let Some(since) = plan.span.since.map(moved) {
            let since = looking_back.map_or(since, |over| since - over);
            rows.filters.push(format!("{time} >= {}", timestamp(since)));
        }
        let until = plan.span.until.or((back != 0).then_some(Moment::Ago(std::time::Duration::ZERO))).map(moved);
        if let Some(until) = until {
            rows.filters.push(format!("{time} < {}", timestamp(until)));
        }
        rows.begin = plan.span.since.map(moved);
        rows.end = until.or(Some(self.around.now));
        let by = [TIME].into_iter().chain(PLACE).filter(|column| rows.find(column).is_some());
        let by: Vec<(String, bool)> = by.map(|column| (name(column), true)).collect();
        rows.order_by(by);
        Ok(rows)
    }

    fn columns(&self, index: &IndexName) -> Result<&Vec<Column>, Diagnostic> {
        let unknown = || self.complaint(index.as_str(), format!("there is no index {index}"));
        self.around.columns.get(index).ok_or_else(unknown)
    }

    /// Rows after rows, with the columns of all.
    pub(super) fn union(&mut self, parts: Vec<Rows>) -> Result<Rows, Diagnostic> {
        let mut columns: Vec<(String, ColumnKind)> = Vec::new();
        for out in parts.iter().flat_map(|part| &part.columns) {
            match columns.iter_mut().find(|(name, _)| *name == out.name) {
                Some((_, kind)) if *kind == out.kind => {}
                Some((_, kind)) => *kind = wider(*kind, out.kind),
                None => columns.push((out.name.clone(), out.kind)),
            }
        }
        let select = |part: &Rows| {
            let one = |(column, kind): &(String, ColumnKind)| {
                let of = sql_type(*kind);
                let value = match part.find(column) {
                    Some(out) if out.kind == *kind => out.sql.clone(),
                    Some(out) => format!("CAST({} AS {of})", out.sql),
                    None => format!("CAST(NULL AS {of})"),
                };
                format!("{value} AS {}", name(column))
            };
            let list: Vec<String> = columns.iter().map(one).collect();
            format!("SELECT {} FROM {}", list.join(", "), part.filtered())
        };
        let selects: Vec<String> = parts.iter().map(select).collect();
        let from = self.stage(&selects.join(" UNION ALL "))?;
        Ok(Rows::new(from, columns.into_iter().map(|(column, kind)| Out::column(&column, kind)).collect()))
    }
}

fn wider(a: ColumnKind, b: ColumnKind) -> ColumnKind {
    match (a, b) {
        (ColumnKind::Integer | ColumnKind::Number, ColumnKind::Integer | ColumnKind::Number) => ColumnKind::Number,
        _ => ColumnKind::Text,
    }
}

pub(super) fn sql_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Other => "TEXT",
        ColumnKind::Integer => "BIGINT",
        ColumnKind::Number => "DOUBLE",
        ColumnKind::Boolean => "BOOLEAN",
        ColumnKind::Time => "TIMESTAMP",
    }
}
