//! How many task workers there should be, and who is told.
//!
//! More are asked for as soon as jobs want more slots than there are; fewer only after a while of wanting fewer, and only from the end
//! of the row, where no task runs: a job is never disturbed to save a worker.

mod kubernetes;
mod policy;

pub(crate) use kubernetes::Manager;
