//! What the task worker counts.

use std::{sync::Arc, time::Instant};

use telemetry::Counter;

telemetry::metrics! {
    SLOTS_USED: Gauge = "lb_task_worker_slots_used", "Slots that hold tasks.";
    ROWS_IN: Counter["task"] = "lb_task_worker_rows_in_total", "Rows that a task took.";
    ROWS_OUT: Counter["task"] = "lb_task_worker_rows_out_total", "Rows that a task gave on.";
    ROWS_LATE: Counter["task"] = "lb_task_worker_rows_late_total", "Rows dropped because their window had closed.";
    ROWS_REFUSED: Counter = "lb_task_worker_rows_refused_total", "Result rows larger than an event may be, which were left out.";
    ROWS_REPEATED: Counter = "lb_task_worker_rows_repeated_total", "Result rows that the target had already.";
    BUSY: Counter["task"] = "lb_task_worker_busy_microseconds_total", "Time in which a task computed.";
    IDLE: Counter["task"] = "lb_task_worker_idle_microseconds_total", "Time in which a task waited for rows.";
    BACKPRESSURED: Counter["task"] = "lb_task_worker_backpressured_microseconds_total", "Time in which a task waited for those that take its rows.";
    PARTS_STORED: Counter = "lb_task_worker_parts_stored_total", "Parts of checkpoints that were stored.";
    TASKS_FAILED: Counter = "lb_task_worker_tasks_failed_total", "Tasks that failed.";
}

/// The figures of one task; its time is split at three points of its loop, with one reading of the clock at each.
#[derive(Debug)]
pub(crate) struct Meter {
    mark: Instant,
    busy: Arc<Counter>,
    idle: Arc<Counter>,
    backpressured: Arc<Counter>,
    pub(crate) rows_in: Arc<Counter>,
    pub(crate) rows_out: Arc<Counter>,
    pub(crate) rows_late: Arc<Counter>,
}

impl Meter {
    /// The figures under the task's name.
    pub(crate) fn of(task: &str) -> Self {
        Self {
            mark: Instant::now(),
            busy: BUSY.with(task),
            idle: IDLE.with(task),
            backpressured: BACKPRESSURED.with(task),
            rows_in: ROWS_IN.with(task),
            rows_out: ROWS_OUT.with(task),
            rows_late: ROWS_LATE.with(task),
        }
    }

    fn since_mark(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.mark, Instant::now());
        u64::try_from(self.mark.duration_since(before).as_micros()).unwrap_or(u64::MAX)
    }

    /// The time since the last call was spent waiting for input.
    pub(crate) fn waited(&mut self) {
        let spent = self.since_mark();
        self.idle.add(spent);
    }

    /// It was spent computing.
    pub(crate) fn ran(&mut self) {
        let spent = self.since_mark();
        self.busy.add(spent);
    }

    /// It was spent waiting for whoever takes the output.
    pub(crate) fn gave(&mut self) {
        let spent = self.since_mark();
        self.backpressured.add(spent);
    }
}

/// A number of rows as a counter takes it.
pub(crate) fn rows(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
