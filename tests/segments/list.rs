//! Every scenario of Pravega is a test here.

use std::collections::BTreeSet;

#[test]
fn every_scenario_is_a_test() {
    let sources = [
        include_str!("autoscale.rs"),
        include_str!("bytes.rs"),
        include_str!("checkpoints.rs"),
        include_str!("cuts.rs"),
        include_str!("failover.rs"),
        include_str!("groups.rs"),
        include_str!("leaders.rs"),
        include_str!("management.rs"),
        include_str!("rest.rs"),
        include_str!("retention.rs"),
        include_str!("scaling.rs"),
        include_str!("transactions.rs"),
        include_str!("writing.rs"),
    ];
    let mut found = BTreeSet::new();
    for line in sources.iter().flat_map(|source| source.lines()) {
        let number = line.trim().strip_prefix("async fn s").and_then(|rest| rest.split_once('_')).map(|(n, _)| n);
        found.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    assert_eq!(found, (1..=26).collect(), "S1 to S26, each at least once");
}
