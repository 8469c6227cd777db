//! Whatever is awaited here can be awaited in a task of a runtime with many threads: the compiler says so or this does not compile.

use std::time::Duration;

use bus::BusOptions;
use serde::{Deserialize, Serialize};
use types::{
    GroupName, IndexName, Offset, RoutingKey, ScopeName, StreamCut, Timestamp, Token, TransactionId, WriterId,
};
use wire::{
    coordinator::{GroupConfig, SegmentRange},
    segment_store::Append,
};

use crate::{
    Apply, BatchReader, BatchReceipt, BindingCredentials, Client, EventPointer, EventWriter, GroupOptions, GroupReader,
    ReaderGroup, ReaderPosition, Receipt, RowChange, SegmentRangeBounds, SegmentReader, StateSynchronizer,
    StreamReader, Table, Transaction, Version, Writer, WriterOptions,
};

fn send<T: Send>(_: &T) {}

fn sync<T: Send + Sync>() {}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct State;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Change;

impl Apply<Change> for State {
    fn apply(&mut self, _: &Change) {}
}

/// Names of things, as many calls take them.
struct Names {
    index: IndexName,
    writer: WriterId,
    group: GroupName,
    scope: ScopeName,
    token: Token,
    key: RoutingKey,
    cut: StreamCut,
    segment: SegmentRange,
}

#[allow(dead_code, reason = "that it compiles is the test")]
fn of_the_client(client: &Client, names: &Names, append: Append, config: &GroupConfig, pointer: &EventPointer) {
    let Names { index, writer, group, scope, token, cut, segment, .. } = names;
    let second = Duration::from_secs(1);
    send(&client.stream(index));
    send(&client.append_once(segment.container, &append, second));
    send(&client.append(segment.container, append.clone(), second));
    send(&client.append_if(*segment, Offset::MIN, &[]));
    send(&client.describe(*segment));
    send(&client.event_writer(index.clone(), WriterOptions::new(writer.clone())));
    send(&client.begin_transaction(index.clone(), second));
    send(&client.transaction_phase(index.clone(), TransactionId(1)));
    send(&client.heads(index));
    send(&client.tails(index));
    send(&client.graph(index));
    send(&client.stream_reader(index, None, None));
    send(&client.segment_ranges(index, None, None));
    send(&client.next_cut(index, cut, 1));
    send(&client.fetch_event(pointer));
    send(&client.locate(index, segment.segment));
    send(&client.check_cut(index, cut));
    send(&client.advance(index, cut));
    send(&client.note_time(index, writer, Timestamp::default()));
    send(&client.forget_writer(index, writer));
    send(&client.time_window(index, cut));
    send(&client.create_group(config));
    send(&client.reader_group(group));
    send(&client.delete_group(group));
    send(&client.table(scope, token));
    send(&client.delete_table(scope, token));
    send(&client.synchronizer::<State, Change>(scope, token, State));
    send(&client.delete_synchronizer(scope, token));
}

#[allow(dead_code, reason = "that it compiles is the test")]
fn of_writers(writer: EventWriter, numbered: &Writer, names: &Names, receipts: (Receipt, BatchReceipt)) {
    let Names { key, segment, .. } = names;
    send(&writer.write(Some(key), "x".into()));
    let texts = ["x".to_owned()];
    send(&writer.write_batch(texts.iter().map(|text| (Some(key), text.as_bytes()))));
    send(&writer.flush());
    send(&writer.close());
    send(&receipts.0.into_future());
    send(&receipts.1.into_future());
    send(&numbered.route(None));
    send(&numbered.resume(*segment));
    send(&numbered.append(*segment, 1, &[]));
}

#[allow(dead_code, reason = "that it compiles is the test")]
fn of_transactions(transaction: Transaction, other: Transaction) {
    send(&transaction.write(None, "x".into()));
    send(&transaction.write_batch([(None, "x")]));
    send(&transaction.flush());
    send(&transaction.ping());
    send(&transaction.status());
    send(&transaction.commit());
    send(&other.abort());
}

#[allow(dead_code, reason = "that it compiles is the test")]
fn of_readers(segment: &mut SegmentReader, stream: &mut StreamReader, batch: &mut BatchReader) {
    send(&segment.next(Duration::ZERO));
    send(&stream.next(Duration::ZERO));
    send(&stream.skip_to_head());
    send(&batch.next());
}

