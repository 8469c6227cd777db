use std::collections::BTreeMap;

use flow::{ExecutionGraph, FreeSlots};
use types::StreamCut;
use wire::job_manager::{Cause, StartAt};

use host::ControlState;

use super::*;

fn new(job: &str) -> NewJob {
    NewJob {
        job: job.parse().unwrap(),
        text: "INSERT INTO sums SELECT service, window_start, count(*) AS n \
               FROM tumble(shop, INTERVAL '10 seconds') GROUP BY service, window_start"
            .into(),
        sink: None,
        start: StartAt::Earliest,
        parallelism: 2,
        early: None,
        options: wire::job_manager::JobOptions::default(),
    }
}

fn run(state: &mut State, command: Command) -> Vec<Event> {
    let events = state.decide(command, Timestamp::from_nanos(1)).unwrap();
    for event in &events {
        state.apply(event, Timestamp::from_nanos(1));
    }
    events
}

fn submit(state: &mut State, job: &str) -> JobId {
    let new = new(job);
    let plan = crate::plan::plan(&new, 2).unwrap();
    let id = new.job.clone();
    run(
        state,
        Command::Submit(Box::new((
            new,
            PlannedJob { plan, start: StreamCut::default(), starts: BTreeMap::new(), restored: None },
        ))),
    );
    id
}

fn place(state: &mut State, job: &JobId) -> Vec<Event> {
    let known = &state.jobs[job];
    let offers =
        [FreeSlots { worker: "w0".parse().unwrap(), free: 4 }, FreeSlots { worker: "w1".parse().unwrap(), free: 4 }];
    let execution = ExecutionGraph::place(known.graph.clone(), known.attempt + 1, &offers).unwrap();
    run(state, Command::Place(job.clone(), Box::new(execution), BTreeMap::new()))
}

fn fail(job: &JobId, attempt: u32) -> Command {
    of_cause(job, attempt, Cause::WorkerLost)
}

fn of_cause(job: &JobId, attempt: u32, cause: Cause) -> Command {
    Command::Fail { job: job.clone(), attempt, failure: Failure::new(cause, "worker w0 is gone"), restarts_max: 2 }
}

fn checkpoint(number: u64) -> Checkpoint {
    Checkpoint { number, ..Checkpoint::default() }
}

#[test]
fn a_job_is_placed_runs_and_begins_again_from_its_checkpoint() {
    let mut state = State::default();
    let job = submit(&mut state, "a");
    assert_eq!(place(&mut state, &job).len(), 1);
    assert_eq!(place(&mut state, &job).len(), 0, "an attempt is placed once");
    run(&mut state, Command::Run(job.clone(), 1));
    assert_eq!(state.jobs[&job].status, JobStatus::Running);
    assert_eq!(state.used_slots().values().sum::<u32>(), 2, "two subtasks of two vertices share two slots");
    run(
        &mut state,
        Command::Complete { job: job.clone(), attempt: 1, checkpoint: checkpoint(7), began: Timestamp::MIN },
    );
    run(&mut state, fail(&job, 1));
    assert_eq!(state.jobs[&job].status, JobStatus::Restarting);
    assert!(state.used_slots().is_empty());
    assert!(run(&mut state, fail(&job, 1)).is_empty(), "a second report of the same failure changes nothing");
    place(&mut state, &job);
    assert_eq!(state.jobs[&job].attempt, 2);
    assert_eq!(state.jobs[&job].checkpoint.as_ref().unwrap().number, 7);
}

#[test]
fn news_of_an_old_attempt_changes_nothing() {
    let mut state = State::default();
    let job = submit(&mut state, "a");
    place(&mut state, &job);
    run(&mut state, fail(&job, 1));
    place(&mut state, &job);
    for command in [
        Command::Run(job.clone(), 1),
        fail(&job, 1),
        Command::Complete { job: job.clone(), attempt: 1, checkpoint: checkpoint(9), began: Timestamp::MIN },
    ] {
        assert!(run(&mut state, command).is_empty());
    }
}

#[test]
fn failures_in_a_row_end_a_job_and_a_checkpoint_forgives_them() {
    let mut state = State::default();
    let job = submit(&mut state, "a");
    for attempt in 1..=2 {
        place(&mut state, &job);
        run(&mut state, fail(&job, attempt));
    }
    place(&mut state, &job);
    run(
        &mut state,
        Command::Complete { job: job.clone(), attempt: 3, checkpoint: checkpoint(1), began: Timestamp::MIN },
    );
    run(&mut state, fail(&job, 3));
    assert_eq!(state.jobs[&job].status, JobStatus::Restarting);
    for attempt in 4..=5 {
        place(&mut state, &job);
        run(&mut state, fail(&job, attempt));
    }
    assert_eq!(state.jobs[&job].status, JobStatus::Failed);
}

#[test]
fn a_users_failure_ends_a_job_at_once() {
    let mut state = State::default();
    let job = submit(&mut state, "a");
    place(&mut state, &job);
    run(&mut state, of_cause(&job, 1, Cause::User));
    let known = &state.jobs[&job];
    assert_eq!(known.status, JobStatus::Failed);
    assert!(known.failure.as_ref().unwrap().contains("given up: it would fail again"), "{:?}", known.failure);
    assert_eq!((known.history.failed, known.history.exceptions[0].attempt), (1, 1));
}

