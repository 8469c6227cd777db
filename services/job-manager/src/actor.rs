//! The actor that answers the job manager's calls, one handler per call.

use actix::{Actor, Context, Handler, ResponseFuture};
use bus::Incoming;
use client::Client;
use host::Ledger;
use types::JobId;
use wire::{
    Empty, Problem,
    job_manager::{
        CancelJob, DescribeJob, JobDescription, JobList, ListJobs, NewJob, ReportCheckpoint, ReportTask, StartAt,
        SubmitJob,
    },
};

use crate::{
    driver::Report,
    error::Error,
    lead::Drivers,
    plan,
    state::{Command, PlannedJob, State},
};

/// Subtasks of a job that does not say how many.
const PARALLELISM_DEFAULT: u16 = 2;

/// Answers calls while this replica leads; its doors are closed otherwise.
pub(crate) struct Desk {
    pub(crate) ledger: Ledger<State>,
    pub(crate) client: Client,
    pub(crate) drivers: Drivers,
}

impl Actor for Desk {
    type Context = Context<Self>;
}

async fn describe(ledger: &Ledger<State>, job: &JobId) -> Result<JobDescription, Problem> {
    let look = |state: &State| {
        state.jobs.get(job).map(crate::state::Job::describe).ok_or_else(|| Error::UnknownJob(job.clone()))
    };
    ledger.look(look).await
}

/// Plans a job and finds where it begins; what the journal then holds never changes again.
async fn submit(
    ledger: Ledger<State>,
    client: Client,
    drivers: Drivers,
    new: NewJob,
) -> Result<JobDescription, Problem> {
    let known = ledger.read(|state| state.live(&new.job).is_some());
    let job = new.job.clone();
    let wanted = if new.parallelism == 0 { PARALLELISM_DEFAULT } else { new.parallelism };
    // Planned first with one subtask, only to learn what is read: a refusal costs no look-up.
    let source = plan::plan(&new, 1)?.source;
    let stream = client.stream(&source).await?;
    let segments = u16::try_from(stream.segments.len()).unwrap_or(u16::MAX);
    let plan = plan::plan(&new, wanted.min(segments.max(1)))?;
    if let wire::job_manager::Sink::Index(index) = &plan.sink {
        client.stream(index).await?;
    }
    let start = match &new.start {
        StartAt::Latest if !known => client.tails(&source).await?,
        // Its segments are exactly those that the job reads first.
        StartAt::Cut(cut) => client.check_cut(&source, cut).await.map(|()| cut.clone())?,
        StartAt::Earliest | StartAt::Latest => client.heads(&source).await?,
    };
    ledger.submit(Command::Submit(Box::new((new, PlannedJob { plan, start })))).await?;
    drivers.look();
    describe(&ledger, &job).await
}

impl Handler<Incoming<SubmitJob>> for Desk {
    type Result = ResponseFuture<Result<JobDescription, Problem>>;

    fn handle(&mut self, incoming: Incoming<SubmitJob>, _: &mut Context<Self>) -> Self::Result {
        Box::pin(submit(self.ledger.clone(), self.client.clone(), self.drivers.clone(), incoming.request))
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
