//! Splunk Enterprise with one indexer, or Splunk Cloud: indexes, HEC tokens, roles and users.
//!
//! An index has no place for a mark, so a role of its own bears it: [`names::mark`] is called after the index, nobody is given it, and
//! its search filter names the service instance. It is made before the index and deleted after it; of an index that outlives its
//! instance it stays and names the scope. HTTP Event Collector tokens and passwords are derived from the binding, so that a repeat
//! finds the same ones.
//! In Splunk Cloud the Admin Config Service makes indexes and tokens, which takes it minutes: each step looks what is there, asks for
//! what is missing, and says that it is not finished.
//! A role for reading imports no other role: what `user` may search, its heirs may search too, and by default that is everything.

mod acs;
mod client;
mod names;
mod rest;

use std::collections::BTreeMap;

use async_trait::async_trait;
use host::{Host, StartError};
use serde_json::json;
use wire::{
    Problem,
    coordinator::ScalingPolicy,
    index_provisioner::{IndexDescription, Reclaim},
    views::Quota,
};

use self::{acs::Acs, client::Client, names::Names, rest::Rest};
use crate::{
    SplunkConfig,
    backend::{Backend, Found, foreign, refused, unfinished},
    mint::Mint,
    state::{Binding, BindingPhase},
};

/// The back-end's name.
pub(crate) const NAME: &str = "splunk";

/// The option of an index that says which sourcetype events have that name none.
const SOURCETYPE: &str = "sourcetype";

/// The sourcetype of the event with which a new token is tried.
const VERIFICATION: &str = "logboom:verification";

/// Bindings that are revoked in one step: up to seven requests for each.
const REVOKED_AT_ONCE: usize = 16;

/// The back-end `splunk`.
#[derive(Clone)]
pub(crate) struct Splunk {
    rest: Rest,
    /// Makes indexes and tokens in Splunk Cloud.
    acs: Option<Acs>,
    client: Client,
    hec_url: String,
    ca: Option<String>,
    mint: Mint,
}

/// Whose mark an index bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ours,
    /// It outlived an instance of this scope.
    Retained,
    Nobodys,
    Others,
}

impl Splunk {
    /// Errors: secrets or authorities that cannot be read.
    pub(crate) fn open(config: &SplunkConfig, host: &Host, mint: Mint) -> Result<Self, StartError> {
        let read_ca = |source| StartError::Io { what: format!("index_provisioner.splunk.ca {}", config.ca), source };
        let ca = (!config.ca.is_empty()).then(|| std::fs::read_to_string(&config.ca).map_err(read_ca)).transpose()?;
        let tls = host.trusting("index_provisioner.splunk.ca", &config.ca)?;
        let client = Client::open(&tls, !config.ca.is_empty(), config.timeout.0)?;
        let secret = |secret| host.secret(secret).map(|text| text.filter(|text| !text.is_empty()));
        let (token, password) = (secret(&config.token)?, secret(&config.password)?);
        let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
        let acs = token.clone().filter(|_| !config.acs_url.is_empty());
        let acs = acs.map(|token| Acs::new(client.clone(), trimmed(&config.acs_url), token));
        let auth = match (token, password) {
            (Some(token), _) => rest::Auth::token(token),
            (None, Some(password)) => rest::Auth::session(config.username.clone(), password),
            (None, None) => {
                return Err(StartError::other("index_provisioner.splunk has neither a token nor a password"));
            }
        };
        let rest = Rest::new(client.clone(), trimmed(&config.url), config.app.clone(), auth);
        Ok(Self { rest, acs, client, hec_url: trimmed(&config.hec_url), ca, mint })
    }

    async fn mark_of(&self, index: &IndexDescription) -> Result<Mark, Problem> {
        let role = self.rest.role(&names::mark(&index.index)).await?;
        Ok(match role {
            None => Mark::Nobodys,
            Some(role) if role.filter == names::mark_filter(&index.instance) => Mark::Ours,
            Some(role) if role.filter == names::retained_filter(&index.scope) => Mark::Retained,
            Some(_) => Mark::Others,
        })
    }

    async fn index_exists(&self, index: &IndexDescription) -> Result<bool, Problem> {
        match &self.acs {
            None => self.rest.index_exists(&index.index).await,
            Some(acs) => acs.index(&index.index).await.map(|found| found.is_some()),
        }
    }

    /// Makes sure that the index is there and bears our mark.
    async fn claim(&self, index: &IndexDescription) -> Result<(), Problem> {
        let there = self.index_exists(index).await?;
        match self.mark_of(index).await? {
            Mark::Others => {
                return Err(foreign(format_args!(
                    "the index {} of Splunk belongs to another service instance or another scope",
                    index.index
                )));
            }
            Mark::Nobodys | Mark::Retained if there && !index.options.adopt => {
                return Err(foreign(format_args!(
                    "Splunk has an index {} already; choose another name, or adopt it",
                    index.index
                )));
            }
            Mark::Nobodys => {
                let (mark, filter) = (names::mark(&index.index), names::mark_filter(&index.instance));
                self.rest.create_role(&mark, &index.index, Some(&filter)).await?;
            }
            Mark::Retained => {
                self.rest.mark_anew(&names::mark(&index.index), &names::mark_filter(&index.instance)).await?;
            }
            Mark::Ours => {}
        }
        match (&self.acs, there) {
            (None, true) => self.rest.edit_index(index).await,
            (None, false) => self.rest.create_index(index).await,
            (Some(acs), _) => self.settle(acs, index).await,
        }
    }

