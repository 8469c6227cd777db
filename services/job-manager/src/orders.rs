//! Doors of orders that are declared and not built yet: each answers `NotBuilt` with what it would have done.
//!
//! Whoever builds one takes it out of here and gives it a handler at the desk.

use bus::{BusError, Door, Doors};
use wire::{Call, Problem, job_manager::ShowFigures};

use crate::error::Error;

/// Opens the doors.
pub(crate) async fn open(doors: &Doors) -> Result<[Door; 1], BusError> {
    Ok([refuse::<ShowFigures>(doors, "figures of tasks").await?])
}

async fn refuse<C: Call<Key = ()>>(doors: &Doors, what: &'static str) -> Result<Door, BusError> {
    doors.serve::<C, _, _>(None, move |_| async move { Err(Problem::from(Error::NotBuilt(what))) }).await
}
