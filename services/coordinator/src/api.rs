//! The coordinator's doors.

use actix::Addr;
use bus::{BusError, Door, Doors};
use wire::coordinator::{
    AbortTransaction, BeginTransaction, CommitTransaction, CreateGroup, CreateScope, CreateStream, DeleteGroup,
    DeleteItem, DeleteScope, DeleteStream, DescribeGroup, DescribeIndexKeys, DescribeItem, DescribePlacement,
    DescribeStream, DescribeTransaction, GrantDelegation, ListEpochs, ListGroups, ListItems, ListScopes, ListSegments,
    ListStreams, ListSuccessors, ListTransactions, PingTransaction, PutItem, ReportConsumed, ReserveStream,
    ReserveUpload, ResetGroup, RestoreStream, RotateIndexKey, ScaleStream, SealStream, TruncateStream, UpdateStream,
};

use crate::actor::Desk;

/// Opens every door; they close when the answer is dropped.
pub(crate) async fn open(doors: &Doors, desk: &Addr<Desk>) -> Result<Vec<Door>, BusError> {
    Ok(vec![
        doors.open::<CreateStream>(None, desk.clone().recipient()).await?,
        doors.open::<DescribeStream>(None, desk.clone().recipient()).await?,
        doors.open::<ListStreams>(None, desk.clone().recipient()).await?,
        doors.open::<ReserveStream>(None, desk.clone().recipient()).await?,
        doors.open::<RestoreStream>(None, desk.clone().recipient()).await?,
        doors.open::<UpdateStream>(None, desk.clone().recipient()).await?,
        doors.open::<TruncateStream>(None, desk.clone().recipient()).await?,
        doors.open::<SealStream>(None, desk.clone().recipient()).await?,
        doors.open::<DeleteStream>(None, desk.clone().recipient()).await?,
        doors.open::<ScaleStream>(None, desk.clone().recipient()).await?,
        doors.open::<ListSegments>(None, desk.clone().recipient()).await?,
        doors.open::<ListSuccessors>(None, desk.clone().recipient()).await?,
        doors.open::<ListEpochs>(None, desk.clone().recipient()).await?,
        doors.open::<CreateScope>(None, desk.clone().recipient()).await?,
        doors.open::<DeleteScope>(None, desk.clone().recipient()).await?,
        doors.open::<ListScopes>(None, desk.clone().recipient()).await?,
        doors.open::<DescribePlacement>(None, desk.clone().recipient()).await?,
        doors.open::<BeginTransaction>(None, desk.clone().recipient()).await?,
        doors.open::<PingTransaction>(None, desk.clone().recipient()).await?,
        doors.open::<CommitTransaction>(None, desk.clone().recipient()).await?,
        doors.open::<AbortTransaction>(None, desk.clone().recipient()).await?,
        doors.open::<DescribeTransaction>(None, desk.clone().recipient()).await?,
        doors.open::<ListTransactions>(None, desk.clone().recipient()).await?,
        doors.open::<CreateGroup>(None, desk.clone().recipient()).await?,
        doors.open::<ResetGroup>(None, desk.clone().recipient()).await?,
        doors.open::<DescribeGroup>(None, desk.clone().recipient()).await?,
        doors.open::<ListGroups>(None, desk.clone().recipient()).await?,
        doors.open::<DeleteGroup>(None, desk.clone().recipient()).await?,
        doors.open::<ReportConsumed>(None, desk.clone().recipient()).await?,
        doors.open::<ListItems>(None, desk.clone().recipient()).await?,
        doors.open::<DescribeItem>(None, desk.clone().recipient()).await?,
        doors.open::<PutItem>(None, desk.clone().recipient()).await?,
        doors.open::<DeleteItem>(None, desk.clone().recipient()).await?,
        doors.open::<ReserveUpload>(None, desk.clone().recipient()).await?,
        doors.open::<DescribeIndexKeys>(None, desk.clone().recipient()).await?,
        doors.open::<RotateIndexKey>(None, desk.clone().recipient()).await?,
        doors.open::<GrantDelegation>(None, desk.clone().recipient()).await?,
    ])
}
