//! Steps that bring two relations together, and the one that tells about columns.

use super::{ColumnKind, Lowering, Out, Rows, name, term::Typed, text};
use crate::{
    Diagnostic,
    plan::{JoinKind, MESSAGE, Plan, TIME},
};

/// Most fields that `fields` tells about at once.
const FACETS_MAX: usize = 300;

impl Lowering<'_> {
    pub(super) fn join(
        &mut self,
        rows: &mut Rows,
        kind: JoinKind,
        on: &[String],
        plan: &Plan,
    ) -> Result<(), Diagnostic> {
        let mut right = self.rows_of(plan)?;
        self.settle(rows, None)?;
        self.settle(&mut right, None)?;
        let conditions = self.equal_keys(rows, &right, on)?;
        let mut columns: Vec<Out> = rows.columns.clone();
        let mut list: Vec<String> = columns.iter().map(|out| format!("l.{0} AS {0}", name(&out.name))).collect();
        // What the platform adds to every event says nothing about a partner.
        let told = |out: &&Out| !on.contains(&out.name) && !out.name.starts_with('_');
        for out in right.columns.iter().filter(told) {
            let mut to = out.name.clone();
            while columns.iter().any(|other| other.name == to) {
                to.push_str("_right");
            }
            list.push(format!("r.{} AS {}", name(&out.name), name(&to)));
            columns.push(Out::column(&to, out.kind));
        }
        let order = keep_order(rows, &mut list);
        let join = if kind == JoinKind::Left { "LEFT JOIN" } else { "JOIN" };
        let from = self.stage(&format!(
            "SELECT {} FROM {} AS l {join} {} AS r ON {}",
            list.join(", "),
            rows.from,
            right.from,
            conditions.join(" AND ")
        ))?;
        self.replace(rows, from, columns, order);
        rows.hide();
        Ok(())
    }

    /// What must hold of two settled relations `l` and `r` for their keys to be equal: values of unequal kinds meet as text.
    pub(super) fn equal_keys(&self, left: &Rows, right: &Rows, on: &[String]) -> Result<Vec<String>, Diagnostic> {
        let side = |side: &str, column: &Typed| Typed::new(format!("{side}.{}", column.sql), column.kind);
        let equal = |key: &String| {
            let (a, b) = (side("l", &self.column(left, key)?), side("r", &self.column(right, key)?));
            let same = a.kind == b.kind;
            Ok(if same { format!("{} = {}", a.sql, b.sql) } else { format!("{} = {}", a.text(), b.text()) })
        };
        on.iter().map(equal).collect()
    }

    /// Another relation in the place of the rows, whose span of time stays.
    pub(super) fn replace(&self, rows: &mut Rows, from: String, columns: Vec<Out>, order: Vec<(String, bool)>) {
        let (begin, end) = (rows.begin, rows.end);
        *rows = Rows::new(from, columns);
        (rows.begin, rows.end) = (begin, end);
        rows.order_by(order);
    }

    pub(super) fn append(&mut self, rows: &mut Rows, plan: &Plan) -> Result<(), Diagnostic> {
        let (begin, end) = (rows.begin, rows.end);
        let order: Vec<(String, bool)> = rows.order.iter().map(|key| (key.sql.clone(), key.descending)).collect();
        let other = self.rows_of(plan)?;
        *rows = self.union(vec![rows.clone(), other])?;
        (rows.begin, rows.end) = (begin, end);
        // Only columns that are seen can put both in one order.
        let kept: Vec<(String, bool)> =
            order.into_iter().filter(|(sql, _)| rows.columns.iter().any(|out| out.sql == *sql)).collect();
        rows.order_by(kept);
        Ok(())
    }

    /// The figures of an earlier time beside those of now, matched by their keys.
    pub(super) fn compare(&mut self, rows: &mut Rows, mut before: Rows, back: i64) -> Result<(), Diagnostic> {
        let Some(keys) = rows.keys.clone().filter(|keys| keys.iter().all(|key| rows.find(key).is_some())) else {
            return Err(self
                .complaint("compare", "compare follows stats or chart")
                .help("for example stats count by service | compare -7d"));
        };
        if rows.begin.is_none() {
            return Err(self.complaint("compare", "compare needs a begin").help("begin with since:1h"));
        }
        self.settle(rows, None)?;
        self.settle(&mut before, None)?;
        let earlier = |key: &str| match key == TIME {
            true => format!("to_timestamp_nanos(CAST(r.{0} AS BIGINT) + {back})", name(key)),
            false => format!("r.{}", name(key)),
        };
        let mut list = Vec::new();
        let mut columns = Vec::new();
        for out in &rows.columns {
            let column = name(&out.name);
            if keys.contains(&out.name) {
                list.push(format!("coalesce(l.{column}, {}) AS {column}", earlier(&out.name)));
                columns.push(out.clone());
                continue;
            }
            let other = format!("{}_before", out.name);
            list.push(format!("l.{column} AS {column}, r.{column} AS {}", name(&other)));
            columns.extend([out.clone(), Out::column(&other, out.kind)]);
        }
        let equal = |key: &String| format!("l.{} IS NOT DISTINCT FROM {}", name(key), earlier(key));
        let how = match keys.is_empty() {
            true => format!("CROSS JOIN {} AS r", before.from),
            false => {
                let equal: Vec<String> = keys.iter().map(equal).collect();
                format!("FULL JOIN {} AS r ON {}", before.from, equal.join(" AND "))
            }
        };
        let from = self.stage(&format!("SELECT {} FROM {} AS l {how}", list.join(", "), rows.from))?;
        let order = keys.iter().map(|key| (name(key), false)).collect();
        self.replace(rows, from, columns, order);
        rows.keys = Some(keys);
        Ok(())
    }

    /// The templates of the messages: what they have in common, how many there are of each, and one of them.
    pub(super) fn patterns(&mut self, rows: &mut Rows) -> Result<(), Diagnostic> {
        let message = self.column(rows, MESSAGE)?.text();
        let from =
            self.stage(&format!("SELECT unnest(templates({message})) AS \"_template\" FROM {}", rows.filtered()))?;
        let of = |member: &str| format!("get_field(\"_template\", '{member}')");
        let (lines, pattern, example) = (of("lines"), of("template"), of("example"));
        let from = self.stage(&format!(
            "SELECT {lines} AS \"count\", {pattern} AS \"pattern\", {example} AS \"example\" FROM {from}"
        ))?;
        let columns = [("count", ColumnKind::Integer), ("pattern", ColumnKind::Text), ("example", ColumnKind::Text)];
        let columns = columns.into_iter().map(|(column, kind)| Out::column(column, kind)).collect();
        self.replace(rows, from, columns, vec![("\"count\"".to_owned(), true), ("\"pattern\"".to_owned(), false)]);
        let percent = "\"count\" * 100.0 / sum(\"count\") OVER ()".to_owned();
        let percent = Out { name: "percent".to_owned(), sql: percent, kind: ColumnKind::Number, plain: false };
        rows.columns.insert(1, percent);
        rows.keys = Some(vec!["pattern".to_owned()]);
        Ok(())
    }

    /// For each field how many rows have it and about how many values it has, in one pass.
    pub(super) fn facets(&mut self, rows: &mut Rows) -> Result<(), Diagnostic> {
        if rows.columns.len() > FACETS_MAX {
            return Err(self
                .complaint("fields", format!("fields tells about at most {FACETS_MAX} fields"))
                .help("choose some first: | keep a, b | fields"));
        }
        let mut counts = vec!["count(*) AS \"n\"".to_owned()];
        let (mut names, mut with, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (i, out) in rows.columns.iter().enumerate() {
            let value = Typed::new(out.sql.clone(), out.kind);
            counts.push(format!("count({}) AS \"c{i}\", approx_distinct({}) AS \"d{i}\"", value.sql, value.text()));
            names.push(text(&out.name));
            with.push(format!("\"c{i}\""));
            values.push(format!("CAST(\"d{i}\" AS BIGINT)"));
        }
        let from = self.stage(&format!("SELECT {} FROM {}", counts.join(", "), rows.filtered()))?;
        let from = self.stage(&format!(
            "SELECT unnest(make_array({})) AS \"field\", unnest(make_array({})) AS \"count\", \
             unnest(make_array({})) AS \"values\", \"n\" FROM {from}",
            names.join(", "),
            with.join(", "),
            values.join(", "),
        ))?;
        let columns = [("field", ColumnKind::Text), ("count", ColumnKind::Integer), ("values", ColumnKind::Integer)];
        let mut columns: Vec<Out> = columns.into_iter().map(|(column, kind)| Out::column(column, kind)).collect();
        let coverage = "\"count\" * 100.0 / nullif(\"n\", 0)".to_owned();
        columns.push(Out { name: "coverage".to_owned(), sql: coverage, kind: ColumnKind::Number, plain: false });
        self.replace(rows, from, columns, vec![("\"count\"".to_owned(), true), ("\"field\"".to_owned(), false)]);
        rows.filters.push("\"count\" > 0".to_owned());
        rows.hide();
        Ok(())
    }
}

/// Lets the order of the left rows stay, also by columns that nobody sees, which are added to the list.
pub(super) fn keep_order(rows: &Rows, list: &mut Vec<String>) -> Vec<(String, bool)> {
    let mut order = Vec::new();
    for (i, key) in rows.order.iter().enumerate() {
        let column = format!("_order_{}", i + 1);
        list.push(format!("l.{} AS {}", key.sql, name(&column)));
        order.push((name(&column), key.descending));
    }
    order
}
