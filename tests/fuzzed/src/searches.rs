//! What clients of Elasticsearch ask.

use std::collections::BTreeMap;

use query::{Column, ColumnKind, TEXT_BYTES_MAX, parse_select};
use serde_json::{Value, json};
use types::Timestamp;

use crate::elastic::{buckets::Plan, field::Fields, gather::Gathered, search::Search};

fn fields() -> Fields {
    let columns = [
        ("_time", ColumnKind::Time),
        ("_received", ColumnKind::Time),
        ("_msg", ColumnKind::Text),
        ("severity", ColumnKind::Text),
        ("_segment", ColumnKind::Text),
        ("_offset", ColumnKind::Integer),
        ("a", ColumnKind::Text),
        ("n", ColumnKind::Integer),
        ("x", ColumnKind::Number),
        ("ok", ColumnKind::Boolean),
    ];
    let columns = columns.map(|(name, kind)| Column { name: name.to_owned(), kind }).to_vec();
    Fields::of(&BTreeMap::from([("shop".parse().expect("a name"), columns)]))
}

/// A body of a search, and the same bytes as a query of Lucene's: refused in words, or statements of SQL that only read.
pub fn search_elastic(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut bodies = vec![
        json!({ "query": { "query_string": { "query": text } } }),
        json!({ "query": { "simple_query_string": { "query": text } } }),
        json!({ "query": { "range": { "@timestamp": { "gte": text } } }, "highlight": { "fields": { "*": {} } } }),
    ];
    bodies.extend(serde_json::from_slice::<Value>(data));
    for body in bodies {
        let now = Timestamp::from_nanos(1_795_341_600_000_000_000);
        let search = match Search::read(&body, &[], now) {
            Ok(search) => search,
            Err(refused) => {
                assert!(!refused.reason.is_empty() && !refused.kind.is_empty());
                continue;
            }
        };
        let (fields, plan) = (fields(), Plan::new(&search.query, &search.aggregations, now));
        let mut all = vec![search.hits(&fields), search.total(&fields)];
        all.extend((0..plan.levels.len()).filter_map(|level| plan.statement(level, &fields).ok()));
        all.extend((0..plan.hits.len()).filter_map(|number| plan.hits_statement(number, &fields).ok()));
        for sql in all.iter().filter(|sql| sql.len() <= TEXT_BYTES_MAX) {
            match parse_select(sql) {
                Ok(select) => assert_eq!(select.tables.len(), 1, "{sql}"),
                // Too many operators for a planner, and nothing else.
                Err(found) => {
                    assert!(found.message.contains("more than") || found.message.contains("nest"), "{found}: {sql}")
                }
            }
        }
        let (levels, hits) = (vec![Vec::new(); plan.levels.len()], vec![Vec::new(); plan.hits.len()]);
        drop(Gathered::new(&plan, levels, hits, &|_| Ok(())).answer());
    }
}
