//! The actor that answers the coordinator's calls, one handler per call.

use actix::{Actor, Context, Handler, ResponseFuture};
use bus::Incoming;
use host::Ledger;
use wire::{
    Empty, Problem,
    coordinator::{
        CreateScope, CreateStream, DeleteScope, DeleteStream, DescribeIndexKeys, DescribePlacement, DescribeStream,
        EpochPage, GroupList, IndexKeyList, ListEpochs, ListGroups, ListScopes, ListSegments, ListStreams,
        ListSuccessors, ListTransactions, Reservation, ReserveStream, RestoreStream, RotateIndexKey, ScaleStream,
        ScopeList, SealStream, SegmentNodes, StreamDescription, StreamList, TransactionList, TruncateStream,
        UpdateStream,
    },
    views::Placement,
};

use crate::{
    commit::Commits,
    delegation::Grants,
    groups::doors::Readers,
    page,
    state::{Command, State},
    streams::Streams,
};

/// Answers calls while this replica leads; its doors are closed otherwise.
pub(crate) struct Desk {
    pub(crate) ledger: Ledger<State>,
    pub(crate) streams: Streams,
    pub(crate) commits: Commits,
    pub(crate) readers: Readers,
    pub(crate) grants: Grants,
}

impl Actor for Desk {
    type Context = Context<Self>;
}

/// Handlers that hand the request to the work on streams, or to the work that waits for a commit, and wait for its end.
macro_rules! work {
    ($($call:ident -> $reply:ty = |$room:ident, $request:ident| $work:expr;)*) => {$(
        impl Handler<Incoming<$call>> for Desk {
            type Result = ResponseFuture<Result<$reply, Problem>>;

            fn handle(&mut self, incoming: Incoming<$call>, _: &mut Context<Self>) -> Self::Result {
                let ($room, $request) = (self.$room.clone(), incoming.request);
                Box::pin(async move { $work.await })
            }
        }
    )*};
}

/// Handlers that answer from the applied journal: with what is there as it is known here, or, where it is the `whole` state that is
/// asked for, with nothing missing that the journal has.
macro_rules! look {
    ($($(@$whole:ident)? $call:ident -> $reply:ty = |$state:ident, $request:ident| $look:expr;)*) => {$(
        impl Handler<Incoming<$call>> for Desk {
            type Result = ResponseFuture<Result<$reply, Problem>>;

            fn handle(&mut self, incoming: Incoming<$call>, _: &mut Context<Self>) -> Self::Result {
                let ($request, ledger) = (incoming.request, self.ledger.clone());
                Box::pin(async move {
                    $(ledger.$whole().await?;)?
                    ledger.look(|$state| -> Result<$reply, Problem> { Ok($look) }).await
                })
            }
        }
    )*};
}

work! {
    CreateStream -> StreamDescription = |streams, request| streams.create(request);
    ReserveStream -> Reservation = |streams, request| streams.reserve(request);
    RestoreStream -> StreamDescription = |streams, request| streams.restore(request);
    UpdateStream -> StreamDescription = |streams, request| streams.update(request);
    TruncateStream -> StreamDescription = |streams, request| streams.truncate(&request.index, request.cut);
    DeleteStream -> Empty = |streams, request| empty(streams.delete(&request.index));
    DeleteScope -> Empty = |streams, request| empty(streams.delete_scope(request.scope, request.recursive));
    DescribeIndexKeys -> IndexKeyList = |streams, request| streams.describe_keys(&request.index);
    RotateIndexKey -> IndexKeyList = |streams, request| streams.rotate_key(&request.index);
    ScaleStream -> StreamDescription = |commits, request| commits.scale(request);
    SealStream -> StreamDescription = |commits, request| commits.seal(&request.index);
}

look! {
    DescribeStream -> StreamDescription = |state, request| state.describe(&request.index)?;
    ListSegments -> SegmentNodes = |state, request| page::segments(state, &request)?;
    ListEpochs -> EpochPage = |state, request| page::epochs(state, &request)?;
    DescribePlacement -> Placement = |state, _request| state.placement();
    @whole ListStreams -> StreamList = |state, request| page::streams(state, &request)?;
    @whole ListSuccessors -> SegmentNodes = |state, request| {
        let successors = state.live_stream(&request.index)?.graph().successors(request.segment);
        SegmentNodes { segments: successors.into_iter().cloned().collect(), more: false }
    };
    @whole ListScopes -> ScopeList = |state, request| page::scopes(state, &request)?;
    @whole ListTransactions -> TransactionList = |state, request| page::transactions(state, &request)?;
    @whole ListGroups -> GroupList = |state, request| page::groups(state, &request)?;
}

impl Handler<Incoming<CreateScope>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: Incoming<CreateScope>, _: &mut Context<Self>) -> Self::Result {
        let ledger = self.ledger.clone();
        let command = Command::CreateScope { scope: incoming.request.scope };
        Box::pin(async move { ledger.submit(command).await.map(|_| Empty {}) })
    }
}

async fn empty(work: impl Future<Output = Result<(), Problem>>) -> Result<Empty, Problem> {
    work.await.map(|()| Empty {})
}