    /// Asks for an index of Splunk Cloud as described, until it is there.
    async fn settle(&self, acs: &Acs, index: &IndexDescription) -> Result<(), Problem> {
        for attempt in 0..2 {
            match acs.index(&index.index).await? {
                Some(there) if there == names::cloud_limits(index) => return Ok(()),
                Some(_) if attempt == 0 => acs.edit_index(index).await?,
                None if attempt == 0 => acs.create_index(index).await?,
                _ => break,
            }
        }
        Err(unfinished(format_args!("Splunk Cloud works on index {}", index.index)))
    }

    async fn ensure_token(&self, index: &IndexDescription, names: &Names) -> Result<(), Problem> {
        let found = self.token(names).await?;
        let token = match found {
            Some(token) => token,
            None => {
                let sourcetype = index.options.backend.get(SOURCETYPE).map(String::as_str);
                match &self.acs {
                    None => self.rest.create_token(&names.name, &names.hec_token, &index.index, sourcetype).await?,
                    Some(acs) => acs.create_token(&names.name, &names.hec_token, &index.index, sourcetype).await?,
                }
                let not_yet = || unfinished(format_args!("Splunk works on the HEC token {}", names.name));
                self.token(names).await?.ok_or_else(not_yet)?
            }
        };
        match token == names.hec_token {
            true => Ok(()),
            false => Err(foreign(format_args!("Splunk has another HEC token {}", names.name))),
        }
    }

    async fn token(&self, names: &Names) -> Result<Option<String>, Problem> {
        match &self.acs {
            None => self.rest.token(&names.name).await,
            Some(acs) => acs.token(&names.name).await,
        }
    }

    async fn ensure_reader(&self, index: &IndexDescription, names: &Names) -> Result<(), Problem> {
        match self.rest.role(&names.name).await? {
            None => self.rest.create_role(&names.name, &index.index, None).await?,
            Some(role) if role.is_reader_of(&index.index) => {}
            Some(_) => return Err(foreign(format_args!("Splunk has another role {}", names.name))),
        }
        match self.rest.user(&names.name).await? {
            None => self.rest.create_user(names).await,
            Some(real_name) if real_name == names.real_name => Ok(()),
            Some(_) => Err(foreign(format_args!("Splunk has another user {}", names.name))),
        }
    }

    /// Sends one event, which proves the token, the index and the collector.
    async fn verify_token(&self, index: &IndexDescription, names: &Names) -> Result<(), Problem> {
        let event = json!({
            "host": "logboom", "source": "logboom", "sourcetype": VERIFICATION, "index": index.index.as_str(),
            "event": { "message": "these credentials were issued", "binding": names.name },
        });
        let url = format!("{}/services/collector/event", self.hec_url);
        let request = self.client.post(url).header("Authorization", format!("Splunk {}", names.hec_token)).json(&event);
        let reply = self.client.send(request, "send an event to the HTTP Event Collector").await?;
        if reply.is_success() && reply.body["code"] == 0 {
            return Ok(());
        }
        // Tokens and indexes take their time until every collector knows them.
        let said = reply.words(&names.hec_token);
        Err(unfinished(format_args!("the HTTP Event Collector answers {} to a new token: {said}", reply.status)))
    }

    fn names(&self, binding: &Binding) -> Names {
        Names::of(&self.mint, &binding.description)
    }

    /// Whether the token that stands there is the binding's own.
    async fn has_token(&self, names: &Names) -> Result<bool, Problem> {
        Ok(self.token(names).await?.is_some_and(|token| token == names.hec_token))
    }

