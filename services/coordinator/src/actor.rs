//! The actor that answers the coordinator's calls, one handler per call.

use actix::{Actor, Context, Handler, ResponseFuture};
use bus::Incoming;
use host::Ledger;
use types::{IndexName, SegmentId};
use wire::{
    Empty, Problem,
    coordinator::{
        CreateScope, CreateStream, DeleteScope, DeleteStream, DescribePlacement, DescribeStream, EpochPage, ListEpochs,
        ListScopes, ListSegments, ListStreams, ListSuccessors, ScaleStream, ScopeList, SealStream, SegmentNodes,
        StreamDescription, StreamList, StreamsOf, TruncateStream, UpdateStream,
    },
    views::Placement,
};

use crate::{
    commit::Commits,
    error::CoordinatorError,
    groups::doors::Readers,
    state::{Command, State},
    streams::Streams,
};

/// Segments or epochs in one page.
const PAGE_MAX: u32 = 1_000;

/// Neighbours named in one page of segments, which keeps it below 2 MiB; a page has at least one segment.
const PAGE_NEIGHBOURS_MAX: usize = 50_000;

/// Answers calls while this replica leads; its doors are closed otherwise.
pub(crate) struct Desk {
    pub(crate) ledger: Ledger<State>,
    pub(crate) streams: Streams,
    pub(crate) commits: Commits,
    pub(crate) readers: Readers,
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

/// Handlers that answer from the applied journal.
macro_rules! look {
    ($($call:ident -> $reply:ty = |$state:ident, $request:ident| $look:expr;)*) => {$(
        impl Handler<Incoming<$call>> for Desk {
            type Result = Result<$reply, Problem>;

            fn handle(&mut self, incoming: Incoming<$call>, _: &mut Context<Self>) -> Self::Result {
                let $request = incoming.request;
                self.ledger.read(|$state| Ok($look))
            }
        }
    )*};
}

work! {
    CreateStream -> StreamDescription = |streams, request| streams.create(request);
    UpdateStream -> StreamDescription = |streams, request| streams.update(request);
    TruncateStream -> StreamDescription = |streams, request| streams.truncate(&request.index, request.cut);
    DeleteStream -> Empty = |streams, request| empty(streams.delete(&request.index));
    DeleteScope -> Empty = |streams, request| empty(streams.delete_scope(request.scope, request.recursive));
    ScaleStream -> StreamDescription = |commits, request| commits.scale(request);
    SealStream -> StreamDescription = |commits, request| commits.seal(&request.index);
}

look! {
    DescribeStream -> StreamDescription = |state, request| state.describe(&request.index)?;
    ListStreams -> StreamList = |state, request| list_streams(state, &request);
    ListSegments -> SegmentNodes = |state, request| {
        let limit = page(request.limit)?;
        list_segments(state, &request.index, request.after, limit)?
    };
    ListSuccessors -> SegmentNodes = |state, request| {
        let successors = state.live_stream(&request.index)?.graph().successors(request.segment);
        SegmentNodes { segments: successors.into_iter().cloned().collect(), more: false }
    };
    ListEpochs -> EpochPage = |state, request| {
        let limit = page(request.limit)?;
        state.live_stream(&request.index)?.graph().epochs(request.from, limit)
    };
    ListScopes -> ScopeList = |state, _request| ScopeList { scopes: state.scopes().map(|(s, _)| s.clone()).collect() };
    DescribePlacement -> Placement = |state, _request| state.placement();
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

fn page(limit: u32) -> Result<usize, CoordinatorError> {
    let fits = (1..=PAGE_MAX).contains(&limit).then(|| usize::try_from(limit).ok()).flatten();
    fits.ok_or(CoordinatorError::Page { limit, most: PAGE_MAX })
}

fn list_streams(state: &State, wanted: &StreamsOf) -> StreamList {
    let in_scope = |scope| wanted.scope.as_ref().is_none_or(|wanted| wanted == scope);
    let tagged = |tags: &[types::Tag]| wanted.tag.as_ref().is_none_or(|tag| tags.contains(tag));
    let found = state.live().filter(|s| in_scope(&s.summary().scope) && tagged(&s.summary().tags));
    StreamList { streams: found.map(|stream| stream.describe()).collect() }
}

fn list_segments(
    state: &State,
    index: &IndexName,
    after: Option<SegmentId>,
    limit: usize,
) -> Result<SegmentNodes, CoordinatorError> {
    let mut page = SegmentNodes::default();
    let mut neighbours = 0;
    for node in state.live_stream(index)?.graph().nodes(after) {
        neighbours += node.predecessors.len() + node.successors.len();
        if page.segments.len() >= limit || (neighbours > PAGE_NEIGHBOURS_MAX && !page.segments.is_empty()) {
            page.more = true;
            break;
        }
        page.segments.push(node.clone());
    }
    Ok(page)
}