#[test]
fn the_pause_before_the_next_attempt_is_in_the_journal() {
    let mut state = State::default();
    let job = submit(&mut state, "a");
    for (attempt, pause) in [(1, 100), (2, 200)] {
        place(&mut state, &job);
        let events = run(&mut state, fail(&job, attempt));
        assert!(matches!(events[..], [Event::AttemptFailed { pause_ms, .. }] if pause_ms == pause), "{events:?}");
        assert_eq!(state.jobs[&job].not_before, Timestamp::from_nanos(1) + Duration::from_millis(pause));
    }
}

#[test]
fn checkpoints_are_kept_by_their_count_however_their_numbers_jump() {
    let mut state = State::default();
    let job = submit(&mut state, "a");
    place(&mut state, &job);
    for number in [3, 4, 1_001, 1_002, 2_001] {
        let began = Timestamp::MIN;
        run(&mut state, Command::Complete { job: job.clone(), attempt: 1, checkpoint: checkpoint(number), began });
    }
    let kept = |count| state.jobs[&job].kept(count).into_iter().collect::<Vec<_>>();
    assert_eq!(kept(1), [2_001]);
    assert_eq!(kept(3), [1_001, 1_002, 2_001]);
    assert_eq!(state.jobs[&job].history.completed, 5);
}

#[test]
fn the_same_submission_twice_is_one_job() {
    let mut state = State::default();
    let job = submit(&mut state, "a");
    submit(&mut state, "a");
    assert_eq!(state.jobs.len(), 1);
    let mut other = new("a");
    other.text = other.text.replace("10 seconds", "20 seconds");
    let plan = crate::plan::plan(&other, 2).unwrap();
    let planned = PlannedJob { plan, start: StreamCut::default(), starts: BTreeMap::new(), restored: None };
    let refused = state.decide(Command::Submit(Box::new((other, planned))), Timestamp::from_nanos(1));
    assert!(matches!(refused, Err(Error::JobDiffers(_))));
    run(&mut state, Command::Cancel(job.clone()));
    assert!(run(&mut state, Command::Cancel(job)).is_empty());
}

#[test]
fn checkpoint_numbers_are_never_used_twice() {
    let mut state = State::default();
    let job = submit(&mut state, "a");
    run(&mut state, Command::Reserve(job.clone()));
    run(&mut state, Command::Reserve(job.clone()));
    assert_eq!(state.jobs[&job].reserved, 2 * CHECKPOINTS_RESERVED);
}

#[test]
fn a_job_whose_index_was_scaled_begins_again_and_that_is_no_failure() {
    let mut state = State::default();
    let job = submit(&mut state, "a");
    place(&mut state, &job);
    run(&mut state, fail(&job, 1));
    let (failures, failure) = (state.jobs[&job].failures, state.jobs[&job].failure.clone());
    let replan = |attempt| Command::Replan { job: job.clone(), attempt, reason: "index shop was scaled".into() };
    // More often than a job may fail in a row.
    for attempt in 2..=9 {
        place(&mut state, &job);
        run(&mut state, Command::Run(job.clone(), attempt));
        assert!(run(&mut state, replan(attempt - 1)).is_empty(), "an older attempt ends nothing");
        assert_eq!(run(&mut state, replan(attempt)).len(), 1);
        assert!(run(&mut state, replan(attempt)).is_empty(), "an attempt ends once");
        assert_eq!((state.jobs[&job].status, state.jobs[&job].attempt), (JobStatus::Restarting, attempt));
        assert!(state.used_slots().is_empty());
    }
    assert_eq!((state.jobs[&job].failures, &state.jobs[&job].failure), (failures, &failure));
}

#[test]
fn thousands_of_jobs_are_listed_in_pages_that_can_be_sent() {
    let mut state = State::default();
    let first = submit(&mut state, "job-0");
    let one = state.jobs[&first].clone();
    for n in 0..3_000 {
        let mut job = one.clone();
        job.new.job = format!("job-{n}").parse().unwrap();
        job.new.text.push_str(&"x".repeat(1_000));
        state.jobs.insert(job.new.job.clone(), job);
    }
    let (mut wanted, mut found, mut pages) = (JobsOf::default(), Vec::new(), 0);
    loop {
        let page = state.page(&wanted).unwrap();
        assert!(wire::encode(&page).len() < 1 << 20 && !page.jobs.is_empty());
        found.extend(page.jobs.iter().map(|job| job.job.clone()));
        pages += 1;
        wanted.after = found.last().cloned();
        if !page.more {
            break;
        }
    }
    assert!(pages > 3, "{pages} pages");
    assert_eq!(found, state.jobs.keys().cloned().collect::<Vec<_>>());
    wanted.limit.0 = 0;
    assert_eq!(state.page(&wanted).unwrap_err().kind, "InvalidPage");
}
