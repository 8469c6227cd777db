//! Doors of one owned container: translation only.

use std::future::Future;

use bus::{BusError, Door, Doors, Incoming};
use wire::{
    Call, Empty, Problem,
    segment_store::{
        AppendEvents, CreateSegment, DeleteSegment, DescribeSegment, DescribeWriter, ReadSegment, SealSegment,
    },
};

use crate::{container::Container, error::Error};

/// Opens every door of a container; closed in reverse by [`close`].
pub(crate) async fn open(doors: &Doors, container: &Container) -> Result<Vec<Door>, BusError> {
    let mut open = Vec::new();
    open.push(
        serve::<DescribeSegment, _, _>(doors, container, |c, i| async move { c.describe(i.request.segment) }).await?,
    );
    open.push(
        serve::<DescribeWriter, _, _>(doors, container, |c, i| async move {
            c.writer(i.request.segment, &i.request.writer)
        })
        .await?,
    );
    open.push(serve::<ReadSegment, _, _>(doors, container, |c, i| async move { c.read(i.request).await }).await?);
    open.push(
        serve::<CreateSegment, _, _>(doors, container, |c, i| async move {
            c.create(i.request, i.origin.deadline).await.map(|()| Empty {})
        })
        .await?,
    );
    open.push(
        serve::<SealSegment, _, _>(doors, container, |c, i| async move {
            c.seal(i.request.segment, i.origin.deadline).await
        })
        .await?,
    );
    open.push(
        serve::<DeleteSegment, _, _>(doors, container, |c, i| async move {
            c.delete(i.request.segment, i.origin.deadline).await.map(|()| Empty {})
        })
        .await?,
    );
    open.push(
        serve::<AppendEvents, _, _>(
            doors,
            container,
            |c, i| async move { c.append(i.request, i.origin.deadline).await },
        )
        .await?,
    );
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
        let answering = answer(container.clone(), incoming);
        async move { answering.await.map_err(Problem::from) }
    };
    doors.serve::<C, _, _>(Some(&key), handler).await
}
