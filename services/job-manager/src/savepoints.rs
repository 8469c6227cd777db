//! Orders about savepoints: taking, listing and deleting them, stopping a job at one, beginning with one, and another parallelism.

use std::{collections::BTreeMap, time::Duration};

use actix::{Context, Handler, ResponseFuture};
use bus::Incoming;
use flow::{JobGraph, OperatorSpec, PARALLELISM_MAX, Vertex};
use host::Ledger;
use store::Objects;
use types::JobId;
use wire::{
    Empty, Problem,
    job_manager::{
        DeleteSavepoint, JobDescription, JobStatus, ListSavepoints, RescaleJob, RestoreFrom, Savepoint, SavepointName,
        Savepoints, StopJob, TakeSavepoint,
    },
};

use crate::{
    actor::Desk,
    driver::rescaled,
    error::Error,
    lead::Drivers,
    manifest,
    state::{Checkpoint, Command, Job, SAVEPOINTS_MAX, State, Stop, savepoint_key},
};

/// How long a call waits for its savepoint; a repeat waits for the same one.
const SAVEPOINT_WAIT: Duration = Duration::from_secs(3);
/// The longest name of a savepoint.
const NAME_CHARS_MAX: usize = 64;
/// The largest parallelism that a job can be given.
const SUBTASKS_MAX: u16 = 64;

/// Refuses a name that no savepoint can have; an empty one is named after its checkpoint.
fn check_name(name: &SavepointName) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match name.name.len() <= NAME_CHARS_MAX && name.name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(Error::InvalidSavepoint(format!("its name is 1 to {NAME_CHARS_MAX} of a-z 0-9 -"))),
    }
}

impl State {
    /// A job that can be told to stand still.
    fn stoppable(&self, job: &JobId) -> Result<&Job, Error> {
        let known = self.job(job)?;
        match known.status {
            status if status.is_over() => Err(Error::JobOver(job.clone())),
            JobStatus::Suspended => Err(Error::JobSuspended(job.clone())),
            _ => Ok(known),
        }
    }

    fn room_for(&self, name: &SavepointName) -> Result<(), Error> {
        match self.savepoints_of(&name.job).savepoints.len() < SAVEPOINTS_MAX {
            true => Ok(()),
            false => Err(Error::TooManySavepoints(name.job.clone())),
        }
    }
}

async fn take(ledger: Ledger<State>, drivers: Drivers, name: SavepointName) -> Result<Savepoint, Problem> {
    check_name(&name)?;
    let newest = ledger.read(|state| state.savepoints_of(&name.job).savepoints.iter().map(|s| s.checkpoint).max());
    let taken = |state: &State| match name.name.is_empty() {
        true => {
            let of_job = state.savepoints_of(&name.job).savepoints.into_iter();
            of_job.filter(|savepoint| Some(savepoint.checkpoint) > newest).min_by_key(|savepoint| savepoint.checkpoint)
        }
        false => state.savepoint(&name).cloned(),
    };
    let known = ledger.look(|state: &State| match taken(state) {
        Some(savepoint) => Ok(Some(savepoint)),
        None => state.stoppable(&name.job).and_then(|_| state.room_for(&name)).map(|()| None),
    });
    if let Some(savepoint) = known.await? {
        return Ok(savepoint);
    }
    let mut changes = ledger.changes();
    drivers.wish(&name.job, &name.name);
    let wait = async {
        loop {
            if let Some(savepoint) = ledger.read(taken) {
                return Some(savepoint);
            }
            changes.changed().await.ok()?;
        }
    };
    let in_time = tokio::time::timeout(SAVEPOINT_WAIT, wait).await.ok().flatten();
    in_time.ok_or_else(|| Error::SavepointPending(name.job.clone()).into())
}

async fn delete(ledger: Ledger<State>, objects: Objects, name: SavepointName) -> Result<Empty, Problem> {
    let known = ledger.look(|state: &State| match state.savepoint(&name) {
        Some(savepoint) => match state.begins_from(savepoint) {
            Some(job) if *job != name.job => Err(Error::SavepointInUse(job.clone())),
            _ => Ok(Some(savepoint.clone())),
        },
        None => Ok(None),
    });
    let Some(savepoint) = known.await? else { return Ok(Empty {}) };
    ledger.submit(Command::Drop(savepoint_key(&savepoint))).await?;
    // Where the job lives it may begin there still; the next checkpoint removes it with the other old ones.
    if !ledger.read(|state| state.live(&name.job).is_some()) {
        manifest::forget_one(&objects, &savepoint.manifest).await;
    }
    Ok(Empty {})
}

