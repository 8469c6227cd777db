//! Blocks of state: stored once under the name of their content, beside the task, and brought back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use arrow::buffer::Buffer;
use bytes::Bytes;
use flow::{BlockRef, Chain, KeyGroups, OperatorState, StateBlock, StoredBlock};
use futures::{StreamExt, TryStreamExt, stream};
use store::Objects;
use tracing::info;
use types::Timestamp;

use crate::{error::TaskError, name::sha256_hex, part::Part, retry::Pauses, task::Context};

/// Blocks of one task that are on their way at once.
const BLOCKS_AT_ONCE: usize = 4;
/// Tries to fetch a block before the attempt is given up; the next one tries again.
const FETCHES_MAX: u32 = 5;

/// What makes two blocks of one attempt the same without looking into them.
type BlockId = (String, String, KeyGroups, Option<Timestamp>, u64);

/// The blocks of one checkpoint.
type Taken = BTreeMap<BlockId, BlockRef>;

/// Which blocks are stored for sure: those that the last committed checkpoint of this attempt names. Others may be deleted
/// at any time, so they are stored again, though an earlier checkpoint that came to nothing had stored them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(Arc<std::sync::Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Of checkpoints that are not committed yet, as far as this task knows.
    waiting: BTreeMap<u64, Taken>,
    committed: Taken,
    names: BTreeSet<String>,
}

impl Known {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those of the parts from which the task begins.
    fn restored(states: &[OperatorState]) -> Self {
        let known = Self::default();
        known.with(|inner| inner.names = states.iter().flat_map(|s| &s.blocks).map(|b| b.name.clone()).collect());
        known
    }

    /// That checkpoint and all older ones are committed.
    pub(crate) fn committed(&self, checkpoint: u64) {
        self.with(|inner| {
            let later = inner.waiting.split_off(&checkpoint.saturating_add(1));
            let done = std::mem::replace(&mut inner.waiting, later);
            if let Some((_, taken)) = done.into_iter().next_back() {
                inner.names = taken.values().map(|block| block.name.clone()).collect();
                inner.committed = taken;
            }
        });
    }

    fn find(&self, id: &BlockId) -> Option<BlockRef> {
        self.with(|inner| inner.committed.get(id).cloned())
    }

    fn has(&self, name: &str) -> bool {
        self.with(|inner| inner.names.contains(name))
    }

    fn took(&self, checkpoint: u64, taken: Taken) {
        self.with(|inner| inner.waiting.insert(checkpoint, taken));
    }
}

/// What a snapshot became.
#[derive(Debug, Default)]
pub(crate) struct Uploaded {
    pub(crate) state: Vec<OperatorState>,
    /// The keys of all blocks.
    pub(crate) keys: Vec<String>,
    pub(crate) bytes: u64,
    pub(crate) new_bytes: u64,
}

/// Stores what is not stored yet, however long that takes.
pub(crate) async fn upload(
    context: &Context,
    known: &Known,
    checkpoint: u64,
    state: Vec<(String, Vec<StateBlock>)>,
    watermark: Timestamp,
) -> Result<Uploaded, TaskError> {
    let (mut uploaded, mut taken) = (Uploaded::default(), Taken::new());
    for (operator, blocks) in state {
        let all: Vec<_> = blocks.into_iter().map(|block| one(context, known, &operator, block)).collect();
        let all: Vec<(BlockId, BlockRef, u64)> = stream::iter(all).buffered(BLOCKS_AT_ONCE).try_collect().await?;
        let mut refs = Vec::with_capacity(all.len());
        for (id, block, new_bytes) in all {
            uploaded.keys.push(context.submitted.block_key(&block.name));
            uploaded.bytes += block.bytes;
            uploaded.new_bytes += new_bytes;
            refs.push(block.clone());
            taken.insert(id, block);
        }
        uploaded.state.push(OperatorState { operator, watermark, blocks: refs });
    }
    uploaded.keys.sort_unstable();
    uploaded.keys.dedup();
    known.took(checkpoint, taken);
    Ok(uploaded)
}

