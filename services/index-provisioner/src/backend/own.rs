//! Our own store: streams of the coordinator, quotas, NATS users of the tenants account, and HTTP tokens.

mod archives;
mod shape;
mod view;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bus::Bus;
use futures::{StreamExt, TryStreamExt, stream};
use types::IndexName;
use wire::{
    Code, Problem,
    coordinator::{
        CreateStream, DeleteStream, DescribeStream, ListSegments, SegmentsOf, StreamDescription, StreamName,
        StreamUpdate, UpdateStream,
    },
    encode,
    index_provisioner::{IndexDescription, Reclaim},
    segment_store::{DescribeSegment, SegmentName},
    views::{Quota, TokenGrant},
};

pub(crate) use self::{archives::Archives, view::View};
use self::{
    shape::{Owner, differs, new_stream, owner_of, tags_of, update_of, without_owner},
    view::{Wanted, is_bound, is_ending, is_wanted, own_bindings, own_indexes},
};
use crate::{
    accounts::Accounts,
    backend::{Backend, Found, foreign},
    mint::Mint,
    state::{Binding, BindingPhase, State},
};

/// Segments that are asked for their ends at once.
const SEGMENT_CALLS_MAX: usize = 16;
/// Bindings that are revoked with one push of the account: some ms for each token.
const REVOKED_AT_ONCE: usize = 1_000;
/// Segments of one page.
const SEGMENTS_PAGE: u32 = 1_000;

/// The back-end `own`.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) bus: Bus,
    pub(crate) tokens: View,
    pub(crate) quotas: View,
    pub(crate) archives: Archives,
    pub(crate) mint: Mint,
    pub(crate) accounts: Accounts,
}

impl Own {
    /// Makes the tenants account and the view of tokens equal to the truth.
    pub(crate) async fn rewrite_tokens(&self) -> Result<(), Problem> {
        self.accounts.push().await?;
        let wanted = |state: &State| {
            let mut wanted = Wanted::default();
            for (index, binding) in own_bindings(state) {
                let key = self.key(binding);
                match binding.phase {
                    BindingPhase::Live => drop(wanted.entries.insert(key, encode(&grant(index, binding)))),
                    _ => drop(wanted.left_alone.insert(key)),
                }
            }
            wanted
        };
        self.tokens.rewrite(wanted).await
    }

    /// Makes the views of quotas and of archives equal to the truth; of unsettled indexes they are left as they are.
    pub(crate) async fn rewrite_views(&self) -> Result<(), Problem> {
        let quotas = |state: &State| {
            let (live, unsettled) = own_indexes(state);
            let set = live.iter().filter(|index| index.options.quota != Quota::default());
            let entries = set.map(|index| (index.index.to_string(), encode(&index.options.quota))).collect();
            Wanted { entries, left_alone: unsettled.iter().map(ToString::to_string).collect() }
        };
        self.quotas.rewrite(quotas).await?;
        self.archives.rewrite().await
    }

    fn key(&self, binding: &Binding) -> String {
        let there = &binding.description;
        self.mint.token_key(&there.binding, there.created)
    }

