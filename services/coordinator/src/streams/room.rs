//! How many streams a scope may hold: what the plans of its service instances say.

use futures::{StreamExt, TryStreamExt, stream};
use types::{IndexName, ScopeName};
use wire::{Problem, coordinator::NewStream, views::Quota};

use super::Streams;
use crate::state::{Command, Stream, is_of_instance};

/// Quotas that are read at the same time.
const QUOTAS_AT_ONCE: usize = 16;

impl Streams {
    /// The command that creates a stream. That of a service instance is always let in, for it is what the instance is; any other
    /// must find room in its scope.
    pub(super) async fn creation(&self, new: NewStream) -> Result<Command, Problem> {
        let room = if is_of_instance(&new.tags) { None } else { self.room(&new.scope).await? };
        Ok(match room {
            Some(most) => Command::BeginStreamBeside { new, most },
            None => Command::BeginStream(new),
        })
    }

    /// Streams that the scope may hold; `None` is no limit.
    async fn room(&self, scope: &ScopeName) -> Result<Option<u64>, Problem> {
        let instances: Vec<IndexName> = self.ledger.read(|state| {
            let of_instances = state.streams_in(scope).filter(|stream| is_of_instance(&stream.summary().tags));
            of_instances.map(Stream::summary).map(|stream| stream.index.clone()).collect()
        });
        let quota = |index: IndexName| async move {
            let entry = self.quotas.get(index.as_str()).await?;
            let quota = entry.map(|entry| wire::decode::<Quota>(&entry.value)).transpose()?;
            Ok::<Option<u32>, Problem>(quota.unwrap_or_default().streams)
        };
        let quotas: Vec<Option<u32>> =
            stream::iter(instances).map(quota).buffer_unordered(QUOTAS_AT_ONCE).try_collect().await?;
        Ok(together(&quotas))
    }
}

/// What the instances of a scope bring together: without an instance, or with one that has no limit, there is none.
fn together(quotas: &[Option<u32>]) -> Option<u64> {
    let sum: Option<u64> = quotas.iter().map(|quota| quota.map(u64::from)).sum();
    sum.filter(|_| !quotas.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instance_brings_room_and_one_without_a_limit_brings_all() {
        for (quotas, most) in [
            (&[][..], None),
            (&[Some(3)], Some(3)),
            (&[Some(3), Some(1)], Some(4)),
            (&[Some(3), None], None),
            (&[Some(u32::MAX), Some(u32::MAX)], Some(2 * u64::from(u32::MAX))),
        ] {
            assert_eq!(together(quotas), most, "{quotas:?}");
        }
    }
}
