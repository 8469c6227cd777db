//! Views as tables: each is planned for itself and put in where it is named, so that filters and columns reach what it reads.

use std::sync::Arc;

use datafusion::{
    common::TableReference, datasource::ViewTable, error::DataFusionError, prelude::SessionContext,
    sql::parser::Statement,
};
use query::{NamedView, Select, inside_view};

use crate::{EngineError, error::explain_select};

/// Lets a session know the views that a query reads; its tables are known already.
///
/// Errors: what is wrong inside a view is told at the place where the query names it.
pub(crate) async fn register(context: &SessionContext, select: &Select) -> Result<(), DataFusionError> {
    // Before anything is put in: what is read many times is planned as many times.
    select.check_weight().map_err(|found| DataFusionError::External(Box::new(found)))?;
    for view in &select.views {
        let statement = Statement::Statement(Box::new(view.select.statement().clone()));
        let planned = context.state().statement_to_plan(statement).await;
        let plan = planned.map_err(|error| inside(error, view, select))?;
        let table = TableReference::bare(view.name.to_string());
        context.register_table(table, Arc::new(ViewTable::new(plan, None)))?;
    }
    Ok(())
}

fn inside(error: DataFusionError, view: &NamedView, select: &Select) -> DataFusionError {
    match explain_select(&error, usize::MAX, &view.select) {
        EngineError::Query(found) => DataFusionError::External(Box::new(inside_view(&view.name, &found, &select.text))),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use query::parse_select;
    use types::IndexName;

    use super::*;
    use crate::{Limits, Rows, TableSource, run_select};

    fn shop() -> Vec<(IndexName, Arc<dyn TableSource>)> {
        let rows: [(&str, ArrayRef); 2] = [
            ("host", Arc::new(StringArray::from(vec!["a", "b", "a"]))),
            ("ms", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ];
        let owners: [(&str, ArrayRef); 2] =
            [("host", Arc::new(StringArray::from(vec!["a"]))), ("owner", Arc::new(StringArray::from(vec!["ann"])))];
        let table = |columns: [(&str, ArrayRef); 2]| -> Arc<dyn TableSource> {
            Arc::new(Rows::new(vec![RecordBatch::try_from_iter(columns).unwrap()]))
        };
        vec![("shop".parse().unwrap(), table(rows)), ("lookup-1".parse().unwrap(), table(owners))]
    }

    async fn answer(text: &str, views: &[(&str, &str)]) -> Result<Vec<String>, EngineError> {
        let mut select = parse_select(text).unwrap();
        // An index has columns of its own, a lookup only those of its table.
        let hosts = ("shop.hosts", "SELECT host, owner FROM \"lookup-1\"");
        for (name, text) in [hosts].iter().chain(views) {
            let name = name.parse::<query::ItemRef>().unwrap().table().unwrap();
            select.views.push(NamedView { name, select: parse_select(text).unwrap() });
        }
        let result = run_select(&select, shop(), Limits::default()).await?;
        Ok(result.to_json_rows()?.iter().map(|row| row.get().to_owned()).collect())
    }

    #[tokio::test]
    async fn views_and_lookups_are_tables_also_inside_views() {
        let slow = ("shop.slow", "WITH x AS (SELECT * FROM shop WHERE ms > 1) SELECT * FROM x");
        let owned = ("shop.owned", "SELECT s.ms, h.owner FROM shop.slow AS s LEFT JOIN shop.hosts AS h USING (host)");
        let rows = answer("SELECT slow.host, count(*) AS n FROM shop.slow GROUP BY host ORDER BY host", &[slow]).await;
        assert_eq!(rows.unwrap(), [r#"{"host":"a","n":1}"#, r#"{"host":"b","n":1}"#]);
        let text = "WITH x AS (SELECT 1 AS one) SELECT ms, owner, one FROM shop.owned, x ORDER BY ms";
        let rows = answer(text, &[slow, owned]).await.unwrap();
        assert_eq!(rows, [r#"{"ms":2,"owner":null,"one":1}"#, r#"{"ms":3,"owner":"ann","one":1}"#]);
        assert_eq!(answer("SELECT * FROM shop.hosts", &[]).await.unwrap(), [r#"{"host":"a","owner":"ann"}"#]);
        let both = "SELECT count(*) AS n FROM shop.slow AS a JOIN shop.slow AS b ON a.host = b.host";
        assert_eq!(answer(both, &[slow]).await.unwrap(), [r#"{"n":2}"#]);
    }

    #[tokio::test]
    async fn views_do_not_multiply() {
        let names = |view: &str, count| {
            let names: Vec<String> = (0..count).map(|n| format!("{view} AS s{n}")).collect();
            format!("SELECT 1 AS one FROM {}", names.join(", "))
        };
        let texts: Vec<(String, String)> = (0..7)
            .map(|n| {
                (format!("shop.v{n}"), names(&if n == 0 { "shop".to_owned() } else { format!("shop.v{}", n - 1) }, 32))
            })
            .collect();
        let views: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        for (text, words) in
            [(names("shop.v6", 1), "reads 34359738368 tables"), (names("shop.v0", 5), "reads 160 tables")]
        {
            let EngineError::Query(found) = answer(&text, &views).await.unwrap_err() else { panic!("{text}") };
            assert!(found.message.contains(words), "{found}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_in_a_view_says_which_and_where() {
        let view = ("shop.bad", "SELECT host,\n  mz FROM shop");
        let EngineError::Query(found) = answer("SELECT *\nFROM shop.bad", &[view]).await.unwrap_err() else { panic!() };
        assert_eq!((found.line, found.column), (2, 6), "{found}");
        assert_eq!(found.message, "in the view shop.bad, line 2, column 3: there is no column mz");
        assert!(found.help.unwrap().ends_with("host, ms, severity"));
    }
}
