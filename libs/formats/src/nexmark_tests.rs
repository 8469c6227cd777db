use std::collections::{BTreeMap, BTreeSet};

use arrow::{
    array::AsArray,
    compute::concat_batches,
    datatypes::{Int64Type, TimestampNanosecondType},
};

use super::*;
use crate::Unit;

const TABLES: [Table; 3] = [Table::Person, Table::Auction, Table::Bid];

fn made(table: Table, columns: Vec<Column>, seed: u64, events: u64, split: (u32, u32)) -> Nexmark {
    let layout = Layout::new(columns, Some(DATE_TIME), Unit::Millis).unwrap();
    Nexmark::new(table, layout, seed, (Some(events), 10_000), split).unwrap()
}

fn all(table: Table, seed: u64, events: u64, split: (u32, u32)) -> RecordBatch {
    let made = made(table, table.columns(), seed, events, split);
    made.batch(0, usize::try_from(made.rows()).unwrap()).unwrap()
}

fn integers(batch: &RecordBatch, name: &str) -> Vec<u64> {
    let column = batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
    column.values().iter().map(|value| u64::try_from(*value).unwrap()).collect()
}

#[test]
fn proportions_and_hot_ones_are_those_of_nexmark() {
    let [persons, auctions, bids] = TABLES.map(|table| all(table, 1, 100_000, (0, 1)));
    assert_eq!((persons.num_rows(), auctions.num_rows(), bids.num_rows()), (2_000, 6_000, 92_000));
    let ids = |batch: &RecordBatch| integers(batch, "id").into_iter().collect::<BTreeSet<_>>();
    assert_eq!(ids(&persons), (1_000..3_000).collect());
    assert_eq!(ids(&auctions), (1_000..7_000).collect());
    let share = |values: Vec<u64>, is: &dyn Fn(u64) -> bool| {
        let mut counts = BTreeMap::new();
        values.into_iter().for_each(|value| *counts.entry(is(value)).or_insert(0) += 1);
        counts[&true] * 100 / counts.values().sum::<usize>()
    };
    assert!((49..53).contains(&share(integers(&bids, "auction"), &|id| id % HOT_EVERY == 0)));
    assert!((74..77).contains(&share(integers(&bids, "bidder"), &|id| id % HOT_EVERY == 1)));
    assert!((74..77).contains(&share(integers(&auctions, "seller"), &|id| id % HOT_EVERY == 0)));
    assert!(integers(&bids, "price").iter().all(|price| (100..=100_000_000).contains(price)));
    let (first, reserve) = (integers(&auctions, "initialBid"), integers(&auctions, "reserve"));
    assert!(first.iter().zip(&reserve).all(|(first, reserve)| first + 100 <= *reserve));
    let times = bids.column(0).as_primitive::<TimestampNanosecondType>().values();
    let span = times.last().unwrap() - 1_767_225_600_000_000_000;
    assert_eq!(span, 9_999_000_000, "ten thousand events a second");
    assert!(times.is_sorted());
    // Whoever is named exists by then, or soon.
    for (number, bidder) in integers(&bids, "bidder").into_iter().enumerate() {
        assert!(bidder < FIRST + u64::try_from(number / 46).unwrap() + 1 + LEAD + 1, "bid {number} of {bidder}");
    }
}

#[test]
fn a_row_is_the_same_wherever_reading_begins_and_however_it_is_split() {
    for table in TABLES {
        let whole = all(table, 7, 12_345, (0, 1));
        let made = made(table, table.columns(), 7, 12_345, (0, 1));
        for (first, count) in [(0, 1), (17, 100), (whole.num_rows() - 1, 500), (whole.num_rows(), 9)] {
            let found = made.batch(u64::try_from(first).unwrap(), count).unwrap();
            assert_eq!(found, whole.slice(first, count.min(whole.num_rows() - first)), "{table:?} from {first}");
        }
        for splits in [2, 3, 7] {
            let mut parts: Vec<RecordBatch> = (0..splits).map(|split| all(table, 7, 12_345, (split, splits))).collect();
            let (_, each) = table.of_round();
            let each = usize::try_from(each).unwrap();
            let mut merged = Vec::new();
            while parts.iter().any(|part| part.num_rows() > 0) {
                for part in &mut parts {
                    let take = each.min(part.num_rows());
                    merged.push(part.slice(0, take));
                    *part = part.slice(take, part.num_rows() - take);
                }
            }
            assert_eq!(concat_batches(&whole.schema(), &merged).unwrap(), whole, "{table:?} in {splits}");
        }
        let other = all(table, 8, 12_345, (0, 1));
        assert_ne!(other.column_by_name("extra"), whole.column_by_name("extra"));
    }
}

#[test]
fn columns_that_are_left_out_change_nothing_and_unknown_ones_are_named() {
    let few = vec![Column::new("price", Kind::Integer), Column::new("url", Kind::Text)];
    let few = made(Table::Bid, few, 3, 5_000, (0, 1)).batch(0, 4_600).unwrap();
    let whole = all(Table::Bid, 3, 5_000, (0, 1));
    for name in ["_time", "price", "url"] {
        assert_eq!(few.column_by_name(name), whole.column_by_name(name));
    }
    let unknown = |column| {
        let layout = Layout::new(vec![column], Some(DATE_TIME), Unit::Millis).unwrap();
        Nexmark::new(Table::Bid, layout, 1, (None, 1), (0, 1)).unwrap_err().to_string()
    };
    assert!(unknown(Column::new("colour", Kind::Text)).contains("bidder"));
    assert!(unknown(Column::new("price", Kind::Text)).contains("price"));
}

#[test]
fn no_number_is_too_large() {
    let layout = Layout::new(Table::Bid.columns(), Some(DATE_TIME), Unit::Millis).unwrap();
    let endless = Nexmark::new(Table::Bid, layout, 1, (None, 1), (1, 2)).unwrap();
    assert_eq!(endless.rows(), u64::MAX);
    assert_eq!(endless.batch(u64::MAX / 2, 3).unwrap().num_rows(), 3);
}

/// The first rows for ever: a job that goes on with another release must find the same ones.
#[test]
fn rows_do_not_change_between_releases() {
    let bids = all(Table::Bid, 42, 50, (0, 1));
    let found = (integers(&bids, "auction")[..4].to_vec(), integers(&bids, "price")[..2].to_vec());
    assert_eq!(found, (GOLDEN_AUCTIONS.to_vec(), GOLDEN_PRICES.to_vec()));
}

const GOLDEN_AUCTIONS: [u64; 4] = [1_008, 1_005, 1_000, 1_000];
const GOLDEN_PRICES: [u64; 2] = [55_560, 53_714_041];
