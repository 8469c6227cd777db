//! Doors of one owned container: translation only.

use std::future::Future;

use bus::{BusError, Door, Doors, Incoming};
use wire::{
    Call, Empty,
    segment_store::{
        AdoptSegment, AppendEvents, CreateSegment, DeleteSegment, DescribeContainer, DescribeRows, DescribeSegment,
        DescribeWriter, DescribeWriters, FlushContainer, ListContainerSegments, ListGarbage, MergeSegment,
        QuarantineObjects, ReadFragment, ReadSegment, RunFragment, SealSegment, TruncateSegment,
    },
};

use crate::{
    container::{
        Container,
        adopt::Keeper,
        outside::{Lender, Outside},
        seeds::Peers,
    },
    error::Error,
    queries::Queries,
};

/// Opens every door of a container; closed in reverse by [`close`].
pub(crate) async fn open(
    doors: &Doors,
    container: &Container,
    peers: &Peers,
    keeper: &Keeper,
    (outside, queries): (&Outside, &Queries),
) -> Result<Vec<Door>, BusError> {
    let mut open = looks(doors, container, &outside.lender).await?;
    open.extend(fragments(doors, container, queries).await?);
    open.extend(care(doors, container, keeper).await?);
    open.extend(changes(doors, container, peers).await?);
    let quotas = outside.quotas.clone();
    let append = move |c: Container, i: Incoming<AppendEvents>| {
        // What the platform itself writes was let in by another door, or is its own.
        let quotas = i.bearer.is_some().then(|| quotas.clone());
        async move {
            match quotas {
                Some(quotas) => c.append_outside(i.request, &quotas, i.origin.deadline).await,
                None => c.append(i.request, i.origin.deadline).await,
            }
        }
    };
    open.push(serve(doors, container, append).await?);
    Ok(open)
}

/// What changes nothing.
async fn looks(doors: &Doors, container: &Container, lender: &Lender) -> Result<Vec<Door>, BusError> {
    let mut open = Vec::new();
    let describe = |c: Container, i: Incoming<DescribeSegment>| async move { c.describe(i.request.segment) };
    open.push(serve(doors, container, describe).await?);
    let writer =
        |c: Container, i: Incoming<DescribeWriter>| async move { c.writer(i.request.segment, &i.request.writer) };
    open.push(serve(doors, container, writer).await?);
    let writers = |c: Container, i: Incoming<DescribeWriters>| async move {
        c.final_writers(i.request.segment)?.ok_or(Error::NotSealed(i.request.segment))
    };
    open.push(serve(doors, container, writers).await?);
    let inspect = |c: Container, _: Incoming<DescribeContainer>| async move { c.inspect() };
    open.push(serve(doors, container, inspect).await?);
    let list = |c: Container, i: Incoming<ListContainerSegments>| async move { c.list(i.request) };
    open.push(serve(doors, container, list).await?);
    let lender = lender.clone();
    let read = move |c: Container, i: Incoming<ReadSegment>| {
        // Whoever stands outside the platform has no object storage.
        let lender = i.bearer.is_some().then(|| lender.clone());
        async move {
            match lender {
                Some(lender) => c.read_inline(i.request, &lender, i.origin.deadline).await,
                None => c.read(i.request).await,
            }
        }
    };
    open.push(serve(doors, container, read).await?);
    Ok(open)
}

/// Parts of queries: of all containers of this replica, whichever is asked.
async fn fragments(doors: &Doors, container: &Container, queries: &Queries) -> Result<Vec<Door>, BusError> {
    let mut open = Vec::new();
    let all = queries.clone();
    let describe = move |_: Container, i: Incoming<DescribeRows>| {
        let queries = all.clone();
        async move { queries.describe(i.request).await }
    };
    open.push(serve(doors, container, describe).await?);
    let all = queries.clone();
    let run = move |_: Container, i: Incoming<RunFragment>| {
        let queries = all.clone();
        async move { queries.run(i.request).await }
    };
    open.push(serve(doors, container, run).await?);
    let all = queries.clone();
    let part = move |_: Container, i: Incoming<ReadFragment>| {
        let queries = all.clone();
        async move { queries.part(i.request).await }
    };
    open.push(serve(doors, container, part).await?);
    Ok(open)
}

/// What changes segments.
async fn changes(doors: &Doors, container: &Container, peers: &Peers) -> Result<Vec<Door>, BusError> {
    let mut open = Vec::new();
    let peers = peers.clone();
    let create = move |c: Container, i: Incoming<CreateSegment>| {
        let peers = peers.clone();
        async move { c.create(i.request, &peers, i.origin.deadline).await.map(|()| Empty {}) }
    };
    open.push(serve(doors, container, create).await?);
    let seal =
        |c: Container, i: Incoming<SealSegment>| async move { c.seal(i.request.segment, i.origin.deadline).await };
    open.push(serve(doors, container, seal).await?);
    let truncate =
        |c: Container, i: Incoming<TruncateSegment>| async move { c.truncate(i.request, i.origin.deadline).await };
    open.push(serve(doors, container, truncate).await?);
    let merge = |c: Container, i: Incoming<MergeSegment>| async move { c.merge(i.request, i.origin.deadline).await };
    open.push(serve(doors, container, merge).await?);
    let delete = |c: Container, i: Incoming<DeleteSegment>| async move {
        c.delete(i.request.segment, i.origin.deadline).await.map(|()| Empty {})
    };
    open.push(serve(doors, container, delete).await?);
    let flush = |c: Container, i: Incoming<FlushContainer>| async move {
        let wanted = c.flush()?;
        c.flushed(wanted, i.origin.deadline).await
    };
    open.push(serve(doors, container, flush).await?);
    Ok(open)
}

/// What restore and repair ask for.
async fn care(doors: &Doors, container: &Container, keeper: &Keeper) -> Result<Vec<Door>, BusError> {
    let mut open = Vec::new();
    let garbage = |c: Container, i: Incoming<ListGarbage>| async move { c.garbage(&i.request) };
    open.push(serve(doors, container, garbage).await?);
    let adopting = keeper.clone();
    let adopt = move |_: Container, i: Incoming<AdoptSegment>| {
        let keeper = adopting.clone();
        async move { keeper.adopt(i.request, i.origin.deadline).await }
    };
    open.push(serve(doors, container, adopt).await?);
    let moving = keeper.clone();
    let quarantine = move |_: Container, i: Incoming<QuarantineObjects>| {
        let keeper = moving.clone();
        async move { keeper.quarantine(i.request, i.origin.deadline).await }
    };
    open.push(serve(doors, container, quarantine).await?);
    Ok(open)
}

/// Closes doors, the last opened first: appends end before reads.
pub(crate) async fn close(doors: Vec<Door>) {
    for door in doors.into_iter().rev() {
        door.close().await;
    }
}

async fn serve<C, F, Fut>(doors: &Doors, container: &Container, answer: F) -> Result<Door, BusError>
where
    C: Call<Key = types::ContainerId>,
    F: Fn(Container, Incoming<C>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Reply, Error>> + Send + 'static,
{
    let key = container.id;
    let container = container.clone();
    let handler = move |incoming: Incoming<C>| {
        let passes = container.fence.admit(incoming.leader);
        let (container, answering) = (container.clone(), answer(container.clone(), incoming));
        async move {
            passes?;
            let answer = answering.await;
            container.sure(answer).await.map_err(Into::into)
        }
    };
    doors.serve::<C, _, _>(Some(&key), handler).await
}
