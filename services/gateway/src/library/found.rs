//! The views and lookups of a query: looked up, put in order, and made ready to be run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use engine::{EngineError, Rows, TableSource};
use query::{
    Column, Definition, Definitions, Diagnostic, NamedView, Select, Surroundings, TableName, about_item, inside_view,
    lower_view,
};
use types::IndexName;
use wire::{
    Problem,
    coordinator::{ItemBody, ItemPlace, Lookup, TextLanguage, View},
};

use super::csv;
use crate::{api::Door, auth::Principal, error::HttpError, sql};

/// Bytes of tables of lookups that are kept in memory; beyond it those that were not used for long are fetched again.
pub(crate) const TABLES_BYTES_MAX: u64 = 64 << 20;

/// Bytes of the tables of all lookups of one query; beyond it BadRequest `LookupsTooLarge`.
const LOOKUPS_BYTES_MAX: usize = 256 << 20;

/// What the tables of a query hold with one more. Errors: BadRequest `LookupsTooLarge`.
fn held(so_far: usize, more: usize) -> Result<usize, Problem> {
    let all = so_far.saturating_add(more);
    if all <= LOOKUPS_BYTES_MAX {
        return Ok(all);
    }
    let message = format!(
        "the lookups of the query take more than {LOOKUPS_BYTES_MAX} bytes of memory: name fewer, or upload smaller tables"
    );
    Err(Problem::bad_request("LookupsTooLarge", message))
}

/// What a table is worth in that cache.
pub(crate) fn table_bytes(table: &RecordBatch) -> u32 {
    u32::try_from(table.get_array_memory_size()).unwrap_or(u32::MAX)
}

/// The tables of a query as they are run.
pub(crate) type Tables = Vec<(IndexName, Arc<dyn TableSource>)>;

/// The refusal of a view in LogQL.
pub(crate) fn no_logql() -> Problem {
    let message = "a view is written in sql or pipe: LogQL asks about a range, which a view does not have";
    Problem::bad_request("InvalidItem", message)
}

/// What a query names of libraries, and everything that this names.
#[derive(Debug, Default)]
pub(crate) struct Found {
    text: String,
    definitions: Definitions,
    /// Each behind what it reads.
    order: Vec<TableName>,
    lookups: Vec<(TableName, Lookup)>,
}

/// What a query needs of it to be run.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    views: Vec<NamedView>,
    /// The columns of views and lookups; empty where nobody asked.
    pub(crate) columns: BTreeMap<TableName, Vec<Column>>,
}

impl Ready {
    /// Lets a statement know its views and lookups.
    pub(crate) fn attach(&self, select: &mut Select) {
        select.views.clone_from(&self.views);
    }
}

/// Makes sure that a view may be put into its library: that all it names is there, and that it does not read itself.
pub(crate) async fn check(
    door: &Door,
    principal: &Principal,
    (name, definition): (TableName, Definition),
    text: &str,
) -> Result<(), HttpError> {
    let roots = definition.items();
    let mut found = Found { text: text.to_owned(), ..Found::default() };
    found.definitions.give(name.clone(), definition);
    found.gather(door, principal, &roots).await?;
    found.definitions.in_order(std::slice::from_ref(&name)).map(drop).map_err(|wrong| found.circle(&roots, &wrong))
}

impl Found {
    /// Looks up what a query names, for somebody who must be allowed to read the libraries that it is in.
    pub(crate) async fn of(
        door: &Door,
        principal: &Principal,
        roots: &[TableName],
        text: &str,
    ) -> Result<Self, HttpError> {
        let mut found = Self { text: text.to_owned(), ..Self::default() };
        found.gather(door, principal, roots).await?;
        found.order = found.definitions.in_order(roots).map_err(|wrong| found.circle(roots, &wrong))?;
        Ok(found)
    }

    /// A complaint about how views hang together, where the text names the first of them.
    fn circle(&self, roots: &[TableName], wrong: &Diagnostic) -> HttpError {
        let placed = roots.first().map(|root| about_item(root, &wrong.message, &self.text));
        let placed = placed.map(|placed| Diagnostic { help: wrong.help.clone(), ..placed });
        HttpError::query("InvalidQuery", placed.as_ref().unwrap_or(wrong), &self.text)
    }

    async fn gather(&mut self, door: &Door, principal: &Principal, roots: &[TableName]) -> Result<(), HttpError> {
        // Ends with the bound on how many there may be.
        while let Some(name) = self.definitions.missing(roots).map_err(|wrong| self.circle(roots, &wrong))? {
            principal.may_read(&name.index)?;
            let definition = self.look_up(door, &name).await?;
            self.definitions.give(name, definition);
        }
        Ok(())
    }

    async fn look_up(&mut self, door: &Door, name: &TableName) -> Result<Definition, HttpError> {
        let place = ItemPlace { index: name.index.clone(), name: name.item.clone() };
        let wrong = |found: Diagnostic| HttpError::query("InvalidQuery", &found, &self.text);
        let item = match door.platform.item(&place).await {
            Ok(item) => item,
            Err(problem) if problem.kind == "UnknownItem" => {
                let found = about_item(name, format!("there is no view or lookup {name}"), &self.text);
                return Err(wrong(found));
            }
            Err(problem) => return Err(problem.into()),
        };
        match item.body {
            ItemBody::View(View { text, language, .. }) => {
                let read = match language {
                    TextLanguage::Sql => Definition::sql(&text),
                    TextLanguage::Pipe => Definition::pipe(&text, &name.index),
                    TextLanguage::Logql => return Err(no_logql().into()),
                };
                read.map_err(|found| wrong(inside_view(name, &found, &self.text)))
            }
            ItemBody::Lookup(lookup) => {
                self.lookups.push((name.clone(), lookup));
                Ok(Definition::Lookup)
            }
            ItemBody::Saved(_) => {
                let message = format!("{name} is a saved search: it is run by its name, and is no table");
                Err(wrong(about_item(name, message, &self.text)))
            }
        }
    }

