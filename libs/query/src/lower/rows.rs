//! Rows on their way: a relation, and what is still to be done to it.

use types::Timestamp;

use super::{ColumnKind, Lowering, name};
use crate::{Diagnostic, OutputColumn, SieveStage};

/// Stands for columns of a relation that nobody sees.
const HIDDEN: &str = "_hidden";

/// One visible column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Out {
    pub(crate) name: String,
    /// What it is, over the relation.
    pub(crate) sql: String,
    pub(crate) kind: ColumnKind,
    /// Whether it is a column of the relation as it stands.
    pub(crate) plain: bool,
}

impl Out {
    pub(crate) fn column(column: &str, kind: ColumnKind) -> Self {
        Self { name: column.to_owned(), sql: name(column), kind, plain: true }
    }
}

/// One key to sort by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    /// A column of the relation.
    pub(crate) sql: String,
    pub(crate) descending: bool,
    /// Where rows without a value stand: at the end, unless the order was turned.
    pub(crate) nulls_first: bool,
}

/// A relation with filters, columns and an order that are not applied yet.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub(crate) from: String,
    /// The columns of the relation, hidden ones included; all of them can be asked for as `*`.
    base: Vec<String>,
    pub(crate) filters: Vec<String>,
    pub(crate) columns: Vec<Out>,
    pub(crate) order: Vec<Order>,
    /// Which columns say what a row is about, where rows are groups.
    pub(crate) keys: Option<Vec<String>>,
    /// When the rows begin, where that is known.
    pub(crate) begin: Option<Timestamp>,
    /// When they end.
    pub(crate) end: Option<Timestamp>,
}

impl Rows {
    pub(crate) fn new(from: String, columns: Vec<Out>) -> Self {
        let base = columns.iter().map(|column| column.name.clone()).collect();
        Self { from, base, filters: Vec::new(), columns, order: Vec::new(), keys: None, begin: None, end: None }
    }

    pub(crate) fn find(&self, column: &str) -> Option<&Out> {
        self.columns.iter().find(|out| out.name == column)
    }

    /// How many seconds the rows are from, where that is known.
    pub(crate) fn seconds(&self) -> Option<f64> {
        self.begin.zip(self.end).map(|(begin, end)| end.since(begin).as_secs_f64())
    }

    /// Adds a column, or puts it in the place of one of that name.
    pub(crate) fn set(&mut self, out: Out) {
        match self.columns.iter_mut().find(|other| other.name == out.name) {
            Some(other) => *other = out,
            None => self.columns.push(out),
        }
    }

    /// Says that the relation has columns that nobody may see, so that it is never asked for all.
    pub(crate) fn hide(&mut self) {
        self.base.push(HIDDEN.to_owned());
    }

    pub(crate) fn order_by(&mut self, columns: impl IntoIterator<Item = (String, bool)>) {
        self.order =
            columns.into_iter().map(|(sql, descending)| Order { sql, descending, nulls_first: false }).collect();
    }

    /// The opposite order.
    pub(crate) fn turn(&mut self) {
        for key in &mut self.order {
            (key.descending, key.nulls_first) = (!key.descending, !key.nulls_first);
        }
    }

    /// What stands between `SELECT` and `FROM`.
    pub(crate) fn list(&self) -> String {
        let same = |out: &Out, base: &String| out.plain && out.name == *base && out.sql == name(base);
        if self.columns.len() >= self.base.len()
            && self.columns.iter().zip(&self.base).all(|(out, base)| same(out, base))
        {
            let more =
                self.columns[self.base.len()..].iter().map(|out| format!(", {} AS {}", out.sql, name(&out.name)));
            return format!("*{}", more.collect::<String>());
        }
        let one = |out: &Out| {
            let column = name(&out.name);
            if out.sql == column { column } else { format!("{} AS {column}", out.sql) }
        };
        self.columns.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// What is pending as a stage of single events, if anything is; then it is not pending any more.
    fn one_by_one(&mut self) -> Option<SieveStage> {
        let filters = std::mem::take(&mut self.filters);
        let filter = (!filters.is_empty()).then(|| filters.join(" AND "));
        let column = |out: &Out| OutputColumn { name: out.name.clone(), expr: out.sql.clone() };
        let same = self.list() == "*";
        let columns = if same { Vec::new() } else { self.columns.iter().map(column).collect() };
        for out in &mut self.columns {
            *out = Out::column(&out.name, out.kind);
        }
        self.base = self.columns.iter().map(|out| out.name.clone()).collect();
        (filter.is_some() || !same).then_some(SieveStage { filter, columns })
    }

    pub(crate) fn filtered(&self) -> String {
        match self.filters.is_empty() {
            true => self.from.clone(),
            false => format!("{} WHERE {}", self.from, self.filters.join(" AND ")),
        }
    }

    pub(crate) fn ordered(&self) -> String {
        if self.order.is_empty() {
            return String::new();
        }
        let key = |key: &Order| {
            let direction = if key.descending { "DESC" } else { "ASC" };
            format!("{} {direction} NULLS {}", key.sql, if key.nulls_first { "FIRST" } else { "LAST" })
        };
        format!(" ORDER BY {}", self.order.iter().map(key).collect::<Vec<_>>().join(", "))
    }

    /// The last statement of all, without the stages before it.
    pub(crate) fn last(&self, limit: usize) -> String {
        format!("SELECT {} FROM {}{} LIMIT {limit}", self.list(), self.filtered(), self.ordered())
    }
}

impl Lowering<'_> {
    /// Makes a stage of what is pending, with the first rows only where a limit is given.
    pub(crate) fn settle(&mut self, rows: &mut Rows, limit: Option<u64>) -> Result<(), Diagnostic> {
        self.settle_with(rows, limit, &[])
    }

    /// The same with more columns beside, which later stages may name but nobody sees.
    pub(crate) fn settle_with(
        &mut self,
        rows: &mut Rows,
        limit: Option<u64>,
        beside: &[(String, String)],
    ) -> Result<(), Diagnostic> {
        if let Some(stages) = &mut self.one_by_one {
            rows.order.clear();
            stages.extend(rows.one_by_one());
            return Ok(());
        }
        let mut list = rows.list();
        let star = list.starts_with('*');
        let mut hidden = Vec::new();
        let mut order = Vec::with_capacity(rows.order.len());
        for (i, key) in rows.order.iter().enumerate() {
            let seen = rows.columns.iter().find(|out| out.plain && out.sql == key.sql).map(|out| name(&out.name));
            let sql = seen.or_else(|| star.then(|| key.sql.clone())).unwrap_or_else(|| {
                let column = format!("_order_{}", i + 1);
                list.push_str(&format!(", {} AS {}", key.sql, name(&column)));
                hidden.push(column.clone());
                name(&column)
            });
            order.push(Order { sql, ..key.clone() });
        }
        for (column, sql) in beside {
            list.push_str(&format!(", {sql} AS {}", name(column)));
            hidden.push(column.clone());
        }
        let limited = limit.map_or(String::new(), |limit| format!("{} LIMIT {limit}", rows.ordered()));
        rows.from = self.stage(&format!("SELECT {list} FROM {}{limited}", rows.filtered()))?;
        rows.order = order;
        rows.filters.clear();
        for out in &mut rows.columns {
            *out = Out::column(&out.name, out.kind);
        }
        rows.base = rows.columns.iter().map(|out| out.name.clone()).chain(hidden).collect();
        Ok(())
    }
}
