//! Saying that one is alive.

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use wire::views::{MEMBERS, Member};

use crate::{Host, StartError};

/// A living entry among the members; it is renewed until this is dropped, and then expires.
#[must_use = "a dropped announcement expires"]
pub struct Announcement {
    host: Host,
    key: String,
    bucket: bus::Bucket,
    renewal: CancellationToken,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Announcement {
    pub(crate) async fn start(host: &Host, member: Member) -> Result<Self, StartError> {
        let ttl = host.common.lease_ttl.0;
        let bucket = host.bus.bucket(MEMBERS, Some(ttl), host.common.journal_replicas).await?;
        let key = format!("{}.{}", member.service, member.replica);
        bucket.put(&key, of_now(host, &member)).await?;
        let renewal = CancellationToken::new();
        let (end, ended) = tokio::sync::oneshot::channel();
        let task = {
            let (host, bucket, key, renewal) = (host.clone(), bucket.clone(), key.clone(), renewal.clone());
            async move {
                renew(&host, &bucket, &key, &member, &renewal).await;
                drop(end);
            }
        };
        // Not among the tasks that a drain waits for: the member lives until the drain is over or it is withdrawn.
        drop(tokio::spawn(task));
        Ok(Self { host: host.clone(), key, bucket, renewal, ended })
    }

    /// Removes the entry at once, so that others need not wait for its expiry.
    pub async fn withdraw(mut self) {
        self.renewal.cancel();
        // The renewal has ended when its sender is gone; a late put would bring the entry back.
        drop((&mut self.ended).await);
        if let Err(error) = self.bucket.delete(&self.key).await {
            tracing::warn!(service = %self.host.service, %error, "member could not be withdrawn; it will expire");
        }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.renewal.cancel();
    }
}

/// The member with what its probes say at this moment.
fn of_now(host: &Host, member: &Member) -> Vec<u8> {
    wire::encode(&Member { unready: host.conditions(), ..member.clone() })
}

async fn renew(host: &Host, bucket: &bus::Bucket, key: &str, member: &Member, until: &CancellationToken) {
    let ttl = host.common.lease_ttl.0;
    let mut ticks = interval(ttl / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = until.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match timeout(ttl / 3, bucket.put(key, of_now(host, member))).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(key, %error, "member could not be renewed"),
            Err(_) => tracing::warn!(key, "member could not be renewed in time"),
        }
    }
}
