//! What the task worker counts.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use flow::Counts;
use telemetry::Counter;
use types::{JobId, Timestamp};
use wire::task_worker::TaskFigures;

use crate::{checkpoint::micros, run::SourceCounts, task::Context};

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
    SINK_REPEATS: Counter["task"] = "lb_task_worker_sink_repeats_total", "Times that a sink outside did not take rows, which were sent again.";
    TASKS_FAILED: Counter = "lb_task_worker_tasks_failed_total", "Tasks that failed.";
}

/// The figures of all tasks of a worker, for the report of each second.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board(Arc<Mutex<Vec<Weak<Mutex<TaskFigures>>>>>);

impl Board {
    fn add(&self, figures: TaskFigures) -> Arc<Mutex<TaskFigures>> {
        let figures = Arc::new(Mutex::new(figures));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounds: the tasks that live; those that are over are swept out here.
        all.retain(|figures| figures.strong_count() > 0);
        all.push(Arc::downgrade(&figures));
        figures
    }

    /// Those of the tasks that live.
    pub(crate) fn read(&self, at: Timestamp) -> Vec<TaskFigures> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |figures: Arc<Mutex<TaskFigures>>| {
            let figures = figures.lock().unwrap_or_else(PoisonError::into_inner).clone();
            TaskFigures { at, ..figures }
        };
        all.iter().filter_map(Weak::upgrade).map(read).collect()
    }
}

/// The figures of one task; its time is split at the points of its loop, with one reading of the clock at each.
#[derive(Debug)]
pub(crate) struct Meter {
    mark: Instant,
    busy: Arc<Counter>,
    idle: Arc<Counter>,
    backpressured: Arc<Counter>,
    rows_in: Arc<Counter>,
    rows_out: Arc<Counter>,
    rows_late: Arc<Counter>,
    figures: Arc<Mutex<TaskFigures>>,
}

impl Meter {
    /// The figures under the task's name.
    pub(crate) fn of(context: &Context) -> Self {
        let task = context.label.as_str();
        Self {
            mark: Instant::now(),
            busy: BUSY.with(task),
            idle: IDLE.with(task),
            backpressured: BACKPRESSURED.with(task),
            rows_in: ROWS_IN.with(task),
            rows_out: ROWS_OUT.with(task),
            rows_late: ROWS_LATE.with(task),
            figures: context.shared.board.add(fresh(context.submitted.job.clone(), context.attempt, context.number)),
        }
    }

    fn with(&self, change: impl FnOnce(&mut TaskFigures)) {
        change(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn since_mark(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.mark, Instant::now());
        micros(self.mark.duration_since(before))
    }

    /// The time since the last call was spent waiting for input.
    pub(crate) fn waited(&mut self) {
        let spent = self.since_mark();
        self.idle.add(spent);
        self.with(|figures| figures.idle_us += spent);
    }

    /// It was spent computing.
    pub(crate) fn ran(&mut self) {
        let spent = self.since_mark();
        self.busy.add(spent);
        self.with(|figures| figures.busy_us += spent);
    }

    /// It was spent waiting for whoever takes the output, or for the barriers of other inputs.
    pub(crate) fn gave(&mut self) {
        let spent = self.since_mark();
        self.backpressured.add(spent);
        self.with(|figures| figures.backpressured_us += spent);
    }

    /// Rows came in.
    pub(crate) fn took(&self, rows: u64, bytes: u64) {
        self.rows_in.add(rows);
        self.with(|figures| {
            figures.rows_in += rows;
            figures.bytes_in += bytes;
        });
    }

    /// Rows went on.
    pub(crate) fn gave_rows(&self, rows: u64, bytes: u64) {
        self.rows_out.add(rows);
        self.with(|figures| {
            figures.rows_out += rows;
            figures.bytes_out += bytes;
        });
    }

    /// So many more rows were late.
    pub(crate) fn late(&self, rows: u64) {
        self.rows_late.add(rows);
        self.with(|figures| figures.late += rows);
    }

    /// Event time has come that far.
    pub(crate) fn watermark(&self, watermark: Timestamp) {
        self.with(|figures| figures.watermark = Some(watermark));
    }

    /// What operators and a source counted since they began.
    pub(crate) fn counted(&self, operators: &Counts, source: Option<SourceCounts>) {
        let source = source.unwrap_or_default();
        let late = operators.late + source.late;
        self.with(|figures| {
            self.rows_late.add(late.saturating_sub(figures.late));
            figures.late = late;
            figures.skewed = source.skewed;
            figures.faults = operators.faults + source.faults;
            if figures.fault.is_none() {
                figures.fault = operators.fault.clone().or(source.fault);
            }
        });
    }

    /// Bytes of state in memory and spilled.
    pub(crate) fn state(&self, bytes: u64, spilled: u64) {
        self.with(|figures| (figures.state_bytes, figures.spilled_bytes) = (bytes, spilled));
    }
}

fn fresh(job: JobId, attempt: u32, task: u32) -> TaskFigures {
    TaskFigures {
        job,
        attempt,
        task,
        at: Timestamp::MIN,
        busy_us: 0,
        idle_us: 0,
        backpressured_us: 0,
        rows_in: 0,
        rows_out: 0,
        bytes_in: 0,
        bytes_out: 0,
        watermark: None,
        late: 0,
        skewed: 0,
        faults: 0,
        fault: None,
        state_bytes: 0,
        spilled_bytes: 0,
        stacks: Vec::new(),
    }
}

/// A number of rows or bytes as a counter takes it.
pub(crate) fn rows(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_has_the_tasks_that_live() {
        let board = Board::default();
        let first = board.add(fresh("a".parse().unwrap(), 1, 0));
        let second = board.add(fresh("a".parse().unwrap(), 1, 1));
        second.lock().unwrap().rows_in = 7;
        drop(first);
        let read = board.read(Timestamp::from_nanos(5));
        assert_eq!(read.iter().map(|f| (f.task, f.rows_in, f.at.nanos())).collect::<Vec<_>>(), [(1, 7, 5)]);
    }
}