async fn one(
    context: &Context,
    known: &Known,
    operator: &str,
    block: StateBlock,
) -> Result<(BlockId, BlockRef, u64), TaskError> {
    let StateBlock { table, groups, time, edition, content } = block;
    let id = (operator.to_owned(), table.clone(), groups, time, edition);
    if let Some(block) = known.find(&id) {
        return Ok((id, block, 0));
    }
    // Apart from the threads on which tasks run.
    let (bytes, name) = tokio::task::spawn_blocking(move || {
        let bytes = content.encode()?;
        let name = sha256_hex(&bytes);
        Ok::<_, flow::Error>((Bytes::from(bytes), name))
    })
    .await??;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let stored = known.has(&name);
    if !stored {
        put(context, &context.submitted.block_key(&name), bytes).await;
    }
    Ok((id, BlockRef { table, groups, time, name, bytes: size }, if stored { 0 } else { size }))
}

/// Stores an object; one that is there has the same content, which its key is made of.
async fn put(context: &Context, key: &str, bytes: Bytes) {
    let mut pauses = Pauses::default();
    while let Err(error) = context.shared.objects.put_if_absent(key, bytes.clone()).await {
        info!(task = %context.label, key, %error, "block not stored; it will be repeated");
        tokio::time::sleep(pauses.next()).await;
    }
}

/// Gives the chain its state back, and says which blocks are stored.
///
/// State that is cut by key comes from every part that has some of the task's key groups. Other state has no owner by key,
/// so that of an old subtask goes to the one with its number, counted round.
pub(crate) async fn restore(
    context: &Context,
    chain: &mut Chain,
    parts: &[Part],
    groups: Option<KeyGroups>,
) -> Result<Known, TaskError> {
    let mine = |part: &&Part| {
        groups.is_some() || part.task.subtask.checked_rem(context.parallelism) == Some(context.id.subtask)
    };
    let states: Vec<OperatorState> = parts.iter().filter(mine).flat_map(|part| part.state.clone()).collect();
    let operators: BTreeSet<&str> = states.iter().map(|state| state.operator.as_str()).collect();
    for operator in operators {
        let refs = OperatorState::for_groups(&states, operator, groups.unwrap_or(KeyGroups::ALL));
        let blocks: Vec<_> = refs.iter().map(|block| fetch(context, block)).collect();
        let blocks: Vec<StoredBlock> = stream::iter(blocks).buffered(BLOCKS_AT_ONCE).try_collect().await?;
        chain.restore(operator, &blocks)?;
    }
    Ok(Known::restored(&states))
}

async fn fetch(context: &Context, block: &BlockRef) -> Result<StoredBlock, TaskError> {
    let key = context.submitted.block_key(&block.name);
    let bytes = get(&context.shared.objects, &key).await?;
    if sha256_hex(&bytes) != block.name {
        return Err(TaskError::Part { key, problem: "its bytes are not those that its name is made of".to_owned() });
    }
    let (table, groups, time) = (block.table.clone(), block.groups, block.time);
    Ok(StoredBlock { table, groups, time, bytes: Buffer::from(bytes) })
}

/// Fetches an object, a few times if need be.
pub(crate) async fn get(objects: &Objects, key: &str) -> Result<Bytes, TaskError> {
    let mut pauses = Pauses::default();
    let mut failed = String::new();
    for _ in 0..FETCHES_MAX {
        match objects.get(key).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => failed = error.to_string(),
        }
        tokio::time::sleep(pauses.next()).await;
    }
    Err(TaskError::Part { key: key.to_owned(), problem: failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(edition: u64) -> BlockId {
        ("window".into(), "panes".into(), KeyGroups::ALL, None, edition)
    }

    fn block(name: &str) -> BlockRef {
        BlockRef { table: "panes".into(), groups: KeyGroups::ALL, time: None, name: name.into(), bytes: 1 }
    }

    #[test]
    fn only_what_a_committed_checkpoint_names_counts_as_stored() {
        let state = OperatorState { operator: "window".into(), watermark: Timestamp::MIN, blocks: vec![block("old")] };
        let known = Known::restored(&[state]);
        assert!(known.has("old") && known.find(&id(1)).is_none());
        known.took(1, Taken::from([(id(1), block("a"))]));
        known.took(2, Taken::from([(id(2), block("b"))]));
        assert!(!known.has("a"), "nobody said that it is committed");
        known.committed(1);
        assert!(known.has("a") && !known.has("old") && !known.has("b"));
        assert_eq!(known.find(&id(1)), Some(block("a")));
        known.committed(1);
        assert!(known.has("a"), "a repeated commit changes nothing");
        known.took(3, Taken::from([(id(3), block("c"))]));
        // The second one was given up: its blocks may be deleted.
        known.committed(3);
        assert!(known.has("c") && !known.has("b") && !known.has("a"));
    }
}
