//! The threads on which tasks run, apart from the service's own thread.

use std::{future::Future, num::NonZero};

use host::StartError;
use tokio::runtime::{Builder, Handle, Runtime};

/// A pool with one thread per core, at most one per slot. Dropping it ends whatever runs there at its next wait.
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// Starts the threads.
    pub(crate) fn start(slots: u16) -> Result<Self, StartError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores.min(usize::from(slots)).max(1))
            .thread_name("task")
            .enable_all()
            .build()
            .map_err(|source| StartError::Io { what: "threads for tasks cannot be started".to_owned(), source })?;
        Ok(Self(Some(runtime)))
    }

    /// The way to spawn there.
    pub(crate) fn handle(&self) -> Handle {
        // Taken out by `drop` alone.
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }

    /// Runs a future there.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StartError> {
        self.handle().spawn(work).await.map_err(StartError::other)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The plain drop of a runtime waits for its threads, which the thread of a service must not.
            runtime.shutdown_background();
        }
    }
}
