//! What results take while they are sent: a place each, and memory.

use arrow::array::{Array, RecordBatch};
use host::{Place, Places};
use wire::Problem;

use crate::{
    answers::{Memory, Room},
    auth::Principal,
};

/// Places of results, half of them for tokens of one index, and the memory of all answers.
pub(super) struct Results {
    places: Places,
    memory: Memory,
}

impl Results {
    pub(super) fn new(count: usize, memory: Memory) -> Self {
        Self { places: Places::new(count), memory }
    }

    /// A place, before the rows are looked for. Errors: Throttled `TooManyResults`.
    pub(super) fn place(&self, principal: &Principal) -> Result<Place, Problem> {
        let full = || Problem::throttled("TooManyResults", "too many results are sent at once; try again in a moment");
        self.places.take(principal.index()).ok_or_else(full)
    }

    /// Room for these rows. Errors: Throttled `TooManyResults`.
    pub(super) fn room(&self, principal: &Principal, batches: &[RecordBatch]) -> Result<Room, Problem> {
        self.memory.room(principal, batches.iter().map(bytes_of).sum())
    }
}

fn bytes_of(batch: &RecordBatch) -> u64 {
    // Batches may be parts of the same memory: of each its own part is counted.
    let of = |column: &dyn Array| column.to_data().get_slice_memory_size();
    let bytes = batch.columns().iter().map(|column| of(column).unwrap_or_else(|_| column.get_array_memory_size()));
    u64::try_from(bytes.sum::<usize>()).unwrap_or(u64::MAX)
}
