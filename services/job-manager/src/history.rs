//! What was: the last failures and the last complete checkpoints of a job. Pure and bounded.

use std::collections::BTreeMap;

use flow::TaskId;
use serde::{Deserialize, Serialize};
use types::{ReplicaId, Timestamp};
use wire::job_manager::{
    Cause, CheckpointFigures, CheckpointHistory, CheckpointOutcome, CheckpointRun, JobException, JobExceptions,
    SubtaskFigures,
};

/// Failures of a job that are kept; beyond it the oldest is forgotten and only counted.
pub(crate) const EXCEPTIONS_MAX: usize = 10;
/// Complete checkpoints of a job whose size and duration are kept.
pub(crate) const CHECKPOINTS_MAX: usize = 10;
/// Checkpoints that were given up and are remembered by the leader that did so.
const LOST_MAX: usize = 10;
/// Longest text of a failure kept.
pub(crate) const REASON_CHARS_MAX: usize = 1_000;

/// Why an attempt ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    pub(crate) cause: Cause,
    /// For people.
    pub(crate) reason: String,
    /// The task that told it.
    pub(crate) task: Option<TaskId>,
    /// Where it ran, or which worker is gone.
    pub(crate) worker: Option<ReplicaId>,
}

impl Failure {
    pub(crate) fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), task: None, worker: None }
    }

    /// With the worker that it is about.
    pub(crate) fn on(self, worker: &ReplicaId) -> Self {
        Self { worker: Some(worker.clone()), ..self }
    }
}

/// A complete checkpoint as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) number: u64,
    /// `None` in journals of releases that did not note it.
    #[serde(default)]
    pub(crate) began: Option<Timestamp>,
    pub(crate) ended: Timestamp,
    pub(crate) bytes: u64,
}

/// What is remembered with the job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    /// Oldest first.
    pub(crate) exceptions: Vec<JobException>,
    /// All of them, forgotten ones too.
    pub(crate) failed: u64,
    /// Oldest first.
    pub(crate) checkpoints: Vec<Taken>,
    /// All of them, forgotten ones too.
    pub(crate) completed: u64,
}

fn push<T>(kept: &mut Vec<T>, most: usize, new: T) {
    kept.push(new);
    let surplus = kept.len().saturating_sub(most);
    kept.drain(..surplus);
}

impl History {
    pub(crate) fn failed(&mut self, exception: JobException) {
        self.failed += 1;
        push(&mut self.exceptions, EXCEPTIONS_MAX, exception);
    }

    pub(crate) fn completed(&mut self, taken: Taken) {
        self.completed += 1;
        push(&mut self.checkpoints, CHECKPOINTS_MAX, taken);
    }

    /// The numbers of the newest complete checkpoints.
    pub(crate) fn newest(&self, count: usize) -> impl Iterator<Item = u64> {
        self.checkpoints.iter().rev().take(count).map(|taken| taken.number)
    }
}

/// A checkpoint that is being taken, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Going {
    pub(crate) number: u64,
    pub(crate) began: Timestamp,
    /// What it cost the tasks that have given their part.
    pub(crate) tasks: BTreeMap<TaskId, CheckpointFigures>,
}

/// A checkpoint that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) checkpoint: Going,
    pub(crate) ended: Timestamp,
    pub(crate) reason: String,
}

/// What a leader sees of a job's checkpoints while it leads; the next one begins with an empty board.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    /// The one that is being taken.
    pub(crate) going: Option<Going>,
    /// Complete ones, task by task, oldest first.
    pub(crate) done: Vec<Going>,
    /// Oldest first.
    pub(crate) lost: Vec<Lost>,
    /// All of them, forgotten ones too.
    pub(crate) lost_count: u64,
}

impl Board {
    pub(crate) fn begin(&mut self, number: u64, began: Timestamp) {
        self.going = Some(Going { number, began, tasks: BTreeMap::new() });
    }

    pub(crate) fn part(&mut self, number: u64, task: TaskId, figures: CheckpointFigures) {
        if let Some(going) = self.going.as_mut().filter(|going| going.number == number) {
            going.tasks.entry(task).or_insert(figures);
        }
    }

    pub(crate) fn complete(&mut self, number: u64) {
        if let Some(going) = self.going.take_if(|going| going.number == number) {
            push(&mut self.done, CHECKPOINTS_MAX, going);
        }
    }