async fn stop(ledger: Ledger<State>, job: JobId, stop: Stop) -> Result<JobDescription, Problem> {
    ledger.submit(Command::Stop(job.clone(), stop.clone())).await?;
    let told = ledger.look(|state: &State| {
        let known = state.job(&job)?;
        let done = match (&known.stop, known.status) {
            (Some(under_way), _) => *under_way == stop,
            (None, JobStatus::Suspended) => matches!(stop, Stop::Suspend(_)),
            (None, JobStatus::Finished) => matches!(stop, Stop::Drain(_)),
            (None, _) => match stop {
                Stop::Rescale(parallelism) => known.graph == rescaled(&known.graph, parallelism),
                Stop::Suspend(_) | Stop::Drain(_) => false,
            },
        };
        match done {
            true => Ok(known.describe()),
            false if known.stop.is_some() => Err(Error::JobStopping(job.clone())),
            false => state.stoppable(&job).map(Job::describe),
        }
    });
    told.await
}

/// The state of a savepoint for another graph: by the uids of operators, wherever they stand in it.
///
/// Errors: `StateWithoutOperator` names what nobody takes over, unless that may be left behind.
fn moved(checkpoint: Checkpoint, graph: &JobGraph, drop_state: bool) -> Result<Checkpoint, Error> {
    let place = |vertex: u32| {
        let uid = checkpoint.uids.get(&vertex)?;
        (0u32..).zip(&graph.vertices).find(|(_, v)| v.uid == *uid).map(|(place, _)| place)
    };
    let mut left: BTreeMap<u32, String> = BTreeMap::new();
    let mut parts = Vec::with_capacity(checkpoint.parts.len());
    for (task, part) in &checkpoint.parts {
        match place(task.vertex) {
            Some(vertex) => parts.push((flow::TaskId { vertex, ..*task }, part.clone())),
            None => {
                let uid = checkpoint.uids.get(&task.vertex).map_or("without a uid", |uid| uid.0.as_str());
                left.insert(task.vertex, format!("{uid} (vertex {})", task.vertex));
            }
        }
    }
    if !left.is_empty() && !drop_state {
        let left: Vec<String> = left.into_values().collect();
        return Err(Error::StateWithoutOperator(left.join(", ")));
    }
    let cuts = checkpoint.cuts.iter().filter_map(|(vertex, cut)| Some((place(*vertex)?, cut.clone()))).collect();
    let uids = (0u32..).zip(&graph.vertices).map(|(number, vertex)| (number, vertex.uid.clone())).collect();
    // The new job counts its checkpoints from the beginning.
    Ok(Checkpoint { number: 0, parts, cuts, uids, ..checkpoint })
}

/// The state with which a job begins that names a savepoint.
pub(crate) async fn restored(
    ledger: &Ledger<State>,
    objects: &Objects,
    restore: &RestoreFrom,
    graph: &JobGraph,
) -> Result<Checkpoint, Problem> {
    let name = &restore.savepoint;
    let unknown = || Error::UnknownSavepoint(name.clone());
    let savepoint = ledger.look(|state: &State| state.savepoint(name).cloned().ok_or_else(unknown)).await?;
    let checkpoint = manifest::load(objects, &savepoint.manifest).await?;
    Ok(moved(checkpoint, graph, restore.drop_state)?)
}

impl Handler<Incoming<TakeSavepoint>> for Desk {
    type Result = ResponseFuture<Result<Savepoint, Problem>>;

    fn handle(&mut self, incoming: Incoming<TakeSavepoint>, _: &mut Context<Self>) -> Self::Result {
        Box::pin(take(self.ledger.clone(), self.drivers.clone(), incoming.request.savepoint))
    }
}

impl Handler<Incoming<DeleteSavepoint>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: Incoming<DeleteSavepoint>, _: &mut Context<Self>) -> Self::Result {
        Box::pin(delete(self.ledger.clone(), self.objects.clone(), incoming.request))
    }
}

impl Handler<Incoming<ListSavepoints>> for Desk {
    type Result = ResponseFuture<Result<Savepoints, Problem>>;

    fn handle(&mut self, incoming: Incoming<ListSavepoints>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, job) = (self.ledger.clone(), incoming.request.job);
        Box::pin(async move { ledger.look(|state: &State| Ok::<_, Error>(state.savepoints_of(&job))).await })
    }
}

impl Handler<Incoming<StopJob>> for Desk {
    type Result = ResponseFuture<Result<JobDescription, Problem>>;

