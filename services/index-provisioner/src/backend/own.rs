//! Our own store: streams of the coordinator, NATS users of the tenants account, and HTTP tokens.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bus::{Bucket, BucketError, Bus};
use wire::{
    Code, Problem,
    coordinator::{CreateStream, DeleteStream, DescribeStream, NewStream, StreamName},
    encode,
    index_provisioner::IndexDescription,
    views::TokenGrant,
};

use crate::{
    accounts::Accounts,
    backend::{Backend, Found},
    mint::Mint,
    state::Binding,
};

/// The back-end `own`.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) bus: Bus,
    pub(crate) tokens: Bucket,
    pub(crate) mint: Mint,
    pub(crate) accounts: Accounts,
}

impl Own {
    /// Makes the bucket of tokens and the tenants account equal to the truth.
    pub(crate) async fn rewrite(&self, live: &[(IndexDescription, Binding)]) -> Result<(), Problem> {
        self.accounts.push().await?;
        let shown = self.tokens.list("").await.map_err(problem)?;
        let grants = live.iter().map(|(index, binding)| (self.key(binding), encode(&grant(index, binding))));
        let grants: BTreeMap<String, Vec<u8>> = grants.collect();
        let kept: BTreeSet<&String> =
            shown.iter().filter(|(k, e)| grants.get(k).is_some_and(|g| *g == e.value)).map(|(k, _)| k).collect();
        for (key, _) in shown.iter().filter(|(key, _)| !grants.contains_key(key)) {
            self.tokens.delete(key).await.map_err(problem)?;
        }
        for (key, grant) in grants.iter().filter(|(key, _)| !kept.contains(key)) {
            self.tokens.put(key, grant.clone()).await.map_err(problem)?;
        }
        Ok(())
    }

    fn key(&self, binding: &Binding) -> String {
        let there = &binding.description;
        self.mint.token_key(&there.binding, there.created)
    }
}

#[async_trait]
impl Backend for Own {
    async fn create(&self, index: &IndexDescription) -> Result<(), Problem> {
        let new = NewStream {
            retention_days: index.retention_days,
            ..NewStream::fixed(index.scope.clone(), index.index.clone(), index.segment_count)
        };
        self.bus.call::<CreateStream>(&(), &new).await.map(|_| ())
    }

    async fn update(&self, index: &IndexDescription) -> Result<(), Problem> {
        match self.describe(index).await? {
            Found::Same => Ok(()),
            Found::Absent => Err(Problem::not_found("UnknownIndex", format_args!("there is no index {}", index.index))),
            Found::Different => Err(Problem::bad_request(
                "NotUpdatable",
                "segments and retention of an index on the back-end own are fixed when it is created",
            )),
        }
    }

    async fn delete(&self, index: &IndexDescription) -> Result<(), Problem> {
        self.bus.call::<DeleteStream>(&(), &StreamName { index: index.index.clone() }).await.map(|_| ())
    }

    async fn describe(&self, index: &IndexDescription) -> Result<Found, Problem> {
        match self.bus.call::<DescribeStream>(&(), &StreamName { index: index.index.clone() }).await {
            Ok(there) => {
                let same = there.scope == index.scope
                    && there.retention_days == index.retention_days
                    && there.segments.len() == usize::from(index.segment_count);
                Ok(if same { Found::Same } else { Found::Different })
            }
            Err(problem) if problem.code == Code::NotFound => Ok(Found::Absent),
            Err(problem) => Err(problem),
        }
    }

    async fn issue(&self, index: &IndexDescription, binding: &Binding) -> Result<BTreeMap<String, String>, Problem> {
        let credentials = self.mint.credentials(&binding.description)?;
        self.tokens.put(&self.key(binding), encode(&grant(index, binding))).await.map_err(problem)?;
        Ok(credentials)
    }

    async fn revoke(&self, bindings: &[Binding]) -> Result<(), Problem> {
        for binding in bindings {
            self.tokens.delete(&self.key(binding)).await.map_err(problem)?;
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

fn problem(error: BucketError) -> Problem {
    Problem::unavailable("TokensUnavailable", format_args!("the bucket of tokens does not answer: {error}"))
}
