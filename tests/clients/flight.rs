//! Unmodified drivers of Flight SQL: the Python example of `docs/guide/flight-sql.md`, run as it stands, and what tools ask the driver.

use std::process::Command;

use logboom_tests::{Answer, Standalone, Workdir, free_port};
use reqwest::Method;
use serde_json::Value;

use super::{guide, tool};

/// What is asked beyond the example: the catalogue, columns before rows, a row too many, and what is refused.
const DRIVER: &str = r#"
import json, os
import adbc_driver_flightsql.dbapi as flight
import adbc_driver_manager
import pyarrow.flight

url, token, index = os.environ["FLIGHT_URL"], os.environ["TOKEN"], os.environ["INDEX"]
said = {}
with flight.connect(url, db_kwargs={"username": "anybody", "password": token}, autocommit=True) as connection:
    objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    said["tables"] = [t["table_name"] for c in objects for s in c["catalog_db_schemas"] for t in s["db_schema_tables"]]
    said["columns"] = connection.adbc_get_table_schema(index).names
    said["types"] = connection.adbc_get_table_types()
    said["vendor"] = connection.adbc_get_info()["vendor_name"]
    with connection.cursor() as cursor:
        said["prepared"] = cursor.adbc_prepare(f"SELECT _msg FROM {index}") is None
        cursor.execute(f"SELECT _msg FROM {index} ORDER BY _msg DESC")
        said["rows"] = cursor.fetchall()
    for text in (f"SELECT nothing FROM {index}", f"DELETE FROM {index}", f"SELECT _msg FROM {index} WHERE _msg = ?"):
        with connection.cursor() as cursor:
            try:
                cursor.execute(text)
                cursor.fetchall()
            except adbc_driver_manager.Error as error:
                said.setdefault("refused", []).append(str(error))
client = pyarrow.flight.FlightClient(url.replace("grpc://", "grpc+tcp://"))
said["bearer"] = client.authenticate_basic_token("anybody", token)[1].decode()
try:
    flight.connect(url, db_kwargs={"username": "anybody", "password": "nobody's"}, autocommit=True).cursor().execute("SELECT 1")
except adbc_driver_manager.Error as error:
    said["stranger"] = str(error)
print(json.dumps(said))
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_of_flight_sql_ask_here() {
    let Some(python) = tokio::task::spawn_blocking(tool::flight_python).await.unwrap() else { return };
    let grpc = format!("127.0.0.1:{}", free_port().unwrap());
    let listens = format!("gateway.otlp_grpc_address={grpc}");
    let up = Standalone::start_with(&[&listens, &format!("broker.grpc_public_address={grpc}")]).await.unwrap();
    let credentials = guide::credentials(&up, "flown").await;
    assert_eq!(credentials["flight_url"], format!("grpc://{grpc}"));
    let key = |name: &str| credentials[name].as_str().unwrap().to_owned();
    let lines = "{\"msg\":\"one\",\"level\":\"info\"}\n{\"msg\":\"two\",\"level\":\"error\"}\n{\"msg\":\"three\",\"level\":\"error\"}\n";
    let ingest = up.api.bare(Method::POST, &key("ingest_url")).bearer_auth(key("token")).body(lines);
    assert_eq!(Answer::of(ingest).await.unwrap().status, 200);
    let token = key("token");
    let ran = tokio::task::spawn_blocking(move || {
        let dir = Workdir::new("flight").unwrap();
        let [example] = guide::blocks_of("flight-sql.md", "python").try_into().expect("the page has one example");
        [example, DRIVER.to_owned()].map(|script| {
            let output = guide::run(Command::new(&python).args(["-c", &script]), &dir, &credentials);
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{out}{err}");
            out.trim().to_owned()
        })
    });
    let [example, said] = ran.await.unwrap();
    assert_eq!(example, "[{'severity': 'error', 'n': 2}, {'severity': 'info', 'n': 1}]");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["tables"], serde_json::json!(["flown"]), "{said}");
    assert!(said["columns"].as_array().unwrap().contains(&"_msg".into()), "{said}");
    assert_eq!((&said["types"], &said["vendor"]), (&serde_json::json!(["TABLE"]), &"Logboom".into()), "{said}");
    assert_eq!(said["rows"], serde_json::json!([["two"], ["three"], ["one"]]), "{said}");
    let refused = said["refused"].as_array().unwrap();
    for (refusal, words) in refused.iter().zip(["nothing", "only reads", "is a parameter"]) {
        assert!(refusal.as_str().unwrap().contains(words), "{refusal}");
    }
    assert_eq!(refused.len(), 3, "{said}");
    assert_eq!(said["bearer"], format!("Bearer {token}"), "{said}");
    assert!(said["stranger"].as_str().unwrap().contains("not known"), "{said}");
}
