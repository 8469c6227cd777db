//! The threads of the exchange, apart from those that compute.
//!
//! Reading, writing and heartbeats go on while every task computes; on the threads of the tasks a busy process would
//! look like a dead one.

use std::{future::Future, num::NonZero, sync::Arc};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

use crate::Error;

/// The most threads: each carries about 1 GB/s inside TLS and several without.
const THREADS_MAX: usize = 4;

/// One thread for so many cores; the others are left to the tasks.
const CORES_PER_THREAD: usize = 4;

/// Dropping it ends whatever runs there at its next wait.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    pub(crate) fn start() -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads((cores / CORES_PER_THREAD).clamp(1, THREADS_MAX))
            .thread_name("exchange")
            .enable_all()
            .build()
            .map_err(|source| Error::Threads { source: Arc::new(source) })?;
        Ok(Self(Some(runtime)))
    }

    /// The way to spawn there.
    pub(crate) fn handle(&self) -> Handle {
        // Taken out by `drop` alone.
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }

    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle().spawn(work)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The plain drop of a runtime waits for its threads, which a task must not.
            runtime.shutdown_background();
        }
    }
}
