//! What people and their programs write: lines, queries, settings.

use ingest::{BatchBuilder, COLUMNS_MAX, RawEvent, lines, parse};
use settings::{Common, Layers, Settings};
use types::{SegmentId, Timestamp};

const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };
/// The largest event here; small, so that events which are too large are met.
const EVENT_BYTES_MAX: usize = 4 << 10;

/// A body of lines, then the same bytes as one event: each event is a row.
pub fn ingest_lines(data: &[u8]) {
    let mut taken = 0;
    let mut batch = BatchBuilder::new(SEGMENT, 7);
    let mut take = |payload: &[u8]| {
        let received = Timestamp::from_nanos(1_795_341_600_000_000_000 - taken);
        taken += i64::from(batch.push(&parse(RawEvent { payload, received }), received));
    };
    for (number, line) in lines::split(data, EVENT_BYTES_MAX) {
        match line {
            Ok(line) => {
                assert!(serde_json::from_slice::<serde_json::Value>(line).is_ok_and(|line| line.is_object()));
                take(line);
            }
            Err(refused) => assert!(refused.line == number && !refused.reason.is_empty()),
        }
    }
    take(data);
    let batch = batch.finish();
    assert_eq!(i64::try_from(batch.num_rows()), Ok(taken));
    assert!(batch.num_columns() <= COLUMNS_MAX);
}

/// A text as every kind of query; what is refused is shown with its place.
pub fn query_parse(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let select = query::parse_select(text);
    let continuous = query::parse_continuous(text);
    let refusals = [
        select.as_ref().err(),
        continuous.as_ref().err(),
        query::parse_condition(text).as_ref().err(),
        query::parse_expression(text).as_ref().err(),
    ]
    .map(|refusal| refusal.cloned());
    for refusal in refusals.into_iter().flatten() {
        let shown = refusal.render(text);
        assert!(shown.starts_with("error: ") && shown.contains('^'), "{shown}");
    }
    if let Ok(select) = select {
        drop(select.statement().to_string());
    }
    if let Ok(continuous) = continuous {
        drop(continuous.row_columns());
    }
    if let Ok(condition) = query::parse_condition(text) {
        let again = query::parse_condition(&condition.to_string()).expect("a shown condition is one");
        assert_eq!(again.to_string(), condition.to_string());
    }
}

/// A file of settings, and the same text on the command line and in the environment.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let (name, value) = text.split_once('=').unwrap_or((&text, ""));
    let env = vec![(format!("LOGBOOM__{name}"), value.to_owned())];
    let file = Layers { files: vec![("fuzz".to_owned(), text.clone())], ..Layers::default() };
    let set = Layers { set: vec![text.clone()], ..Layers::default() };
    for layers in [file, set, Layers { env, ..Layers::default() }] {
        match Settings::load(layers) {
            Ok(settings) => {
                assert!(!settings.print().is_empty());
                if let Err(found) = settings.section::<Common>() {
                    assert!(found.iter().all(|finding| !finding.message.is_empty()));
                }
            }
            Err(found) => assert!(found.iter().all(|finding| !finding.message.is_empty())),
        }
    }
}
