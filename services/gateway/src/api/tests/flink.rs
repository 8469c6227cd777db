//! Every answer beside one that a Flink 2.3 gave: the same keys, the same kinds of values.

use types::Timestamp;
use wire::job_manager::{
    Cause, CheckpointFigures, CheckpointHistory, CheckpointOutcome, CheckpointRun, JobException, JobExceptions,
    JobStatus, SubtaskFigures,
};

use super::*;
use crate::flink::{ids, worker};

const TEXT: &str = "INSERT INTO shop SELECT upper(_msg) AS m FROM shop";

/// What `ours` lacks of `flinks`, or has of another kind; more keys are no fault.
fn lacks(flinks: &Value, ours: &Value, at: &str, found: &mut Vec<String>) {
    match (flinks, ours) {
        (Value::Object(flinks), Value::Object(ours)) => {
            for (key, value) in flinks {
                match ours.get(key) {
                    Some(ours) => lacks(value, ours, &format!("{at}.{key}"), found),
                    None => found.push(format!("{at}.{key} is missing")),
                }
            }
        }
        (Value::Array(flinks), Value::Array(ours)) => {
            if let (Some(flinks), Some(ours)) = (flinks.first(), ours.first()) {
                lacks(flinks, ours, &format!("{at}[0]"), found);
            }
        }
        // A percentile of nothing is the text NaN; what there is not yet is null.
        (Value::String(nan), Value::Number(_)) | (Value::Number(_), Value::String(nan)) if nan == "NaN" => {}
        (Value::Null, _) | (_, Value::Null) => {}
        (flinks, ours) if std::mem::discriminant(flinks) != std::mem::discriminant(ours) => {
            found.push(format!("{at} is {ours}, Flink says {flinks}"));
        }
        _ => {}
    }
}

fn run(number: u64, outcome: CheckpointOutcome) -> CheckpointRun {
    let figures = CheckpointFigures { sync_us: 2_000, bytes: 5, ..CheckpointFigures::default() };
    CheckpointRun {
        number,
        savepoint: None,
        began: Timestamp::from_millis(NOW_MS),
        ended: (outcome != CheckpointOutcome::Running).then(|| Timestamp::from_millis(NOW_MS + 250)),
        outcome,
        bytes: 5,
        tasks: vec![SubtaskFigures { task: "0-0".into(), figures }],
    }
}

async fn with_job() -> (World, String) {
    let world = world();
    let body = json!({ "job": "j1", "text": TEXT, "parallelism": 2 });
    let started = ask(&world, request("POST", "/api/v1/jobs", "owner").set_payload(body.to_string())).await;
    assert_eq!(started.status, 201, "{}", started.text());
    let tasks = [("0-0", "w1"), ("0-1", "w2"), ("1-0", "w1"), ("1-1", "w2")];
    world.fake.jobs.lock()[0].tasks = tasks.map(|(task, on)| (task.to_owned(), on.to_owned())).to_vec();
    let (running, lost) = (CheckpointOutcome::Running, CheckpointOutcome::Lost("it took too long".into()));
    let checkpoints = vec![run(9, running), run(8, lost), run(7, CheckpointOutcome::Complete)];
    *world.fake.orders.checkpoints.lock() = CheckpointHistory { checkpoints, completed: 7, lost: 1 };
    let (task, worker) = (Some("0-1".to_owned()), Some("w2".to_owned()));
    let (at, reason) = (Timestamp::from_millis(NOW_MS), "worker w2 is gone".to_owned());
    let exception = JobException { at, attempt: 1, task, worker, cause: Cause::WorkerLost, reason };
    *world.fake.orders.exceptions.lock() = JobExceptions { exceptions: vec![exception] };
    (world, ids::job(&"j1".parse().unwrap()))
}

