//! What people and their programs write: lines, queries, settings.

use ingest::{
    BatchBuilder, COLUMNS_MAX, Joiner, Partials, RawEvent, Record, Source, Window, lines, parse, raw,
    template::Dictionary,
};
use settings::{Common, Layers, Settings};
use types::{SegmentId, Timestamp};

const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };
/// The largest event here; small, so that events which are too large are met.
const EVENT_BYTES_MAX: usize = 4 << 10;

/// A body of lines, then the same bytes as one event: each event is a row. Then the bytes as the lines of a container.
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
                let text = raw::escape(line);
                assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|line| line.is_object()));
                take(line);
            }
            Err(refused) => assert!(refused.line == number && !refused.reason.is_empty()),
        }
    }
    take(data);
    let batch = batch.finish();
    assert_eq!(i64::try_from(batch.num_rows()), Ok(taken));
    assert!(batch.num_columns() <= COLUMNS_MAX);
    container(data);
}

/// Pieces to lines, lines to events, events to records, messages to patterns: no byte is lost on the way.
fn container(data: &[u8]) {
    let received = Timestamp::from_nanos(1_795_341_600_000_000_000);
    assert_eq!(raw::unescape(&raw::escape(data)).as_ref(), data);
    let (mut partials, mut joiner, mut events) = (Partials::default(), Joiner::default(), Vec::new());
    for piece in data.split(|byte| *byte == b'\n') {
        let mut lines = Vec::new();
        partials.push(piece, received, &mut lines);
        lines.iter().for_each(|line| joiner.push(line, received, &mut events));
    }
    let mut lines = Vec::new();
    partials.finish(&mut lines);
    lines.iter().for_each(|line| joiner.push(line, received, &mut events));
    joiner.finish(&mut events);
    assert!(events.iter().map(Vec::len).sum::<usize>() <= data.len() * 2, "joining repeats nothing");
    let (mut source, mut dictionary) = (Source::new(Window::SANE), Dictionary::default());
    for event in &events {
        let Record { message, .. } = source.parse(RawEvent { payload: event, received });
        let mined = dictionary.learn(&message);
        let (pattern, variables) = (mined.pattern, mined.variables().collect::<Vec<_>>());
        let pattern = dictionary.pattern(pattern).expect("a pattern just learnt is known");
        assert_eq!(pattern.rebuild(variables).as_deref(), Some(message.as_ref()));
    }
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
