//! State that many processes share and change: each applies the same updates in the same order.

use std::{marker::PhantomData, time::Duration};

use bus::{Bucket, Change};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use types::{ScopeName, Token};
use wire::{Problem, views::SYNCHRONIZERS};

use crate::{
    Client,
    document::{Document, Verdict},
};

/// The largest shared state with its updates.
pub const SYNCHRONIZED_BYTES_MAX: usize = 1 << 20;
/// From this size on the updates are folded into the state whenever somebody writes.
pub const COMPACT_FROM_BYTES: usize = 64 << 10;
/// From so many updates on they are folded.
pub const COMPACT_FROM_UPDATES: usize = 500;

/// State that changes by updates.
pub trait Apply<U> {
    /// Changes the state; must come to the same everywhere.
    fn apply(&mut self, update: &U);
}

/// What stands in the bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Shared<S, U> {
    /// Tells it from one of the same name that was removed.
    birth: u64,
    /// The state before `updates`.
    base: S,
    /// How many updates are folded into it.
    base_revision: u64,
    updates: Vec<U>,
}

impl<S, U> Shared<S, U> {
    fn revision(&self) -> u64 {
        self.base_revision.saturating_add(u64::try_from(self.updates.len()).unwrap_or(u64::MAX))
    }
}

/// A replica of a shared state.
///
/// Every update is applied once and in one order for all; [`StateSynchronizer::update`] decides on a state that contains
/// everything before it. The revision counts updates. For little state with few writers: every change writes the whole.
/// Source: Pravega, State Synchronizer.
///
/// ```no_run
/// use client::{Apply, Client};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
/// struct Counter(u64);
/// #[derive(Clone, PartialEq, Serialize, Deserialize)]
/// struct Add(u64);
/// impl Apply<Add> for Counter {
///     fn apply(&mut self, add: &Add) {
///         self.0 += add.0;
///     }
/// }
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let (scope, name) = ("shop".parse()?, types::Token::new("visits")?);
/// let mut visits = client.synchronizer::<Counter, Add>(&scope, &name, Counter::default()).await?;
/// visits.update(|count| (count.0 < 100).then(|| vec![Add(1)])).await?;
/// println!("{} at revision {}", visits.state().0, visits.revision());
/// # Ok(())
/// # }
/// ```
pub struct StateSynchronizer<S, U> {
    bucket: Bucket,
    key: String,
    document: Document<Shared<S, U>>,
    state: S,
    revision: u64,
    birth: u64,
    updates: PhantomData<U>,
}

impl Client {
    /// A replica of the shared state of a name; begins with `initial` where there is none yet.
    pub async fn synchronizer<S, U>(
        &self,
        scope: &ScopeName,
        name: &Token,
        initial: S,
    ) -> Result<StateSynchronizer<S, U>, Problem>
    where
        S: Apply<U> + Clone + PartialEq + Serialize + DeserializeOwned,
        U: Clone + PartialEq + Serialize + DeserializeOwned,
    {
        let bucket = self.bucket(SYNCHRONIZERS).await?;
        let key = format!("{scope}.{name}");
        let mut document = Document::new(bucket.clone(), key.clone(), SYNCHRONIZED_BYTES_MAX);
        document
            .change(|there| {
                let empty =
                    Shared { birth: rand::random(), base: initial.clone(), base_revision: 0, updates: Vec::new() };
                Ok(if there.is_some() { Verdict::Keep(()) } else { Verdict::Put(empty, ()) })
            })
            .await?;
        let (revision, birth, updates) = (0, 0, PhantomData);
        let mut replica = StateSynchronizer { bucket, key, document, state: initial, revision, birth, updates };
        replica.catch_up()?;
        Ok(replica)
    }

    /// Removes a shared state; removing what is not there succeeds. Its replicas answer NotFound `UnknownSynchronizer`.
    pub async fn delete_synchronizer(&self, scope: &ScopeName, name: &Token) -> Result<(), Problem> {
        Ok(self.bucket(SYNCHRONIZERS).await?.delete(&format!("{scope}.{name}")).await?)
    }
}

