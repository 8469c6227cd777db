//! The aggregate `templates`, as a query asks for it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also outside of its test functions")]

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use engine::{Limits, Rows, TableSource, run_select};

/// Logins of people, and a disk that fills twice; in one batch per service.
fn batches() -> Vec<RecordBatch> {
    let names = ["ann", "bob", "cy", "dan", "eve", "fay", "gus"];
    let logins = names.iter().enumerate().map(|(n, name)| Some(format!("user {name} logged in from 10.0.0.{n}")));
    let of = |service: &str, lines: Vec<Option<String>>| {
        let services = vec![Some(service.to_owned()); lines.len()];
        let columns = [("_msg", lines), ("service", services)];
        let columns = columns.map(|(name, texts)| (name, Arc::new(StringArray::from(texts)) as _, true));
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    };
    let full = vec![Some("disk sda is 91 % full".to_owned()), None, Some("disk sda is 97 % full".to_owned())];
    vec![of("auth", logins.collect()), of("node", full)]
}

async fn answer(sql: &str) -> Vec<String> {
    let select = query::parse_select(sql).unwrap_or_else(|found| panic!("{}", found.render(sql)));
    let tables: Vec<(_, Arc<dyn TableSource>)> = vec![("shop".parse().unwrap(), Arc::new(Rows::new(batches())))];
    let result = run_select(&select, tables, Limits::default()).await.unwrap();
    result.to_json_rows().unwrap().iter().map(|row| row.get().to_owned()).collect()
}

#[tokio::test]
async fn the_templates_of_an_index_are_rows() {
    let sql = "SELECT t['lines'] AS lines, t['template'] AS template, t['example'] AS example \
               FROM (SELECT unnest(templates(_msg)) AS t FROM shop) ORDER BY lines DESC";
    let expected = [
        r#"{"lines":7,"template":"user <*> logged in from <*>","example":"user ann logged in from 10.0.0.0"}"#,
        r#"{"lines":2,"template":"disk sda is <*> % full","example":"disk sda is 91 % full"}"#,
    ];
    assert_eq!(answer(sql).await, expected);
}

#[tokio::test]
async fn the_templates_of_each_service_are_rows() {
    let sql = "SELECT service, t['lines'] AS lines, t['template'] AS template \
               FROM (SELECT service, unnest(templates(_msg)) AS t FROM shop GROUP BY service) ORDER BY service";
    let expected = [
        r#"{"service":"auth","lines":7,"template":"user <*> logged in from <*>"}"#,
        r#"{"service":"node","lines":2,"template":"disk sda is <*> % full"}"#,
    ];
    assert_eq!(answer(sql).await, expected);
    assert_eq!(answer("SELECT templates(_msg) AS t FROM shop WHERE service = 'none'").await, [r#"{"t":[]}"#]);
}
