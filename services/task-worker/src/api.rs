//! The doors: orders to this replica.

use bus::{BusError, Door, Doors};
use host::Host;
use wire::{
    Service,
    task_worker::{CancelTasks, CommitCheckpoint, DeployTasks, ReadState, TriggerCheckpoint},
};

use crate::worker::Worker;

/// Opens the doors of this replica; they are open as long as both parts of the answer live.
pub(crate) async fn open(host: &Host, worker: &Worker) -> Result<(Doors, [Door; 5]), BusError> {
    let doors = Doors::new(&host.bus, Service::TaskWorker, &host.replica);
    let (deploy, cancel, trigger, commit) = (worker.clone(), worker.clone(), worker.clone(), worker.clone());
    let open = [
        doors
            .serve::<DeployTasks, _, _>(Some(&host.replica), move |incoming| {
                let worker = deploy.clone();
                async move { worker.deploy(incoming.request).await }
            })
            .await?,
        doors
            .serve::<CancelTasks, _, _>(Some(&host.replica), move |incoming| {
                let worker = cancel.clone();
                async move { worker.cancel(incoming.request).await }
            })
            .await?,
        doors
            .serve::<TriggerCheckpoint, _, _>(Some(&host.replica), move |incoming| {
                let worker = trigger.clone();
                async move { worker.trigger(incoming.request).await }
            })
            .await?,
        doors
            .serve::<CommitCheckpoint, _, _>(Some(&host.replica), move |incoming| {
                let worker = commit.clone();
                async move { worker.commit(incoming.request).await }
            })
            .await?,
        doors
            .serve::<ReadState, _, _>(Some(&host.replica), move |incoming| {
                let answer = Worker::state(&incoming.request);
                async move { answer }
            })
            .await?,
    ];
    Ok((doors, open))
}
