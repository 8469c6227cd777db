//! Drivers over real sockets, and a platform in memory.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    datatypes::Int64Type,
    error::ArrowError,
};
use arrow_flight::{
    IpcMessage,
    sql::{
        CommandGetDbSchemas, CommandGetExportedKeys, CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo,
        SqlInfo, client::FlightSqlServiceClient,
    },
};
use futures::TryStreamExt;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::*;
use crate::{
    answers::Memory,
    auth::Principal,
    config::Config,
    doors::http::testing::export_request,
    fake::{Fake, FakeGrants, PATIENCE, door},
    grpc,
};

type Client = FlightSqlServiceClient<Channel>;

struct World {
    door: Door,
    tasks: TaskTracker,
    channel: Channel,
}

impl World {
    /// With so many events in `shop`.
    async fn new(events: u64) -> Self {
        let mut door = door(&Arc::new(Fake::default()), &Arc::new(FakeGrants::default()));
        let config = Config { otlp_grpc_address: "127.0.0.1:0".to_owned(), ..Config::clone(&door.config) };
        door.config = Arc::new(config);
        // Planning takes more stack than the thread of a test has.
        door.queries = Box::leak(Box::new(sql::runtime().unwrap())).handle().clone();
        let tasks = TaskTracker::new();
        let bound = grpc::open(&door, None, &tasks, Handle::current()).await.unwrap().unwrap();
        let channel = Endpoint::from_shared(format!("http://{bound}")).unwrap().connect().await.unwrap();
        let mut logs = LogsServiceClient::new(channel.clone());
        for event in 0..events {
            let mut request = Request::new(export_request(event + 1, &format!("event {event:03}")));
            request.metadata_mut().insert("authorization", "Bearer writer".parse().unwrap());
            logs.export(request).await.unwrap();
        }
        Self { door, tasks, channel }
    }

    fn client(&self, token: &str) -> Client {
        let mut client = Client::new(self.channel.clone());
        client.set_token(token.to_owned());
        client
    }

    async fn end(self) {
        self.door.stop.cancel();
        drop(self.channel);
        self.tasks.close();
        tokio::time::timeout(PATIENCE, self.tasks.wait()).await.unwrap();
    }
}

async fn fetched(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, String> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let stream = client.do_get(ticket).await.map_err(|error| error.to_string())?;
    stream.try_collect().await.map_err(|error| error.to_string())
}

async fn asked(client: &mut Client, text: &str) -> Result<Vec<RecordBatch>, String> {
    let info = client.execute(text.to_owned(), None).await.map_err(|error| error.to_string())?;
    fetched(client, info).await
}

fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let of = |batch: &RecordBatch| {
        let column = batch.column_by_name(column).unwrap();
        column.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

#[actix_web::test]
async fn statements_are_answered() {
    let world = World::new(3).await;
    let mut client = Client::new(world.channel.clone());
    client.handshake("anybody", "reader").await.unwrap();
    assert_eq!(client.token().map(String::as_str), Some("reader"));
    let rows = asked(&mut client, "SELECT _msg FROM shop ORDER BY _msg DESC LIMIT 2").await.unwrap();
    assert_eq!(texts(&rows, "_msg"), ["event 002", "event 001"]);
    let counted = asked(&mut client, "SELECT count(*) AS n FROM shop WHERE _msg LIKE '%1'").await.unwrap();
    assert_eq!(counted[0].column(0).as_primitive::<Int64Type>().values(), &[1]);
    let told = asked(&mut client, "EXPLAIN SELECT _msg FROM shop").await.unwrap();
    assert!(texts(&told, "what").contains(&"rows found".to_owned()));
    let none = asked(&mut client, "SELECT _msg FROM shop WHERE _msg = 'nothing'").await.unwrap();
    assert_eq!(none.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    world.end().await;
}

#[actix_web::test]
async fn prepared_statements_know_their_columns_and_have_no_parameters() {
    let world = World::new(2).await;
    let mut client = world.client("reader");
    let text = "SELECT _msg, count(*) AS n FROM shop GROUP BY _msg ORDER BY _msg";
    let mut statement = client.prepare(text.to_owned(), None).await.unwrap();
    let columns = Arc::new(statement.dataset_schema().unwrap().clone());
    assert_eq!(columns.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["_msg", "n"]);
    assert!(statement.parameter_schema().unwrap().fields().is_empty());
    for _ in 0..2 {
        let info = statement.execute().await.unwrap();
        let rows = fetched(&mut client, info).await.unwrap();
        assert_eq!(texts(&rows, "_msg"), ["event 000", "event 001"]);
        assert_eq!(rows[0].schema(), columns, "as it was said");
    }
    let value = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    statement.set_parameters(value).unwrap();
    let refused = statement.execute().await.unwrap_err().to_string();
    assert!(refused.contains("no parameters"), "{refused}");
    statement.close().await.unwrap();
    let refused = client.prepare("SELECT _msg FROM shop WHERE _msg = ?".to_owned(), None).await.err().unwrap();
    assert!(refused.to_string().contains("is a parameter"), "{refused}");
    let explained = client.prepare("EXPLAIN SELECT _msg FROM shop".to_owned(), None).await.unwrap();
    assert_eq!(explained.dataset_schema().unwrap().field(0).name(), "what");
    world.end().await;
}

#[actix_web::test]
async fn who_may_not_is_told_why() {
    let world = World::new(1).await;
    for (token, text, says) in [
        ("nobody", "SELECT 1", "is not known"),
        ("writer", "SELECT _msg FROM shop", "RoleTooWeak"),
        ("reader", "SELECT _msg FROM other", "ForeignIndex"),
        ("reader", "SELEC _msg FROM shop", "did you mean SELECT?"),
        ("reader", "DELETE FROM shop", "only reads"),
        ("reader", "SELECT naem FROM shop", "naem"),
        ("root", "SELECT _msg FROM missing", "UnknownIndex"),
    ] {
        let refused = asked(&mut world.client(token), text).await.unwrap_err();
        assert!(refused.contains(says), "{text}: {refused}");
    }
    let mut client = world.client("reader");
    let refused = client.execute_update("DELETE FROM shop".to_owned(), None).await.unwrap_err();
    assert!(refused.to_string().contains("only reads"), "{refused}");
    assert!(client.begin_transaction().await.is_err());
    // A handle says nothing about who may use it.
    let info = world.client("root").execute("SELECT _msg FROM other".to_owned(), None).await.unwrap();
    assert!(fetched(&mut client, info).await.unwrap_err().contains("ForeignIndex"));
    let mut stranger = Client::new(world.channel.clone());
    assert!(stranger.handshake("anybody", "nobody").await.is_err());
    assert!(stranger.get_catalogs().await.is_err(), "what there is, is not told to everybody");
    world.end().await;
}

#[actix_web::test]
async fn results_are_bounded_and_say_so() {
    let world = World::new(60).await;
    let mut client = world.client("reader");
    let info = client.execute("SELECT _msg FROM shop".to_owned(), None).await.unwrap();
    let mut request = Request::new(info.endpoint[0].ticket.clone().unwrap());
    request.metadata_mut().insert("authorization", "Bearer reader".parse().unwrap());
    let answer = client.inner_mut().do_get(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-truncated").unwrap(), "true");
    drop(answer);
    let rows = fetched(&mut client, info.clone()).await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 50, "query_rows_max");
    world.end().await;
}

#[actix_web::test]
async fn results_that_are_sent_are_bounded() {
    let world = World::new(3).await;
    let request = |token: &str| {
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    const TEXT: &str = "SELECT _msg FROM shop";
    // Two places, and then memory for two results however small they are: in both cases one of each index.
    for results in [Results::new(2, Memory::new(u64::MAX)), Results::new(64, Memory::new(2))] {
        let flight = Flight { door: world.door.clone(), results };
        let first = flight.rows(request("reader"), TEXT).await.unwrap();
        let full = flight.rows(request("reader"), TEXT).await.err().unwrap();
        assert!(full.code() == Code::ResourceExhausted && full.message().contains("TooManyResults"), "{full}");
        let other = flight.rows(request("root"), TEXT).await.unwrap();
        let full = flight.list(request("root"), std::future::ready(catalog::table_types())).await.err().unwrap();
        assert!(full.message().contains("TooManyResults"), "{full}");
        drop((first, other));
        testkit::eventually(PATIENCE, async || flight.rows(request("reader"), TEXT).await.is_ok()).await;
    }
    world.end().await;
}

#[actix_web::test]
async fn tables_are_the_indexes_that_may_be_read() {
    let world = World::new(1).await;
    let tables = |pattern: Option<&str>, include_schema| CommandGetTables {
        table_name_filter_pattern: pattern.map(str::to_owned),
        include_schema,
        ..CommandGetTables::default()
    };
    for (token, pattern, found) in [
        ("root", None, &["other", "shop"][..]),
        ("root", Some("sh%"), &["shop"]),
        ("reader", None, &["shop"]),
        ("writer", None, &[]),
    ] {
        let mut client = world.client(token);
        let info = client.get_tables(tables(pattern, false)).await.unwrap();
        let columns = info.clone().try_decode_schema().unwrap();
        let rows = fetched(&mut client, info).await.unwrap();
        assert_eq!(texts(&rows, "table_name"), found, "{token}");
        assert!(rows.iter().all(|rows| *rows.schema() == columns), "as it was said");
    }
    let mut client = world.client("reader");
    let info = client.get_tables(tables(Some("shop"), true)).await.unwrap();
    let rows = fetched(&mut client, info).await.unwrap();
    let written = rows[0].column_by_name("table_schema").unwrap().as_binary::<i32>().value(0).to_vec();
    let columns: Result<Schema, ArrowError> = IpcMessage(written.into()).try_into();
    assert!(columns.unwrap().field_with_name("_msg").is_ok());
    world.end().await;
}

#[actix_web::test]
async fn indexes_that_lie_elsewhere_are_no_tables() {
    let fake = Arc::new(Fake::default());
    fake.elsewhere.lock().push("archive");
    let door = door(&fake, &Arc::new(FakeGrants::default()));
    let all = catalog::tables(&door, &Principal::Admin, CommandGetTables::default()).await.unwrap();
    assert_eq!(texts(&[all], "table_name"), ["other", "shop"]);
}

#[actix_web::test]
async fn drivers_learn_what_there_is() {
    let world = World::new(0).await;
    let mut client = world.client("reader");
    let catalogs = client.get_catalogs().await.unwrap();
    let schemas = client.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    let types = client.get_table_types().await.unwrap();
    let facts =
        client.get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerReadOnly]).await.unwrap();
    let all_facts = client.get_sql_info(Vec::new()).await.unwrap();
    let kinds = client.get_xdbc_type_info(CommandGetXdbcTypeInfo::default()).await.unwrap();
    let table = || "shop".to_owned();
    let keys = client.get_primary_keys(CommandGetPrimaryKeys { table: table(), ..Default::default() }).await.unwrap();
    let exported = CommandGetExportedKeys { table: table(), ..Default::default() };
    let exported = client.get_exported_keys(exported).await.unwrap();
    let cases =
        [(catalogs, 0), (schemas, 1), (types, 1), (facts, 2), (all_facts, 14), (kinds, 5), (keys, 0), (exported, 0)];
    for (place, (info, count)) in cases.into_iter().enumerate() {
        let columns = info.clone().try_decode_schema().unwrap();
        let rows = fetched(&mut client, info).await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), count, "{place}");
        assert!(rows.iter().all(|rows| *rows.schema() == columns), "{place}");
    }
    world.end().await;
}
