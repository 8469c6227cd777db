//! The examples that need nothing but a nats-server do what they say.

#[path = "../examples/synchronizer.rs"]
mod synchronizer;
#[path = "../examples/table.rs"]
mod table;

#[test]
fn four_tasks_count_to_a_hundred() {
    synchronizer::main().unwrap();
}

#[test]
fn one_pair_of_shoes_is_sold_once() {
    table::main().unwrap();
}