    async fn stream(&self, index: &IndexName) -> Result<Option<StreamDescription>, Problem> {
        match self.bus.call::<DescribeStream>(&(), &StreamName { index: index.clone() }).await {
            Ok(there) => Ok(Some(there)),
            Err(problem) if problem.code == Code::NotFound => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    async fn change(&self, update: StreamUpdate) -> Result<(), Problem> {
        self.bus.call::<UpdateStream>(&(), &update).await.map(drop)
    }

    /// An index without limits has no entry.
    async fn show_quota(&self, index: &IndexDescription) -> Result<(), Problem> {
        let quota = Some(&index.options.quota).filter(|quota| **quota != Quota::default()).map(encode);
        self.quotas.show(index.index.as_str(), quota.as_deref(), is_wanted(index)).await
    }

    /// Makes what stands there this index, if it may become it.
    async fn take_over(&self, index: &IndexDescription, there: StreamDescription) -> Result<(), Problem> {
        if there.encrypted != index.options.encryption {
            let is = if there.encrypted { "is encrypted" } else { "is not encrypted" };
            return Err(foreign(format_args!(
                "a stream {} is there already, and {is}; that stays as it is",
                index.index
            )));
        }
        match owner_of(&there.tags, &index.instance) {
            Owner::Us if !differs(&there, index) => Ok(()),
            Owner::Us => self.change(update_of(index, Some(tags_of(&there.tags, &index.instance)))).await,
            Owner::Nobody if index.options.adopt => {
                tracing::info!(index = %index.index, instance = %index.instance, "stream adopted");
                self.change(update_of(index, Some(tags_of(&there.tags, &index.instance)))).await
            }
            Owner::Nobody => Err(foreign(format_args!(
                "a stream {} is there already in scope {}; choose another name, or adopt it",
                index.index, index.scope
            ))),
            Owner::Other => {
                Err(foreign(format_args!("the stream {} belongs to another service instance", index.index)))
            }
        }
    }

    /// Deletes or retains the stream, as the reclaim policy says.
    async fn end_stream(&self, index: &IndexDescription) -> Result<(), Problem> {
        let Some(there) = self.stream(&index.index).await?.filter(|there| there.scope == index.scope) else {
            return Ok(());
        };
        if owner_of(&there.tags, &index.instance) == Owner::Other {
            tracing::warn!(index = %index.index, "stream belongs to another service instance by now, and stays");
            return Ok(());
        }
        match index.options.reclaim {
            Reclaim::Fail if self.holds_events(index).await? => {
                return Err(crate::ProvisionerError::NotEmpty(index.index.clone()).into());
            }
            Reclaim::Fail | Reclaim::Delete => {
                self.bus.call::<DeleteStream>(&(), &StreamName { index: index.index.clone() }).await?;
            }
            Reclaim::Retain => {
                let tags = Some(without_owner(&there.tags, &index.instance));
                self.change(StreamUpdate { index: index.index.clone(), scaling: None, retention: None, tags }).await?;
            }
        }
        self.quotas.show(index.index.as_str(), None, is_ending(&index.instance)).await
    }
}

#[async_trait]
impl Backend for Own {
    fn check(&self, _before: Option<&IndexDescription>, index: &IndexDescription) -> Result<(), Problem> {
        archives::check(&self.archives.s3, index)?;
        shape::check(index)
    }

    async fn create(&self, index: &IndexDescription) -> Result<(), Problem> {
        let there = match self.bus.call::<CreateStream>(&(), &new_stream(index)).await {
            Ok(there) => Some(there),
            // Ours that was changed since, or somebody else's.
            Err(problem) if problem.kind == "StreamDiffers" => self.stream(&index.index).await?,
            Err(problem) => return Err(problem),
        };
        let gone = || Problem::unavailable("UnknownIndex", "the stream was deleted while it was being created");
        self.take_over(index, there.ok_or_else(gone)?).await?;
        // Nobody can publish before there is a binding, and that is not before this returns.
        self.show_quota(index).await?;
        self.archives.show(index).await
    }

    async fn update(&self, index: &IndexDescription) -> Result<(), Problem> {
        // The only step that can be refused comes first.
        self.change(update_of(index, None)).await?;
        self.show_quota(index).await?;
        self.archives.show(index).await
    }

    async fn delete(&self, index: &IndexDescription) -> Result<(), Problem> {
        self.end_stream(index).await?;
        // Last: a deletion that is refused leaves the index as it was.
        self.archives.hide(index).await
    }

    async fn describe(&self, index: &IndexDescription) -> Result<Found, Problem> {
        Ok(match self.stream(&index.index).await? {
            None => Found::Absent,
            Some(there) if there.scope != index.scope => Found::Foreign,
            Some(there) => match owner_of(&there.tags, &index.instance) {
                Owner::Us => Found::Ours,
                Owner::Nobody => Found::Unowned,
                Owner::Other => Found::Foreign,
            },
        })
    }

    async fn holds_events(&self, index: &IndexDescription) -> Result<bool, Problem> {
        let mut page = SegmentsOf { index: index.index.clone(), after: None, limit: SEGMENTS_PAGE };
        loop {
            let found = match self.bus.call::<ListSegments>(&(), &page).await {
                Err(problem) if problem.code == Code::NotFound => return Ok(false),
                found => found?,
            };
            page.after = found.segments.last().map(|node| node.segment);
            let looks = found.segments.into_iter().map(|node| async move {
                let name = SegmentName { segment: node.segment };
                match self.bus.call::<DescribeSegment>(&node.container, &name).await {
                    Ok(info) => Ok(info.end > info.start),
                    // Truncated away meanwhile.
                    Err(problem) if problem.code == Code::NotFound => Ok(false),
                    Err(problem) => Err(problem),
                }
            });
            let mut looks = stream::iter(looks).buffer_unordered(SEGMENT_CALLS_MAX);
            while let Some(held) = looks.try_next().await? {
                if held {
                    return Ok(true);
                }
            }
            if !found.more {
                return Ok(false);
            }
        }
    }

    async fn issue(&self, index: &IndexDescription, binding: &Binding) -> Result<BTreeMap<String, String>, Problem> {
        let credentials = self.mint.credentials(&binding.description)?;
        if binding.phase == BindingPhase::Issuing {
            let (key, grant) = (self.key(binding), encode(&grant(index, binding)));
            self.tokens.show_once(&key, &grant, is_bound(binding)).await?;
        }
        Ok(credentials)
    }

    fn revoked_at_once(&self) -> usize {
        REVOKED_AT_ONCE
    }

    async fn revoke(&self, _index: &IndexDescription, bindings: &[Binding]) -> Result<(), Problem> {
        for binding in bindings {
            self.tokens.end(&self.key(binding)).await?;
        }
        if bindings.is_empty() { Ok(()) } else { self.accounts.push().await }
    }
}

fn grant(index: &IndexDescription, binding: &Binding) -> TokenGrant {
    TokenGrant {
        index: index.index.clone(),
        scope: index.scope.clone(),
        binding: binding.description.binding.clone(),
        role: binding.description.role,
        expires: binding.description.expires,
    }
}
