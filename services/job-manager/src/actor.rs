//! The actor that answers the job manager's calls, one handler per call.

use std::collections::BTreeMap;

use actix::{Actor, Context, Handler, ResponseFuture};
use bus::Incoming;
use client::Client;
use host::Ledger;
use store::Objects;
use types::JobId;
use wire::{
    Empty, Problem,
    job_manager::{
        CancelJob, CheckpointHistory, DescribeJob, ExplainJob, JobDescription, JobExceptions, JobList, JobPlan,
        ListJobs, NewJob, ReportCheckpoint, ReportTask, ShowCheckpoints, ShowExceptions, ShowPlan, StartAt, SubmitJob,
    },
};

use crate::{
    driver::Report,
    job::{described, indexes_read},
    lead::Drivers,
    plan, restart, savepoints,
    state::{Command, Job, PlannedJob, State},
};

/// Subtasks of a job that does not say how many.
const PARALLELISM_DEFAULT: u16 = 2;

/// Answers calls while this replica leads; its doors are closed otherwise.
pub(crate) struct Desk {
    pub(crate) ledger: Ledger<State>,
    pub(crate) client: Client,
    pub(crate) drivers: Drivers,
    /// Where savepoints lie.
    pub(crate) objects: Objects,
}

impl Actor for Desk {
    type Context = Context<Self>;
}

async fn describe(ledger: &Ledger<State>, job: &JobId) -> Result<JobDescription, Problem> {
    ledger.look(|state: &State| state.job(job).map(Job::describe)).await
}

/// Plans a job and finds where it begins; what the journal then holds never changes again.
async fn submit(
    ledger: Ledger<State>,
    client: Client,
    drivers: Drivers,
    objects: Objects,
    new: NewJob,
) -> Result<JobDescription, Problem> {
    restart::check(&new.options.restart)?;
    let known = ledger.read(|state| state.live(&new.job).is_some());
    let job = new.job.clone();
    let wanted = if new.parallelism == 0 { PARALLELISM_DEFAULT } else { new.parallelism };
    // Planned first with one subtask, only to learn what is read: a refusal costs no look-up.
    let source = plan::plan(&new, 1)?.source;
    let segments = match &source {
        Some(source) => u16::try_from(client.stream(source).await?.segments.len()).unwrap_or(u16::MAX).max(1),
        None => wanted,
    };
    // Who asks for more subtasks than there are segments wants them for the windows.
    let plan = plan::plan(&new, if new.parallelism == 0 { wanted.min(segments) } else { wanted })?;
    let sink = match &plan.sink {
        wire::job_manager::Sink::Index(index) => Some(index),
        _ => None,
    };
    for index in sink.into_iter().chain(&plan.also) {
        client.stream(index).await?;
    }
    let restored = match &new.options.restore {
        Some(restore) => Some(savepoints::restored(&ledger, &objects, restore, &plan.graph).await?),
        None => None,
    };
    let mut starts = BTreeMap::new();
    for (vertex, index) in indexes_read(&plan.graph) {
        let start = match &new.start {
            StartAt::Latest if !known => client.tails(&index).await?,
            // Its segments are exactly those that the job reads first.
            StartAt::Cut(cut) => client.check_cut(&index, cut).await.map(|()| cut.clone())?,
            StartAt::Earliest | StartAt::Latest => client.heads(&index).await?,
        };
        starts.insert(vertex, start);
    }
    let start = starts.values().next().cloned().unwrap_or_default();
    if starts.len() < 2 {
        starts.clear();
    }
    ledger.submit(Command::Submit(Box::new((new, PlannedJob { plan, start, starts, restored })))).await?;
    drivers.look();
    describe(&ledger, &job).await
}

impl Handler<Incoming<SubmitJob>> for Desk {
    type Result = ResponseFuture<Result<JobDescription, Problem>>;

    fn handle(&mut self, incoming: Incoming<SubmitJob>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, drivers) = (self.ledger.clone(), self.drivers.clone());
        Box::pin(submit(ledger, self.client.clone(), drivers, self.objects.clone(), incoming.request))
    }
}

impl Handler<Incoming<CancelJob>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: Incoming<CancelJob>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, drivers) = (self.ledger.clone(), self.drivers.clone());
        Box::pin(async move {
            ledger.submit(Command::Cancel(incoming.request.job)).await?;
            drivers.look();
            Ok(Empty {})
        })
    }
}

impl Handler<Incoming<DescribeJob>> for Desk {
    type Result = ResponseFuture<Result<JobDescription, Problem>>;

    fn handle(&mut self, incoming: Incoming<DescribeJob>, _: &mut Context<Self>) -> Self::Result {
        let ledger = self.ledger.clone();
        Box::pin(async move { describe(&ledger, &incoming.request.job).await })
    }
}

impl Handler<Incoming<ListJobs>> for Desk {
    type Result = ResponseFuture<Result<JobList, Problem>>;

    fn handle(&mut self, incoming: Incoming<ListJobs>, _: &mut Context<Self>) -> Self::Result {
        let ledger = self.ledger.clone();
        Box::pin(async move {
            ledger.whole().await?;
            ledger.read(|state| state.page(&incoming.request))
        })
    }
}

impl Handler<Incoming<ShowCheckpoints>> for Desk {
    type Result = ResponseFuture<Result<CheckpointHistory, Problem>>;

    fn handle(&mut self, incoming: Incoming<ShowCheckpoints>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, board, job) =
            (self.ledger.clone(), self.drivers.board(&incoming.request.job), incoming.request.job);
        Box::pin(async move { ledger.look(|state: &State| state.checkpoints(&job, &board)).await })
    }
}

impl Handler<Incoming<ShowExceptions>> for Desk {
    type Result = ResponseFuture<Result<JobExceptions, Problem>>;

    fn handle(&mut self, incoming: Incoming<ShowExceptions>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, job) = (self.ledger.clone(), incoming.request.job);
        Box::pin(async move { ledger.look(|state: &State| state.job(&job).map(|job| job.history.exceptions())).await })
    }
}

impl Handler<Incoming<ShowPlan>> for Desk {
    type Result = ResponseFuture<Result<JobPlan, Problem>>;

    fn handle(&mut self, incoming: Incoming<ShowPlan>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, job) = (self.ledger.clone(), incoming.request.job);
        Box::pin(async move { ledger.look(|state: &State| state.job(&job).and_then(Job::plan)).await })
    }
}

impl Handler<Incoming<ExplainJob>> for Desk {
    type Result = Result<JobPlan, Problem>;

    fn handle(&mut self, incoming: Incoming<ExplainJob>, _: &mut Context<Self>) -> Self::Result {
        let new = incoming.request;
        let wanted = if new.parallelism == 0 { PARALLELISM_DEFAULT } else { new.parallelism };
        Ok(described(&plan::plan(&new, wanted)?.graph)?)
    }
}

impl Handler<Incoming<ReportTask>> for Desk {
    type Result = Result<Empty, Problem>;

    fn handle(&mut self, incoming: Incoming<ReportTask>, _: &mut Context<Self>) -> Self::Result {
        let job = incoming.request.job.clone();
        self.drivers.tell(&job, Report::Task(incoming.request))
    }
}

impl Handler<Incoming<ReportCheckpoint>> for Desk {
    type Result = Result<Empty, Problem>;

    fn handle(&mut self, incoming: Incoming<ReportCheckpoint>, _: &mut Context<Self>) -> Self::Result {
        let job = incoming.request.job.clone();
        self.drivers.tell(&job, Report::Checkpoint(incoming.request))
    }
}