async fn get(world: &World, path: &str) -> Value {
    let answer = ask(world, request("GET", path, "root")).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

#[actix_web::test]
async fn every_answer_has_the_keys_of_flink() {
    let (world, job) = with_job().await;
    let vertex = ids::vertex("0123456789abcdef");
    let recorded: Value = serde_json::from_str(include_str!("../../flink/recorded.json")).unwrap();
    let mut found = Vec::new();
    let mut compared = 0;
    for (path, flinks) in recorded.as_object().unwrap() {
        // The platform of these tests has no task worker.
        if path == "/taskmanagers/{worker}" {
            continue;
        }
        let path = path.replace("{job}", &job).replace("{vertex}", &vertex);
        for version in ["", "/v1"] {
            lacks(flinks, &get(&world, &format!("{version}{path}")).await, &path, &mut found);
        }
        compared += 1;
    }
    assert!(compared >= 15, "{compared}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn workers_have_the_keys_of_flink() {
    let recorded: Value = serde_json::from_str(include_str!("../../flink/recorded.json")).unwrap();
    let member = wire::views::Member {
        service: wire::Service::TaskWorker,
        replica: "w1".parse().unwrap(),
        started: Timestamp::from_millis(NOW_MS),
        exchange_address: Some("127.0.0.1:7702".into()),
        slots: 4,
        unready: <_>::default(),
    };
    let mut found = Vec::new();
    let shown = worker::detailed(&member, &[]);
    lacks(&recorded["/taskmanagers/{worker}"], &shown, "taskmanager", &mut found);
    lacks(&recorded["/taskmanagers"]["taskmanagers"][0], &worker::shown(&member, &[]), "worker", &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!((shown["dataPort"].clone(), shown["freeSlots"].clone()), (json!(7702), json!(4)));
}

#[actix_web::test]
async fn figures_are_those_of_the_job() {
    let (world, job) = with_job().await;
    let whole = get(&world, &format!("/jobs/{job}")).await;
    assert_eq!((&whole["state"], &whole["name"], &whole["duration"]), (&json!("RUNNING"), &json!("j1"), &json!(0)));
    assert_eq!(whole["vertices"].as_array().unwrap().len(), 2);
    assert_eq!(whole["vertices"][0]["tasks"]["RUNNING"], json!(2));
    assert_eq!(whole["plan"]["nodes"][0]["inputs"][0]["ship_strategy"], json!("HASH"));
    assert_eq!(whole["plan"]["nodes"][0]["inputs"][0]["id"], whole["vertices"][0]["id"]);
    let checkpoints = get(&world, &format!("/jobs/{job}/checkpoints")).await;
    let counts = json!({ "restored": 0, "total": 9, "in_progress": 1, "completed": 7, "failed": 1 });
    assert_eq!(checkpoints["counts"], counts);
    assert_eq!(checkpoints["latest"]["completed"]["end_to_end_duration"], json!(250));
    assert_eq!(checkpoints["latest"]["failed"]["failure_message"], json!("it took too long"));
    assert_eq!(checkpoints["summary"]["state_size"]["p99"], json!(5));
    let details = get(&world, &format!("/jobs/{job}/checkpoints/details/7")).await;
    let source = ids::vertex("0123456789abcdef");
    assert_eq!((&details["tasks"][&source]["state_size"], &details["num_subtasks"]), (&json!(5), &json!(4)));
    let exceptions = get(&world, &format!("/jobs/{job}/exceptions")).await;
    assert_eq!(exceptions["exceptionHistory"]["entries"][0]["failureLabels"]["cause"], json!("worker_lost"));
    let metrics = get(&world, &format!("/jobs/{job}/metrics?get=numberOfCompletedCheckpoints,nothing")).await;
    assert_eq!(metrics, json!([{ "id": "numberOfCompletedCheckpoints", "value": "7" }]));
}

#[actix_web::test]
async fn strangers_see_nothing_and_refusals_have_flinks_form() {
    let (world, job) = with_job().await;
    for (path, token, status) in [
        ("/jobs".to_owned(), "", 401),
        ("/overview".to_owned(), "wrong", 401),
        ("/taskmanagers".to_owned(), "reader", 403),
        (format!("/jobs/{}", "0".repeat(32)), "reader", 404),
        (format!("/jobs/{job}/nothing"), "reader", 404),
        (format!("/jobs/{job}/vertices/{}", "0".repeat(32)), "reader", 404),
        (format!("/jobs/{job}/checkpoints/details/3"), "reader", 404),
    ] {
        let answer = ask(&world, request("GET", &path, token)).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.json()["errors"][0].is_string(), "{path}: {}", answer.text());
    }
    // A job of an index that the token may not read is not there for it.
    world.fake.jobs.lock()[0].source = Some("other".parse().unwrap());
    assert_eq!(ask(&world, request("GET", "/jobs", "reader")).await.json(), json!({ "jobs": [] }));
    assert_eq!(ask(&world, request("GET", &format!("/jobs/{job}"), "reader")).await.status, 404);
}

#[actix_web::test]
async fn a_job_is_stopped_rescaled_and_saved_over_http() {
    let (world, _) = with_job().await;
    let post = async |path: &str, token: &str, body: Value| {
        ask(&world, request("POST", &format!("/api/v1/jobs/j1/{path}"), token).set_payload(body.to_string())).await
    };
    assert_eq!(post("savepoints", "reader", json!({})).await.status, 403);
    let taken = post("savepoints", "owner", json!({ "name": "before" })).await;
    assert_eq!((taken.status, &taken.json()["name"]["name"]), (201, &json!("before")));
    let made_up = post("savepoints", "owner", json!({})).await.json()["name"]["name"].clone();
    assert!(made_up.as_str().unwrap().starts_with("s-"), "{made_up}");
    let listed = get(&world, "/api/v1/jobs/j1/savepoints").await;
    assert_eq!(listed["savepoints"].as_array().unwrap().len(), 2);
    let gone = ask(&world, request("DELETE", "/api/v1/jobs/j1/savepoints/before", "owner")).await;
    assert_eq!(gone.status, 204);
    let wide = post("rescale", "owner", json!({ "parallelism": 4 })).await;
    assert_eq!((wide.status, &wide.json()["parallelism"]), (202, &json!(4)));
    assert_eq!(post("rescale", "owner", json!({})).await.status, 400);
    let stopped = post("stop", "owner", json!({ "savepoint": "last" })).await;
    assert_eq!((stopped.status, &stopped.json()["status"]), (202, &json!("suspended")));
    assert_eq!(get(&world, "/api/v1/jobs/j1/exceptions").await["exceptions"][0]["cause"], json!("worker_lost"));
    assert_eq!(get(&world, "/api/v1/jobs/j1/checkpoints").await["completed"], json!(7));
    assert_eq!(get(&world, "/api/v1/jobs/j1/plan").await["text"], json!("0 source x2\n1 window x2\n"));
    // A rule's job is started and ended by the rule.
    {
        let mut jobs = world.fake.jobs.lock();
        jobs[0].sink = wire::job_manager::Sink::Alerts("r".parse().unwrap());
        jobs[0].status = JobStatus::Running;
    }
    assert_eq!(post("stop", "owner", json!({})).await.kind(), "JobOfRule");
}
