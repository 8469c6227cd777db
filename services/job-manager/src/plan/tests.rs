use flow::Partition;
use wire::job_manager::StartAt;

use super::*;

pub(super) fn job(text: &str) -> NewJob {
    NewJob {
        job: "j".parse().unwrap(),
        text: text.into(),
        sink: None,
        start: StartAt::Earliest,
        parallelism: 2,
        early: None,
        options: wire::job_manager::JobOptions::default(),
    }
}

pub(super) const SUMS: &str = "INSERT INTO sums SELECT service, window_start, count(*) AS n, sum(bytes) AS total \
                    FROM tumble(shop, INTERVAL '10 seconds') WHERE severity = 'error' GROUP BY service, window_start";

#[test]
fn a_window_is_fed_by_its_keys() {
    let plan = plan(&job(SUMS), 2).unwrap();
    assert_eq!(plan.sink, Sink::Index("sums".parse().unwrap()));
    let words: Vec<Vec<&str>> =
        plan.graph.vertices.iter().map(|v| v.operators.iter().map(OperatorSpec::word).collect()).collect();
    assert_eq!(words, [vec!["source", "filter", "project"], vec!["window", "project", "index sink"]]);
    assert_eq!(plan.graph.edges[0].partition, Partition::Hash { columns: vec!["service".into()] });
    assert!(plan.graph.vertices.iter().all(|v| !v.uid.0.is_empty()));
}

#[test]
fn one_group_has_one_owner() {
    let text = "INSERT INTO sums SELECT window_start, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') GROUP BY window_start";
    let plan = plan(&job(text), 4).unwrap();
    assert_eq!(plan.graph.vertices.iter().map(|v| v.parallelism).collect::<Vec<_>>(), [4, 1]);
}

#[test]
fn what_cannot_run_is_refused_in_words() {
    let refused = |text: &str| plan(&job(text), 1).unwrap_err().to_string();
    assert!(refused("SELECT _msg FROM shop").contains("INSERT INTO"));
    assert!(refused("INSERT INTO shop SELECT _msg FROM shop").contains("feed itself"));
    assert!(refused("INSERT INTO a SELEC _msg FROM shop").contains('^'), "a caret shows the place");
}