    /// Whether the query names no view and no lookup.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The indexes that are read besides those that the query names itself.
    pub(crate) fn indexes(&self) -> Vec<IndexName> {
        self.definitions.indexes()
    }

    /// Fetches the tables of lookups, adds them to those of the query, and makes statements of the views.
    ///
    /// Columns are found out where they are `wanted`, or where a view must know them.
    /// Bounds: 256 MiB of tables, then BadRequest `LookupsTooLarge`.
    pub(crate) async fn ready(
        &self,
        door: &Door,
        tables: &mut Tables,
        wanted: bool,
        left: Duration,
    ) -> Result<Ready, EngineError> {
        let mut ready = Ready::default();
        if self.order.is_empty() {
            return Ok(ready);
        }
        let mut taken: Vec<IndexName> = tables.iter().map(|(index, _)| index.clone()).collect();
        let mut bytes = 0;
        for (name, lookup) in &self.lookups {
            let table = fetch(door, lookup).await?;
            bytes = held(bytes, table.get_array_memory_size())?;
            let free = csv::free_name(&taken).ok_or_else(|| Problem::internal("no name is free for a lookup"))?;
            taken.push(free.clone());
            ready.views.push(NamedView { name: name.clone(), select: of_table(&free, &table)? });
            ready.columns.insert(name.clone(), sql::columns_in(&table.schema()));
            tables.push((free, Arc::new(Rows::new(vec![table]))));
        }
        let pipes = |name: &TableName| matches!(self.definitions.get(name), Some(Definition::Pipe(..)));
        let wanted = wanted || self.order.iter().any(pipes);
        let columns = if wanted { sql::columns_of(tables).await? } else { BTreeMap::new() };
        let around = Surroundings { now: door.clock.now(), columns, rows_max: door.config.query_rows_max };
        for name in &self.order {
            let select = match self.definitions.get(name) {
                Some(Definition::Sql(select)) => Select::clone(select),
                Some(Definition::Pipe(plan, text)) => lower_view(plan, text, &around, &ready.columns)
                    .map_err(|found| EngineError::Query(inside_view(name, &found, &self.text)))?,
                Some(Definition::Lookup) | None => continue,
            };
            // What it reads stands before it.
            if wanted {
                let mut asked = select.clone();
                ready.attach(&mut asked);
                let known = self.columns(door, name, asked, tables.clone(), left).await?;
                ready.columns.insert(name.clone(), known);
            }
            ready.views.push(NamedView { name: name.clone(), select });
        }
        Ok(ready)
    }

    async fn columns(
        &self,
        door: &Door,
        name: &TableName,
        select: Select,
        tables: Tables,
        left: Duration,
    ) -> Result<Vec<Column>, EngineError> {
        let result = sql::run(&door.without_stream(), select.without_rows(), tables, left).await;
        match result {
            Ok(result) => Ok(sql::columns_in(&result.schema)),
            Err(EngineError::Query(found)) => Err(EngineError::Query(inside_view(name, &found, &self.text))),
            Err(other) => Err(other),
        }
    }
}

/// A lookup as a view of its table: a table has the columns that every event has besides its own.
fn of_table(table: &IndexName, rows: &RecordBatch) -> Result<Select, EngineError> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns: Vec<String> = rows.schema().fields().iter().map(|field| quoted(field.name())).collect();
    let text = format!("SELECT {} FROM {}", columns.join(", "), quoted(table.as_str()));
    query::parse_select(&text).map_err(EngineError::Query)
}

/// The table of a lookup. Errors: Unavailable `LookupUnreadable`.
async fn fetch(door: &Door, lookup: &Lookup) -> Result<RecordBatch, Problem> {
    if let Some(known) = door.tables.get(&lookup.digest) {
        return Ok(known);
    }
    let unreadable = |why: &dyn std::fmt::Display| {
        let message = format!("the table of a lookup cannot be fetched from object storage: {why}");
        Problem::unavailable("LookupUnreadable", message)
    };
    let bytes = door.platform.object(&lookup.place.key()).await.map_err(|problem| unreadable(&problem))?;
    // Many MiB of columns: longer than a connection's thread may be held up.
    let decoded = tokio::task::spawn_blocking(move || engine::from_parquet(bytes)).await;
    let table = decoded.map_err(|error| unreadable(&error))?.map_err(|error| unreadable(&error))?;
    door.tables.insert(lookup.digest.clone(), table.clone());
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_a_query_have_a_bound_together() {
        let half = LOOKUPS_BYTES_MAX / 2;
        assert_eq!(held(0, half).and_then(|bytes| held(bytes, half)), Ok(LOOKUPS_BYTES_MAX));
        for (so_far, more) in [(half, half + 1), (LOOKUPS_BYTES_MAX, 1), (1, usize::MAX)] {
            assert_eq!(held(so_far, more).unwrap_err().kind, "LookupsTooLarge");
        }
    }
}
