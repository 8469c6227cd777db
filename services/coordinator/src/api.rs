//! The coordinator's doors.

use actix::Addr;
use bus::{Bus, BusError, Door, Doors};
use types::ReplicaId;
use wire::{
    Service,
    coordinator::{CreateStream, DeleteStream, DescribePlacement, DescribeStream, ListStreams},
};

use crate::actor::Desk;

/// Opens every door; they close when the answer is dropped.
pub(crate) async fn open(bus: &Bus, replica: &ReplicaId, desk: &Addr<Desk>) -> Result<Vec<Door>, BusError> {
    let doors = Doors::new(bus, Service::Coordinator, replica);
    Ok(vec![
        doors.open::<CreateStream>(None, desk.clone().recipient()).await?,
        doors.open::<DescribeStream>(None, desk.clone().recipient()).await?,
        doors.open::<ListStreams>(None, desk.clone().recipient()).await?,
        doors.open::<DeleteStream>(None, desk.clone().recipient()).await?,
        doors.open::<DescribePlacement>(None, desk.clone().recipient()).await?,
    ])
}
