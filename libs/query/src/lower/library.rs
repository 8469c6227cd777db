//! Views and lookups: plans over them, plans that are one, and the step that adds a lookup's fields.

use std::collections::BTreeMap;

use super::{Column, ColumnKind, Lowering, Out, Rows, Surroundings, name, table::keep_order, term::Typed};
use crate::{Diagnostic, ItemRef, Select, TableName, plan::Plan};

/// [`lower`](super::lower) of a plan that reads views and lookups; `tables` are their columns.
///
/// Errors: also a view or a lookup that is not among them.
pub fn lower_over(
    plan: &Plan,
    text: &str,
    around: &Surroundings,
    tables: &BTreeMap<TableName, Vec<Column>>,
) -> Result<Select, Diagnostic> {
    let mut lowering = Lowering::new(text, around, false);
    lowering.tables.clone_from(tables);
    let rows = lowering.rows_of(plan)?;
    let last = rows.last(around.rows_max.saturating_add(1));
    lowering.select(&last)
}

/// A statement with every row of the plan, in no order, to be read as a table.
pub fn lower_view(
    plan: &Plan,
    text: &str,
    around: &Surroundings,
    tables: &BTreeMap<TableName, Vec<Column>>,
) -> Result<Select, Diagnostic> {
    let mut lowering = Lowering::new(text, around, false);
    lowering.tables.clone_from(tables);
    let rows = lowering.rows_of(plan)?;
    let last = format!("SELECT {} FROM {}", rows.list(), rows.filtered());
    lowering.select(&last)
}

