//! Which scenario of Pravega stands where.

use std::collections::BTreeMap;

/// Scenarios that are no test of this file, and why.
const NOT_HERE: &[(u32, &str)] = &[
    (
        16,
        "a checkpoint on an internal thread pool: readers here have no thread pool of their own, S15 is the same test",
    ),
    (19, "a byte client: an offset is the number of an event, there are no byte streams; S20 has the largest events"),
    (
        23,
        "the REST API is the coordinator's: its contract is tested on a real nats-server in services/coordinator/tests/rest",
    ),
    (
        25,
        "buckets over several controllers: one leader runs all loops, that there is only one is tested in libs/host/tests/leadership.rs",
    ),
];

#[test]
fn every_scenario_is_a_test_or_has_a_reason() {
    let sources = [
        include_str!("autoscale.rs"),
        include_str!("cuts.rs"),
        include_str!("failover.rs"),
        include_str!("groups.rs"),
        include_str!("management.rs"),
        include_str!("retention.rs"),
        include_str!("scaling.rs"),
        include_str!("transactions.rs"),
        include_str!("writing.rs"),
    ];
    let mut found: BTreeMap<u32, u32> = BTreeMap::new();
    for line in sources.iter().flat_map(|source| source.lines()) {
        let number = line.trim().strip_prefix("async fn s").and_then(|rest| rest.split_once('_')).map(|(n, _)| n);
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            *found.entry(number).or_default() += 1;
        }
    }
    for (number, reason) in NOT_HERE {
        assert!(!found.contains_key(number), "S{number} is a test and has a reason not to be");
        assert!(reason.len() > 40, "S{number}: {reason:?} is no reason");
        found.insert(*number, 1);
    }
    let missing: Vec<u32> = (1..=26).filter(|number| !found.contains_key(number)).collect();
    assert!(missing.is_empty(), "scenarios without a test and without a reason: {missing:?}");
    assert_eq!(found.keys().max(), Some(&26));
}