#[allow(dead_code, reason = "that it compiles is the test")]
fn of_groups(group: &ReaderGroup, config: &GroupConfig, (mut one, other): (GroupReader, GroupReader), names: &Names) {
    let Names { index, cut, .. } = names;
    let (name, position) = (one.id().clone(), ReaderPosition::new());
    send(&group.reader(name.clone(), GroupOptions::default()));
    send(&group.reader_offline(&name, None));
    send(&group.unread_bytes());
    send(&group.expire_readers(Duration::ZERO));
    send(&group.readers());
    send(&group.initiate_checkpoint("c", Duration::ZERO));
    send(&group.last_checkpoint());
    send(&group.stream_cuts());
    send(&group.generate_stream_cuts(Duration::ZERO));
    send(&group.update_retention_cut(index, cut));
    send(&group.reset(config));
    send(&one.next(Duration::ZERO));
    send(&one.close());
    send(&other.close_at(&position));
}

#[allow(dead_code, reason = "that it compiles is the test")]
fn of_shared_state(table: &Table, shared: &mut StateSynchronizer<State, Change>) {
    send(&table.get(b"k", b"k"));
    send(&table.put(b"k", b"k", "x"));
    send(&table.insert(b"k", b"k", "x"));
    send(&table.replace(b"k", b"k", "x", Version(1)));
    send(&table.remove(b"k", b"k"));
    send(&table.remove_at(b"k", b"k", Version(1)));
    send(&table.get_all(b"k", &[]));
    send(&table.exists(b"k", b"k"));
    send(&table.entries(None, 1));
    send(&table.change(b"k", &[RowChange::put("k", "x")]));
    send(&table.iterate(b"k", b"", None, 1));
    send(&shared.update(|_| Some(vec![Change])));
    send(&shared.fetch());
    send(&shared.compact());
    send(&shared.changed(Duration::ZERO));
}

#[allow(dead_code, reason = "that it compiles is the test")]
fn of_bindings(credentials: &BindingCredentials) {
    send(&Client::connect_with_binding(credentials, BusOptions::default()));
}

/// What a task that is spawned holds, with closures that borrow what they map: a mistake there is told as
/// "implementation of `FnOnce` is not general enough".
#[allow(dead_code, reason = "that it compiles is the test")]
fn in_spawned_tasks(writer: EventWriter, transaction: Transaction, mut reader: GroupReader) {
    let rows: Vec<(RoutingKey, String)> = Vec::new();
    drop(tokio::spawn(async move {
        let rows = &rows;
        let written = writer.write_batch(rows.iter().map(|(key, text)| (Some(key), text.as_bytes()))).await?;
        let numbered = rows.iter().enumerate().filter(|(n, _)| n % 2 == 0);
        transaction.write_batch(numbered.map(|(n, (key, text))| (Some(key), format!("{n} {text}")))).await?.await?;
        written.await
    }));
    drop(tokio::spawn(async move { reader.next(Duration::ZERO).await }));
}

/// A new call is not forgotten above.
#[test]
fn every_public_call_is_looked_at() {
    let here = include_str!("sendable.rs");
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.ends_with("sendable.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for rest in text.split("    pub async fn ").skip(1) {
                let name = rest.split(['(', '<']).next().unwrap();
                let called = [".", "::"].iter().any(|before| {
                    here.contains(&format!("{before}{name}(")) || here.contains(&format!("{before}{name}::<"))
                });
                assert!(called, "{} is not looked at ({})", name, path.display());
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 50, "{looked_at}");
}

#[test]
fn what_is_shared_may_be_looked_at_from_everywhere() {
    sync::<Client>();
    sync::<EventWriter>();
    sync::<Writer>();
    sync::<Transaction>();
    sync::<ReaderGroup>();
    sync::<Table>();
    sync::<Receipt>();
    sync::<BatchReceipt>();
    sync::<SegmentRangeBounds>();
    fn moves<T: Send>() {}
    moves::<GroupReader>();
    moves::<StreamReader>();
    moves::<BatchReader>();
    moves::<StateSynchronizer<State, Change>>();
}