    /// Gives up what is being taken, if anything is.
    pub(crate) fn lose(&mut self, ended: Timestamp, reason: &str) {
        if let Some(checkpoint) = self.going.take() {
            self.lost_count += 1;
            push(&mut self.lost, LOST_MAX, Lost { checkpoint, ended, reason: cut(reason) });
        }
    }
}

impl History {
    /// The failures as people see them.
    pub(crate) fn exceptions(&self) -> JobExceptions {
        JobExceptions { exceptions: self.exceptions.iter().rev().cloned().collect() }
    }

    /// The checkpoints as people see them; `named` tells which savepoint a number is.
    pub(crate) fn shown(&self, board: &Board, named: impl Fn(u64) -> Option<String>) -> CheckpointHistory {
        let figures = |of: Option<&Going>| -> Vec<SubtaskFigures> {
            let tasks = of.iter().flat_map(|going| &going.tasks);
            tasks.map(|(task, figures)| SubtaskFigures { task: task.to_string(), figures: *figures }).collect()
        };
        let run = |going: &Going, ended, outcome| CheckpointRun {
            number: going.number,
            savepoint: None,
            began: going.began,
            ended,
            outcome,
            bytes: going.tasks.values().map(|figures| figures.bytes).sum(),
            tasks: figures(Some(going)),
        };
        let complete = self.checkpoints.iter().map(|taken| CheckpointRun {
            number: taken.number,
            savepoint: named(taken.number),
            began: taken.began.unwrap_or(taken.ended),
            ended: Some(taken.ended),
            outcome: CheckpointOutcome::Complete,
            bytes: taken.bytes,
            tasks: figures(board.done.iter().find(|done| done.number == taken.number)),
        });
        let lost = board.lost.iter();
        let lost = lost.map(|l| run(&l.checkpoint, Some(l.ended), CheckpointOutcome::Lost(l.reason.clone())));
        let going = board.going.iter().map(|going| run(going, None, CheckpointOutcome::Running));
        let mut checkpoints: Vec<CheckpointRun> = complete.chain(lost).chain(going).collect();
        checkpoints.sort_by_key(|run| std::cmp::Reverse(run.number));
        CheckpointHistory { checkpoints, completed: self.completed, lost: board.lost_count }
    }
}

/// A text as long as one may be that is kept.
pub(crate) fn cut(reason: &str) -> String {
    reason.chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_are_kept_and_all_are_counted() {
        let mut history = History::default();
        let at = Timestamp::from_millis(1);
        for number in 1..=25u32 {
            let reason = format!("failure {number}");
            let cause = Cause::System;
            history.failed(JobException { at, attempt: number, task: None, worker: None, cause, reason });
            // Numbers jump when a leader changes.
            let number = u64::from(number) + if number > 20 { 1_000 } else { 0 };
            history.completed(Taken { number, began: None, ended: at, bytes: 3 });
        }
        assert_eq!((history.failed, history.completed), (25, 25));
        assert_eq!((history.exceptions.len(), history.exceptions[0].attempt), (EXCEPTIONS_MAX, 16));
        assert_eq!(history.checkpoints.len(), CHECKPOINTS_MAX);
        assert_eq!(history.newest(6).collect::<Vec<_>>(), [1_025, 1_024, 1_023, 1_022, 1_021, 20]);
    }

    #[test]
    fn a_board_shows_what_is_being_taken_and_what_was_lost() {
        let mut board = Board::default();
        let at = Timestamp::from_millis;
        let task = |subtask| TaskId { vertex: 0, subtask };
        let figures = |bytes| CheckpointFigures { bytes, ..CheckpointFigures::default() };
        board.begin(1, at(0));
        board.part(1, task(0), figures(7));
        board.part(1, task(0), figures(8));
        board.part(9, task(1), figures(9));
        assert_eq!(board.going.as_ref().unwrap().tasks, BTreeMap::from([(task(0), figures(7))]));
        board.complete(1);
        assert_eq!((board.done[0].number, board.going.is_none()), (1, true));
        for number in 2..=20 {
            board.begin(number, at(0));
            board.lose(at(9), "it took too long");
        }
        board.lose(at(9), "nothing is being taken");
        assert_eq!((board.lost.len(), board.lost_count), (LOST_MAX, 19));
        assert_eq!(board.lost[0].checkpoint.number, 11);
    }
}
