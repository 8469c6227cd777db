//! Doors of one owned container: translation only.

use std::future::Future;

use bus::{BusError, Door, Doors, Incoming};
use wire::{
    Call, Empty,
    segment_store::{
        AppendEvents, CreateSegment, DeleteSegment, DescribeContainer, DescribeSegment, DescribeWriter,
        DescribeWriters, FlushContainer, ListContainerSegments, MergeSegment, ReadSegment, SealSegment,
        TruncateSegment,
    },
};

use crate::{
    container::{Container, seeds::Peers},
    error::Error,
};

/// Opens every door of a container; closed in reverse by [`close`].
pub(crate) async fn open(doors: &Doors, container: &Container, peers: &Peers) -> Result<Vec<Door>, BusError> {
    let mut open = looks(doors, container).await?;
    open.extend(changes(doors, container, peers).await?);
    let append = |c: Container, i: Incoming<AppendEvents>| async move { c.append(i.request, i.origin.deadline).await };
    open.push(serve(doors, container, append).await?);
    Ok(open)
}

/// What changes nothing.
async fn looks(doors: &Doors, container: &Container) -> Result<Vec<Door>, BusError> {
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
    let read = |c: Container, i: Incoming<ReadSegment>| async move { c.read(i.request).await };
    open.push(serve(doors, container, read).await?);
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
    let handler = move |incoming| {
        let (container, answering) = (container.clone(), answer(container.clone(), incoming));
        async move {
            match answering.await {
                Ok(reply) => Ok(reply),
                Err(error) => Err(container.sure(error).await.into()),
            }
        }
    };
    doors.serve::<C, _, _>(Some(&key), handler).await
}
