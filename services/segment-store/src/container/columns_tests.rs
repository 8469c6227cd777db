//! Events of any kind as chunks: what is odd in them costs room at worst, and all of it is read back.

use std::collections::BTreeSet;

use arrow::{
    array::{Array, AsArray},
    compute::concat_batches,
    datatypes::{DataType, TimestampNanosecondType},
};
use ingest::{BASE_COLUMNS, COLUMNS_MAX, REST_COLUMN, raw::unescape};
use types::EVENT_BYTES_MAX;
use wire::block::{Block, BlockBuilder};

use super::*;
use crate::container::{state::Piece, tail::Tail};

const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };
const RECEIVED: Timestamp = Timestamp::from_millis(1_767_323_045_000);

/// A block for each event, so that these may be as large as events are.
fn blocks<'a>(payloads: impl IntoIterator<Item = &'a [u8]>) -> Vec<Arc<TailBlock>> {
    let mut tail = Tail::default();
    for (base, payload) in (0..).zip(payloads) {
        let mut builder = BlockBuilder::new();
        assert!(builder.push(RECEIVED, 0, payload));
        let piece = Piece { seq: 1, base, count: 1, ..Piece::default() };
        tail.push(SEGMENT, &piece, Block::open(builder.finish()).unwrap(), Timestamp::MIN);
    }
    tail.blocks(SEGMENT, 0, u64::MAX)
}

fn rows(chunk: &Chunk) -> RecordBatch {
    let read = chunk::read(chunk.bytes.clone()).unwrap();
    concat_batches(read[0].schema_ref(), &read).unwrap()
}

fn stored<'a>(payloads: impl IntoIterator<Item = &'a [u8]>) -> RecordBatch {
    rows(&chunk(SEGMENT, None, &blocks(payloads)).unwrap())
}

#[test]
fn bytes_that_are_not_utf_8_come_back() {
    let payloads = [&b"caf\xe9 \xff\xfe"[..], b"\x80", b"{\"msg\":\"caf\xe9\"}", "\u{f7e9}".as_bytes()];
    let read = stored(payloads);
    let texts = read["_msg"].as_string::<i32>();
    let found: Vec<_> = texts.iter().flatten().map(unescape).collect();
    assert_eq!(found, [payloads[0], payloads[1], &b"caf\xe9"[..], payloads[3]]);
}

#[test]
fn lines_of_a_megabyte_come_back() {
    let plain = vec![b'x'; EVENT_BYTES_MAX];
    let words: Vec<u8> = b"word ".iter().copied().cycle().take(EVENT_BYTES_MAX).collect();
    let json = [&b"{\"msg\":\"m\",\"body\":\""[..], &vec![b'y'; EVENT_BYTES_MAX - 40][..], b"\"}"].concat();
    let read = stored([&plain[..], &b"short"[..], &words[..], &json[..]]);
    let texts = read["_msg"].as_string::<i32>();
    assert_eq!(
        texts.iter().flatten().map(str::as_bytes).collect::<Vec<_>>(),
        [&plain[..], &b"short"[..], &words[..], &b"m"[..]]
    );
    assert_eq!(read["body"].as_string::<i32>().value(3).len(), EVENT_BYTES_MAX - 40);
}

/// Where each of ten thousand keys is, each of which one of the events has five of.
fn keys_of(read: &RecordBatch) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let schema = read.schema();
    for (field, column) in schema.fields().iter().zip(read.columns()).skip(BASE_COLUMNS.len()) {
        if field.name() != REST_COLUMN {
            assert_eq!(column.len() - column.null_count(), 1, "{}", field.name());
            seen.insert(field.name().clone());
        }
    }
    for text in read[REST_COLUMN].as_string::<i32>().iter().flatten() {
        let rest: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        assert!(rest.into_iter().all(|(name, _)| seen.insert(name)), "each is in one place");
    }
    seen
}

#[test]
fn ten_thousand_keys_are_a_bounded_number_of_cells_and_none_is_lost() {
    let payload = |row: usize| {
        let members: Vec<_> = (0..5).map(|n| format!("\"key{}\":{n}", row * 5 + n)).collect();
        format!("{{{},\"msg\":\"m\"}}", members.join(",")).into_bytes()
    };
    let payloads: Vec<_> = (0..2_000).map(payload).collect();
    let blocks = blocks(payloads.iter().map(Vec::as_slice));
    let read = rows(&chunk(SEGMENT, None, &blocks).unwrap());
    assert_eq!((read.num_columns(), keys_of(&read).len()), (COLUMNS_MAX, 10_000));
    // The same where memory is for fewer cells.
    let events: Vec<BlockEvent> = blocks.iter().flat_map(|block| block.events()).collect();
    let few = batches(SEGMENT, 0, &events, 2_000 * 100);
    assert_eq!((few.len(), few[0].num_columns(), keys_of(&few[0]).len()), (1, BASE_COLUMNS.len() + 100 + 1, 10_000));
    let texts: usize = payloads.iter().map(Vec::len).sum();
    let (cells, memory) = (2_000 * few[0].num_columns(), few[0].get_array_memory_size());
    // Builders grow by doubling.
    assert!(memory <= 2 * (9 * cells + 2 * texts), "{memory} bytes for {cells} cells");
}

#[test]
fn a_key_that_changes_type_keeps_its_values_within_a_chunk_and_when_chunks_are_merged() {
    let of = |values: &[&str]| -> Vec<Vec<u8>> {
        values.iter().map(|value| format!("{{\"v\":{value},\"msg\":\"m\"}}").into_bytes()).collect()
    };
    let together = of(&["1", "2.5", "true", "\"x\""]);
    let read = stored(together.iter().map(Vec::as_slice));
    assert_eq!(read["v"].as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1.0", "2.5", "true", "x"]);
    let (whole, text) = (of(&["1", "2"]), of(&["\"x\""]));
    let first = stored(whole.iter().map(Vec::as_slice));
    assert_eq!(first["v"].data_type(), &DataType::Int64);
    let later = batches(SEGMENT, 2, &blocks(text.iter().map(Vec::as_slice))[0].events().collect::<Vec<_>>(), CELLS_MAX);
    let merged = unite(SEGMENT, None, 0, [vec![first], later].concat()).unwrap();
    assert_eq!(rows(&merged)["v"].as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1", "2", "x"]);
}

#[test]
fn times_of_1970_and_2100_are_what_they_state() {
    let payloads = [&b"1970-01-01T00:00:00Z x"[..], b"2100-01-01T00:00:00.000000001Z y", b"no time"];
    let blocks = blocks(payloads);
    let chunk = chunk(SEGMENT, None, &blocks).unwrap();
    let year_2100 = Timestamp::from_nanos(4_102_444_800_000_000_001);
    assert_eq!((chunk.time_min, chunk.time_max), (Timestamp::from_nanos(0), year_2100));
    let read = rows(&chunk);
    let times = read["_time"].as_primitive::<TimestampNanosecondType>();
    assert_eq!(times.values()[..], [0, year_2100.nanos(), RECEIVED.nanos()]);
    assert_eq!(chunk::info(&chunk.bytes).unwrap().counters.total(), 3);
}