    fn handle(&mut self, incoming: Incoming<StopJob>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, asked) = (self.ledger.clone(), incoming.request);
        Box::pin(async move {
            let SavepointName { job, name } = asked.savepoint.clone();
            check_name(&asked.savepoint)?;
            ledger.look(|state: &State| state.room_for(&asked.savepoint)).await?;
            stop(ledger, job, if asked.drain { Stop::Drain(name) } else { Stop::Suspend(name) }).await
        })
    }
}

impl Handler<Incoming<RescaleJob>> for Desk {
    type Result = ResponseFuture<Result<JobDescription, Problem>>;

    fn handle(&mut self, incoming: Incoming<RescaleJob>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, asked) = (self.ledger.clone(), incoming.request);
        Box::pin(async move {
            let most = SUBTASKS_MAX.min(u16::try_from(PARALLELISM_MAX).unwrap_or(u16::MAX));
            if asked.parallelism == 0 || asked.parallelism > most {
                return Err(Error::InvalidParallelism(asked.parallelism, most).into());
            }
            let wanted = asked.parallelism;
            let known = ledger.look(|state: &State| {
                let known = state.stoppable(&asked.job)?;
                let graph = rescaled(&known.graph, wanted);
                graph.validate()?;
                movable(&known.graph, &graph)?;
                let is_so = known.stop.is_none() && graph == known.graph;
                Ok::<_, Error>(is_so.then(|| known.describe()))
            });
            match known.await? {
                Some(described) => Ok(described),
                None => stop(ledger, asked.job, Stop::Rescale(wanted)).await,
            }
        })
    }
}

/// Refuses what no worker could cut: the state of a window as the planner makes it is one block of each subtask.
fn movable(from: &JobGraph, to: &JobGraph) -> Result<(), Error> {
    let whole = |vertex: &Vertex| vertex.operators.iter().any(|o| matches!(o, OperatorSpec::WindowAggregate(_)));
    let mut pairs = from.vertices.iter().zip(&to.vertices);
    match pairs.any(|(old, new)| whole(old) && old.parallelism != new.parallelism) {
        true => Err(Error::NotBuilt("another parallelism of windows with keys; cancel the job and submit it anew")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use flow::{TaskId, Uid};
    use wire::job_manager::{JobOptions, NewJob, PartRef, StartAt};

    use super::*;

    fn graph(window: &str) -> JobGraph {
        let text = format!(
            "INSERT INTO sums SELECT service, window_start, count(*) AS n \
             FROM tumble(shop, INTERVAL '{window} seconds') GROUP BY service, window_start"
        );
        let (job, start, options) = ("a".parse().unwrap(), StartAt::Earliest, JobOptions::default());
        let new = NewJob { job, text, sink: None, start, parallelism: 2, early: None, options };
        crate::plan::plan(&new, 2).unwrap().graph
    }

    #[test]
    fn state_finds_its_operator_by_uid_and_what_finds_none_is_named() {
        let old = graph("10");
        let part = |vertex| (TaskId { vertex, subtask: 0 }, PartRef { key: "k".into(), bytes: 1, crc32c: 2 });
        let uids: BTreeMap<u32, Uid> = (0u32..).zip(&old.vertices).map(|(n, v)| (n, v.uid.clone())).collect();
        let checkpoint = Checkpoint { number: 7, parts: vec![part(0), part(1)], uids, ..Checkpoint::default() };
        let same = moved(checkpoint.clone(), &old, false).unwrap();
        assert_eq!((same.number, same.parts), (0, vec![part(0), part(1)]));
        // The same vertices in another order.
        let mut turned = old.clone();
        turned.vertices.reverse();
        let vertices: Vec<u32> =
            moved(checkpoint.clone(), &turned, false).unwrap().parts.iter().map(|(task, _)| task.vertex).collect();
        assert_eq!(vertices, [1, 0]);
        let mut edited = old.clone();
        edited.vertices[1].uid = Uid("another".into());
        let refused = moved(checkpoint.clone(), &edited, false).unwrap_err().to_string();
        assert!(refused.contains(&old.vertices[1].uid.0) && refused.contains("vertex 1"), "{refused}");
        assert_eq!(moved(checkpoint, &edited, true).unwrap().parts, [part(0)]);
    }

    #[test]
    fn names_are_short_and_plain() {
        let name = |name: &str| SavepointName { job: "a".parse().unwrap(), name: name.into() };
        for good in ["", "before-2", &"x".repeat(64)] {
            check_name(&name(good)).unwrap();
        }
        for bad in ["A", "a/b", "a b", &"x".repeat(65)] {
            assert!(check_name(&name(bad)).is_err(), "{bad}");
        }
    }
}