impl Lowering<'_> {
    /// All rows of a view or a lookup.
    pub(super) fn table(&self, item: &ItemRef) -> Result<Rows, Diagnostic> {
        let Some(table) = item.table() else {
            let found = self.complaint(item.item.as_str(), format!("of which index is {item}?"));
            return Err(found.help(format!("write its index in front, for example shop.{item}")));
        };
        let Some(columns) = self.tables.get(&table) else {
            return Err(self.complaint(table.item.as_str(), format!("there is no view or lookup {table} here")));
        };
        let from = format!("{}.{}", name(table.index.as_str()), name(table.item.as_str()));
        Ok(Rows::new(from, columns.iter().map(|c| Out::column(&c.name, c.kind)).collect()))
    }

    /// Adds fields of the table's rows with equal keys; a row with several partners is there once for each. A field that a row has
    /// already is replaced where a partner has a value.
    pub(super) fn lookup(
        &mut self,
        rows: &mut Rows,
        table: &ItemRef,
        on: &[String],
        fields: &[String],
    ) -> Result<(), Diagnostic> {
        let right = self.table(table)?;
        self.settle(rows, None)?;
        let conditions = self.equal_keys(rows, &right, on)?;
        let added: Vec<&Out> = match fields {
            [] => right.columns.iter().filter(|out| !on.contains(&out.name)).collect(),
            fields => {
                let find = |field: &String| {
                    let names = right.columns.iter().map(|out| out.name.as_str());
                    right.find(field).ok_or_else(|| self.no_field(field, names))
                };
                fields.iter().map(find).collect::<Result<_, _>>()?
            }
        };
        let mut columns = rows.columns.clone();
        let mut list: Vec<String> = Vec::new();
        for out in &mut columns {
            let column = name(&out.name);
            let Some(other) = added.iter().find(|other| other.name == out.name) else {
                list.push(format!("l.{column} AS {column}"));
                continue;
            };
            let (l, r) = (Typed::new(format!("l.{column}"), out.kind), Typed::new(format!("r.{column}"), other.kind));
            let same = out.kind == other.kind;
            let (l, r) = if same { (l.sql, r.sql) } else { (l.text(), r.text()) };
            list.push(format!("coalesce({r}, {l}) AS {column}"));
            out.kind = if same { out.kind } else { ColumnKind::Text };
        }
        for other in added.into_iter().filter(|other| rows.find(&other.name).is_none()) {
            list.push(format!("r.{0} AS {0}", name(&other.name)));
            columns.push(Out::column(&other.name, other.kind));
        }
        let (order, keys) = (keep_order(rows, &mut list), rows.keys.take());
        let list = list.join(", ");
        let conditions = conditions.join(" AND ");
        let from = self
            .stage(&format!("SELECT {list} FROM {} AS l LEFT JOIN {} AS r ON {conditions}", rows.from, right.from))?;
        self.replace(rows, from, columns, order);
        rows.keys = keys;
        rows.hide();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::surroundings, *};
    use crate::parse_pipe;

    fn tables() -> BTreeMap<TableName, Vec<Column>> {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind };
        let table = |name: &str| name.parse::<ItemRef>().unwrap().table().unwrap();
        let users = vec![
            column("user", ColumnKind::Text),
            column("plan", ColumnKind::Text),
            column("dur", ColumnKind::Text),
            column("age", ColumnKind::Integer),
        ];
        let errors = vec![column("_time", ColumnKind::Time), column("user", ColumnKind::Text)];
        [(table("shop.users"), users), (table("shop.errors"), errors)].into()
    }

    fn read(text: &str, view: bool) -> Result<String, Diagnostic> {
        let around = surroundings("odd");
        let mut plan = parse_pipe(text)?;
        plan.default_indexes(&["shop".parse().unwrap()]);
        let lower = if view { lower_view } else { lower_over };
        lower(&plan, text, &around, &tables()).map(|select| select.statement().to_string())
    }

    #[test]
    fn views_are_sources_and_plans_can_be_views() {
        let rows = read("view:errors since:1h | keep user", false).unwrap();
        assert!(rows.contains("SELECT \"user\" FROM \"shop.errors\" AS \"errors\" WHERE \"_time\" >= "), "{rows}");
        assert!(rows.contains("ORDER BY \"_time\" DESC") && rows.contains("LIMIT"), "{rows}");
        let whole = read("index:shop.errors user=a | stats count by user", true).unwrap();
        assert!(
            whole.contains("FROM \"shop.errors\"") && !whole.contains("LIMIT") && !whole.contains("ORDER"),
            "{whole}"
        );
        let both = read("index:shop,shop.errors | keep user", true).unwrap();
        assert!(both.contains("UNION ALL SELECT") && both.contains("FROM \"shop.errors\" AS \"errors\""), "{both}");
    }

    #[test]
    fn a_lookup_adds_fields_and_keeps_rows_and_order() {
        let sql = read("index:shop | keep user, dur | lookup users user -> plan, dur", false).unwrap();
        assert!(sql.contains("l.\"user\" AS \"user\", coalesce(r.\"dur\", CAST(l.\"dur\" AS "), "{sql}");
        assert!(sql.contains("r.\"plan\" AS \"plan\"") && !sql.contains("age"), "{sql}");
        assert!(sql.contains("LEFT JOIN \"shop.users\" AS r ON l.\"user\" = r.\"user\""), "{sql}");
        assert!(sql.contains("ORDER BY \"_order_1\" DESC"), "{sql}");
        assert!(read("index:shop | lookup shop.users user", false).unwrap().contains("r.\"age\" AS \"age\""));
        let after = read("index:shop | stats count by user | lookup users user -> plan | sort plan", false).unwrap();
        assert!(after.contains("r.\"plan\""), "{after}");
    }

    #[test]
    fn what_is_not_there_is_said_at_its_place() {
        for (text, column, words) in [
            ("view:nope", 6, "no view or lookup shop.nope"),
            ("* | lookup nope user", 12, "no view or lookup shop.nope"),
            ("* | lookup users host", 18, "no field host"),
            ("* | lookup users user -> plam", 26, "no field plam"),
            ("* | lookup users", 17, "expected a field"),
            ("* | lookup Users user", 12, "not the name of a lookup"),
            ("view:A", 6, "not the name of a view"),
        ] {
            let found = read(text, false).expect_err(text);
            assert!(found.message.contains(words) && found.column == column, "{}", found.render(text));
        }
        let mut plan = parse_pipe("view:errors").unwrap();
        plan.default_indexes(&[]);
        let found = lower_over(&plan, "view:errors", &surroundings("odd"), &tables()).unwrap_err();
        assert!(found.message.contains("of which index"), "{found}");
    }
}
