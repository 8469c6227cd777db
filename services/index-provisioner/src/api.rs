//! The provisioner's doors.

use actix::Addr;
use bus::{Bus, BusError, Door, Doors};
use types::ReplicaId;
use wire::{
    Service,
    index_provisioner::{
        CreateIndex, DeleteIndex, IssueCredentials, ListBindings, ListIndexes, RevokeCredentials, UpdateIndex,
    },
};

use crate::actor::Desk;

/// Opens every door; they close when the answer is dropped.
pub(crate) async fn open(bus: &Bus, replica: &ReplicaId, desk: &Addr<Desk>) -> Result<Vec<Door>, BusError> {
    let doors = Doors::new(bus, Service::IndexProvisioner, replica);
    Ok(vec![
        doors.open::<CreateIndex>(None, desk.clone().recipient()).await?,
        doors.open::<UpdateIndex>(None, desk.clone().recipient()).await?,
        doors.open::<DeleteIndex>(None, desk.clone().recipient()).await?,
        doors.open::<ListIndexes>(None, desk.clone().recipient()).await?,
        doors.open::<IssueCredentials>(None, desk.clone().recipient()).await?,
        doors.open::<RevokeCredentials>(None, desk.clone().recipient()).await?,
        doors.open::<ListBindings>(None, desk.clone().recipient()).await?,
    ])
}
