//! `logboom admin set-aside-snapshots`: the first step after JetStream is lost.

use anyhow::{bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use settings::Common;
use store::{LIST_MAX, Objects, Put};
use types::{Clock, Timestamp};
use wire::Service;

use crate::screen::Screen;
use crate::tools::installation::connect;

/// Where snapshots are.
const SNAPSHOTS: &str = "snap/";
/// Objects moved at the same time.
const MOVED_AT_ONCE: usize = 8;

/// Services that keep a journal.
const JOURNALED: [Service; 5] =
    [Service::Coordinator, Service::Broker, Service::IndexProvisioner, Service::JobManager, Service::Alerter];

/// Moves every snapshot below `quarantine/`, so that services begin without what is lost.
///
/// Refuses where a journal has entries: then nothing is lost, and a state without its snapshots would be. And where no nats-server
/// answers, unless the caller knows that its storage is gone.
pub(super) async fn set_aside(common: Common, nats_is_gone: bool, screen: Screen) -> anyhow::Result<()> {
    let objects = Objects::open_trusting(&common.object_store(), host::tls_of(&common)?.outward())?;
    let replicas = common.journal_replicas;
    match connect(common).await {
        Ok(host) => {
            for service in JOURNALED {
                let last = host.bus.journal(service, replicas).await?.last_seq().await?;
                ensure!(
                    last == 0,
                    "the journal of {service} has {last} entries: JetStream is not lost, and without snapshots its state would be"
                );
            }
        }
        Err(_) if nats_is_gone => {}
        Err(error) => {
            return Err(error.context(
                "what cannot be reached may still be there: start nats-server with its new, empty storage, or, if its storage is gone for good, add --nats-is-gone",
            ));
        }
    }
    let target = format!("quarantine/snap-{}/", bus::SystemClock.now().since(Timestamp::default()).as_secs());
    let mut moved = 0;
    loop {
        let listed = objects.list(SNAPSHOTS, LIST_MAX).await?;
        if listed.is_empty() {
            break;
        }
        let moves = listed.iter().map(|object| {
            let (objects, target) = (&objects, &target);
            async move { aside(objects, &object.key, &format!("{target}{}", object.key)).await }
        });
        stream::iter(moves).buffer_unordered(MOVED_AT_ONCE).try_collect::<()>().await?;
        moved += listed.len();
    }
    if screen.is_json() {
        screen.value(&json!({ "moved": moved, "to": target }));
    } else {
        screen.line(format_args!("{moved} objects of snapshots moved to {target}"));
    }
    Ok(())
}

/// Copies first and deletes then.
async fn aside(objects: &Objects, key: &str, to: &str) -> anyhow::Result<()> {
    let bytes = objects.get(key).await?;
    if objects.put_if_absent(to, bytes.clone()).await? == Put::Exists && objects.get(to).await? != bytes {
        bail!("{to} is taken by another object: move that one first");
    }
    Ok(objects.delete(key).await?)
}
