//! Every operator that keeps state against an independent recomputation, without processes: at parallelism 1, 2 and 4, with inputs that
//! interleave by chance, cut into batches by chance, thrown away and put together again from their last snapshot, and rescaled.
//!
//! The same rows must come out of every such run: none may be missing, come twice or differ, and as many must be late. What is
//! expected is reckoned by `logboom_tests::recompute`, which shares nothing with the engine. What this release does not run is
//! listed in `kinds.rs` by name; the list is asserted, so whoever builds something has to cover it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and tells what it left out")]

#[path = "operators/kinds.rs"]
mod kinds;
#[path = "operators/run.rs"]
mod run;

use std::collections::BTreeSet;

use flow::{Error, Setting};
use logboom_tests::{
    event_files::Mix,
    recompute::{Input, Judge},
};

use crate::{
    kinds::{Kind, NOT_BUILT, kinds},
    run::{Faults, Run},
};

/// Rows of one run, of so many keys, and its seeds.
const ROWS: u64 = 2_000;
const KEYS: u64 = 12;
const SEEDS: std::ops::Range<u64> = 0..4;
const PARALLELISM: [usize; 3] = [1, 2, 4];
const FILES: u64 = 3;

/// Half of the rows out of order, some late, some a day ahead, over three splits that interleave.
fn input(seed: u64) -> Input {
    let mix = Mix { files: FILES, rate: 50, late: 60, future: 0, ..Mix::rough(seed, ROWS, KEYS) };
    let judge = Judge { delay: 2_000, max_future_skew: 0 };
    let mut rows = mix.rows();
    rows.iter_mut().for_each(|row| row.key = format!("k{:02}", row.key.parse::<u64>().unwrap()));
    Input::of(judge, &[0, 1, 2], rows).ended()
}

fn check(kind: &Kind, seed: u64, parallelism: usize, faults: Faults) {
    let inputs: Vec<Input> = kind.inputs.iter().map(|wanted| input(seed).only(wanted)).collect();
    let expected = (kind.recompute)(&inputs);
    assert!(expected.count() > 10 && expected.late > 0, "{}: something is compared, and something is late", kind.name);
    let found = Run::new(kind, &inputs, seed, parallelism).finish(faults);
    let found =
        found.unwrap_or_else(|error| panic!("{} at {parallelism}, seed {seed}, {faults:?}: {error}", kind.name));
    if let Some(complaint) = expected.complaint(&found.rows) {
        panic!("{} at {parallelism}, seed {seed}, {faults:?}: of {} rows\n{complaint}", kind.name, expected.count());
    }
    assert_eq!(found.late, expected.late, "{} at {parallelism}, seed {seed}, {faults:?}: late rows", kind.name);
}

fn every(faults: &[Faults]) {
    for kind in kinds().iter().filter(|kind| !NOT_BUILT.contains(&kind.name)) {
        for faults in faults.iter().filter(|faults| kind.rescales || !faults.rescales()) {
            for parallelism in PARALLELISM {
                SEEDS.for_each(|seed| check(kind, seed, parallelism, *faults));
            }
        }
    }
}

#[test]
fn what_is_built_is_covered_and_what_is_not_is_named() {
    let refused = kinds().into_iter().filter_map(|kind| match kind.spec.build(Setting::alone("probe")) {
        Err(Error::NotBuilt(_)) => Some(kind.name),
        Err(error) => panic!("{}: {error}", kind.name),
        Ok(_) => None,
    });
    let refused: BTreeSet<_> = refused.collect();
    let names: Vec<&str> = refused.iter().copied().collect();
    // Shown even where all is well.
    if !names.is_empty() {
        println!("SKIPPED: operators that this release does not build and no test covers: {}", names.join(", "));
    }
    assert_eq!(refused, BTreeSet::from(NOT_BUILT), "what is not built (left) is what NOT_BUILT says");
}

#[test]
fn results_do_not_depend_on_batches_order_or_parallelism() {
    every(&[Faults::None]);
}

#[test]
fn results_do_not_depend_on_restarts() {
    every(&[Faults::Restart]);
}

#[test]
fn results_do_not_depend_on_rescaling() {
    every(&[Faults::Rescale([4, 1, 2]), Faults::Rescale([2, 4, 1])]);
}

/// A recomputation that cannot say no proves nothing.
#[test]
fn a_lost_row_is_noticed() {
    let all = kinds();
    let tumble = all.iter().find(|kind| kind.name == "tumble, as older graphs have it").unwrap();
    let whole = input(1);
    let mut short = whole.clone();
    short.rows.remove(777);
    let expected = (tumble.recompute)(&[whole]);
    let found = Run::new(tumble, &[short], 1, 2).finish(Faults::None).unwrap();
    assert!(expected.complaint(&found.rows).is_some() || expected.late != found.late);
}