impl<S, U> StateSynchronizer<S, U>
where
    S: Apply<U> + Clone + PartialEq + Serialize + DeserializeOwned,
    U: Clone + PartialEq + Serialize + DeserializeOwned,
{
    /// The state as last fetched.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// How many updates it contains.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Applies what others did; what was acknowledged to anybody before the call is in the state afterwards.
    pub async fn fetch(&mut self) -> Result<&S, Problem> {
        self.document.load().await?;
        self.catch_up()?;
        Ok(&self.state)
    }

    /// Decides on the present state what to do with it, and does it; false if `decide` wants nothing.
    ///
    /// `decide` is asked again when somebody else was faster. Durable when it returns.
    /// Errors: `TooLarge`; Throttled `Contended`; Unavailable, with an unknown outcome only if nobody can be asked any more.
    pub async fn update(&mut self, mut decide: impl FnMut(&S) -> Option<Vec<U>>) -> Result<bool, Problem> {
        let (state, revision, birth) = (self.state.clone(), self.revision, self.birth);
        let bytes = self.document.bytes();
        let done = self
            .document
            .change(|shared| {
                let shared = shared.ok_or_else(gone)?;
                let present = replayed(shared, (shared.birth == birth).then_some((&state, revision)));
                let Some(updates) = decide(&present).filter(|updates| !updates.is_empty()) else {
                    return Ok(Verdict::Keep(false));
                };
                let mut next = shared.clone();
                next.updates.extend(updates);
                let large = bytes > COMPACT_FROM_BYTES || next.updates.len() > COMPACT_FROM_UPDATES;
                Ok(Verdict::Put(if large { folded(&next) } else { next }, true))
            })
            .await?;
        self.catch_up()?;
        Ok(done)
    }

    /// Folds the updates into the state, so that new replicas load less; happens by itself beyond
    /// [`COMPACT_FROM_BYTES`] and [`COMPACT_FROM_UPDATES`].
    pub async fn compact(&mut self) -> Result<(), Problem> {
        self.document
            .change(|shared| {
                let shared = shared.ok_or_else(gone)?;
                let nothing = shared.updates.is_empty();
                Ok(if nothing { Verdict::Keep(()) } else { Verdict::Put(folded(shared), ()) })
            })
            .await?;
        self.catch_up()
    }

    /// Waits until others changed the state, and applies it; false if nothing came within `wait`.
    pub async fn changed(&mut self, wait: Duration) -> Result<bool, Problem> {
        let before = self.revision;
        let mut watch = self.bucket.watch(&self.key);
        let told = timeout(wait, async {
            loop {
                let Change::Key { key, entry } = watch.next().await else { continue };
                if key == self.key {
                    self.document.observe(entry)?;
                    self.catch_up()?;
                    if self.revision > before {
                        return Ok::<(), Problem>(());
                    }
                }
            }
        });
        told.await.map_or(Ok(false), |told| told.map(|()| true))
    }

    fn catch_up(&mut self) -> Result<(), Problem> {
        let shared = self.document.value().ok_or_else(gone)?;
        let known = (shared.birth == self.birth).then_some((&self.state, self.revision));
        let state = replayed(shared, known);
        (self.state, self.revision, self.birth) = (state, shared.revision(), shared.birth);
        Ok(())
    }
}

fn gone() -> Problem {
    Problem::not_found("UnknownSynchronizer", "the shared state was removed: create it again")
}

/// The present state; from what is known on, where the updates since are still there one by one.
fn replayed<S: Apply<U> + Clone, U>(shared: &Shared<S, U>, known: Option<(&S, u64)>) -> S {
    let usable = known.filter(|(_, at)| (shared.base_revision..=shared.revision()).contains(at));
    let (state, at) = usable.unwrap_or((&shared.base, shared.base_revision));
    let mut state = state.clone();
    let skipped = usize::try_from(at - shared.base_revision).unwrap_or(usize::MAX);
    shared.updates.iter().skip(skipped).for_each(|update| state.apply(update));
    state
}

fn folded<S: Apply<U> + Clone, U>(shared: &Shared<S, U>) -> Shared<S, U> {
    Shared { birth: shared.birth, base: replayed(shared, None), base_revision: shared.revision(), updates: Vec::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Default, PartialEq)]
    struct Log(Vec<u8>);

    impl Apply<u8> for Log {
        fn apply(&mut self, update: &u8) {
            self.0.push(*update);
        }
    }

    proptest! {
        /// A replica that looks now and then, at any moments, has what one has that saw everything.
        #[test]
        fn replicas_agree(steps in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..4), any::<(bool, bool)>()), 0..30)) {
            let mut shared = Shared { birth: 1, base: Log::default(), base_revision: 0, updates: vec![] };
            let (mut all, mut replica) = (Vec::new(), (Log::default(), 0));
            for (updates, (fold, look)) in steps {
                all.extend(updates.clone());
                shared.updates.extend(updates);
                if fold {
                    shared = folded(&shared);
                }
                if look {
                    replica = (replayed(&shared, Some((&replica.0, replica.1))), shared.revision());
                    prop_assert_eq!(&replica.0.0, &all);
                }
                prop_assert_eq!(shared.revision(), all.len() as u64);
                prop_assert_eq!(&replayed(&shared, None).0, &all);
            }
        }
    }
}