    /// Asks for the end of everything that a binding has; of a token Splunk Cloud may work on for minutes.
    async fn begin_revocation(&self, index: &IndexDescription, binding: &Binding) -> Result<(), Problem> {
        let (names, role) = (self.names(binding), binding.description.role);
        if role.may_write() && self.has_token(&names).await? {
            match &self.acs {
                None => self.rest.delete_token(&names.name).await?,
                Some(acs) => acs.delete_token(&names.name).await?,
            }
        }
        if role.may_read() {
            if self.rest.user(&names.name).await?.is_some_and(|real_name| real_name == names.real_name) {
                self.rest.delete_user(&names.name).await?;
            }
            if self.rest.role(&names.name).await?.is_some_and(|role| role.is_reader_of(&index.index)) {
                self.rest.delete_role(&names.name).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Splunk {
    fn check(&self, before: Option<&IndexDescription>, index: &IndexDescription) -> Result<(), Problem> {
        names::check(index)?;
        if index.options.scaling != ScalingPolicy::Fixed {
            return Err(refused("Splunk scales by itself: leave the scaling policy out"));
        }
        if index.options.quota != Quota::default() {
            return Err(refused("Splunk holds no quota: leave it out"));
        }
        if before.is_some_and(|before| before.options.backend != index.options.backend) {
            let message = "the sourcetype of an index of Splunk is fixed when it is created";
            return Err(Problem::bad_request("NotUpdatable", message));
        }
        Ok(())
    }

    async fn create(&self, index: &IndexDescription) -> Result<(), Problem> {
        let before = self.mark_of(index).await?;
        let Err(problem) = self.claim(index).await else { return Ok(()) };
        if problem.is_transient() || problem.kind == "ForeignResource" {
            return Err(problem);
        }
        // What is ours of it goes; what was there before stays, and belongs to whom it did.
        if index.options.adopt && before == Mark::Nobodys {
            self.rest.delete_role(&names::mark(&index.index)).await?;
            return Err(problem);
        }
        let mut doomed = index.clone();
        doomed.options.reclaim = if index.options.adopt { Reclaim::Retain } else { Reclaim::Delete };
        self.delete(&doomed).await?;
        Err(problem)
    }

    async fn update(&self, index: &IndexDescription) -> Result<(), Problem> {
        if self.mark_of(index).await? != Mark::Ours {
            return Err(foreign(format_args!("the index {} of Splunk bears our mark no more", index.index)));
        }
        match &self.acs {
            _ if !self.index_exists(index).await? => Err(refused(format_args!("the index {} is gone", index.index))),
            None => self.rest.edit_index(index).await,
            Some(acs) => self.settle(acs, index).await,
        }
    }

    async fn delete(&self, index: &IndexDescription) -> Result<(), Problem> {
        if self.mark_of(index).await? != Mark::Ours {
            tracing::warn!(index = %index.index, "index of Splunk does not bear our mark, and stays");
            return Ok(());
        }
        match index.options.reclaim {
            Reclaim::Retain if self.index_exists(index).await? => {
                let (mark, says) = (names::mark(&index.index), names::retained_filter(&index.scope));
                return self.rest.mark_anew(&mark, &says).await;
            }
            Reclaim::Retain => {}
            Reclaim::Fail if self.holds_events(index).await? => {
                return Err(crate::ProvisionerError::NotEmpty(index.index.clone()).into());
            }
            Reclaim::Fail | Reclaim::Delete => {
                if self.index_exists(index).await? {
                    match &self.acs {
                        None => self.rest.delete_index(&index.index).await?,
                        Some(acs) => acs.delete_index(&index.index).await?,
                    }
                    if self.index_exists(index).await? {
                        return Err(unfinished(format_args!("Splunk deletes index {}", index.index)));
                    }
                }
            }
        }
        self.rest.delete_role(&names::mark(&index.index)).await
    }

    async fn describe(&self, index: &IndexDescription) -> Result<Found, Problem> {
        Ok(match self.mark_of(index).await? {
            Mark::Ours => Found::Ours,
            Mark::Others => Found::Foreign,
            Mark::Nobodys | Mark::Retained if self.index_exists(index).await? => Found::Unowned,
            Mark::Nobodys | Mark::Retained => Found::Absent,
        })
    }

    async fn holds_events(&self, index: &IndexDescription) -> Result<bool, Problem> {
        self.rest.has_events(&index.index, VERIFICATION).await
    }

    async fn issue(&self, index: &IndexDescription, binding: &Binding) -> Result<BTreeMap<String, String>, Problem> {
        let (names, role) = (self.names(binding), binding.description.role);
        let is_new = binding.phase == BindingPhase::Issuing;
        let mut values = BTreeMap::new();
        let mut put = |key: &str, value: &str| drop(values.insert(key.to_owned(), value.to_owned()));
        if role.may_write() {
            self.ensure_token(index, &names).await?;
            if is_new {
                self.verify_token(index, &names).await?;
            }
            put("hec_url", &self.hec_url);
            put("hec_token", &names.hec_token);
        }
        if role.may_read() {
            self.ensure_reader(index, &names).await?;
            if is_new {
                self.rest.verify_user(&names).await?;
            }
            put("splunk_url", self.rest.base());
            put("username", &names.name);
            put("password", &names.password);
        }
        if let Some(ca) = &self.ca {
            put("ca_cert", ca);
        }
        Ok(values)
    }

    fn revoked_at_once(&self) -> usize {
        REVOKED_AT_ONCE
    }

    async fn revoke(&self, index: &IndexDescription, bindings: &[Binding]) -> Result<(), Problem> {
        // All are asked for before the first is waited for: Splunk Cloud works on them meanwhile.
        let mut late = None;
        for binding in bindings {
            match self.begin_revocation(index, binding).await {
                // What it works on already, it does not take once more.
                Err(problem) if self.acs.is_some() && problem.is_transient() => late = Some(problem),
                done => done?,
            }
        }
        late.map_or(Ok(()), Err)?;
        for binding in bindings.iter().filter(|binding| binding.description.role.may_write()) {
            let names = self.names(binding);
            if self.has_token(&names).await? {
                return Err(unfinished(format_args!("Splunk deletes the HEC token {}", names.name)));
            }
        }
        Ok(())
    }
}
