//! The management interface: indexes, HEC tokens, roles, users, and one search.

use std::sync::Arc;

use reqwest::Method;
use serde_json::Value;
use tokio::sync::Mutex;
use types::IndexName;
use wire::{Problem, index_provisioner::IndexDescription};

use super::{
    client::{Client, Reply},
    names::{self, Names},
};
use crate::backend::unavailable;

/// What a role for reading may do, besides searching its index: nothing.
const READER_CAPABILITY: &str = "search";

/// How we prove who we are.
#[derive(Clone)]
pub(super) enum Auth {
    /// A token that stays.
    Token(Arc<str>),
    /// A session, which ends when Splunk pleases.
    Session { username: Arc<str>, password: Arc<str>, key: Arc<Mutex<Option<String>>> },
}

impl Auth {
    pub(super) fn token(token: String) -> Self {
        Self::Token(token.into())
    }

    pub(super) fn session(username: String, password: String) -> Self {
        Self::Session { username: username.into(), password: password.into(), key: Arc::default() }
    }
}

/// A role.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Role {
    /// Its search filter.
    pub(super) filter: String,
    indexes: Vec<String>,
}

impl Role {
    /// Whether it is what we make for reading an index.
    pub(super) fn is_reader_of(&self, index: &IndexName) -> bool {
        self.indexes == [index.as_str()] && self.filter.is_empty()
    }
}

/// Fields of a form, in their order; a name may stand more than once.
type Form<'a> = &'a [(&'a str, &'a str)];

/// The management interface of a search head, or of the one indexer.
#[derive(Clone)]
pub(super) struct Rest {
    client: Client,
    base: String,
    app: String,
    auth: Auth,
}

impl Rest {
    pub(super) fn new(client: Client, base: String, app: String, auth: Auth) -> Self {
        Self { client, base, app, auth }
    }

    /// Where it is.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) async fn index_exists(&self, index: &IndexName) -> Result<bool, Problem> {
        let path = format!("/services/data/indexes/{index}?datatype=all&");
        self.entry(&path, "look for an index").await.map(|found| found.is_some())
    }

    /// Creates an index. One that came meanwhile is ours: our mark stands already.
    pub(super) async fn create_index(&self, index: &IndexDescription) -> Result<(), Problem> {
        let (mib, seconds) = names::limits(index);
        let (mib, seconds, what) = (mib.to_string(), seconds.to_string(), "create an index");
        let form = [
            ("name", index.index.as_str()),
            ("datatype", "event"),
            ("maxTotalDataSizeMB", mib.as_str()),
            ("frozenTimePeriodInSecs", seconds.as_str()),
        ];
        let path = format!("/servicesNS/nobody/{}/data/indexes?", self.app);
        let reply = self.ask(Method::POST, &path, &form, what).await?;
        if reply.status == 409 {
            return self.edit_index(index).await;
        }
        reply.good(what, "").map(drop)
    }

    pub(super) async fn edit_index(&self, index: &IndexDescription) -> Result<(), Problem> {
        let (mib, seconds) = names::limits(index);
        let (mib, seconds, what) = (mib.to_string(), seconds.to_string(), "change an index");
        let form = [("maxTotalDataSizeMB", mib.as_str()), ("frozenTimePeriodInSecs", seconds.as_str())];
        let path = format!("/servicesNS/nobody/{}/data/indexes/{}?", self.app, index.index);
        self.ask(Method::POST, &path, &form, what).await?.good(what, "").map(drop)
    }

    pub(super) async fn delete_index(&self, index: &IndexName) -> Result<(), Problem> {
        self.delete(&format!("/servicesNS/nobody/{}/data/indexes/{index}?", self.app), "delete an index").await
    }

    /// Whether an index holds an event of another sourcetype.
    pub(super) async fn has_events(&self, index: &IndexName, but: &str) -> Result<bool, Problem> {
        let what = "search an index";
        let search = format!("search index=\"{index}\" NOT sourcetype=\"{but}\" | head 1");
        let form = [("exec_mode", "oneshot"), ("earliest_time", "0"), ("search", search.as_str())];
        let reply = self.ask(Method::POST, "/services/search/jobs?", &form, what).await?.good(what, "")?;
        let results = reply.body["results"].as_array();
        results.map(|results| !results.is_empty()).ok_or_else(|| unavailable("Splunk's search answers without results"))
    }

    /// The value of a HEC token.
    pub(super) async fn token(&self, name: &str) -> Result<Option<String>, Problem> {
        let path = format!("/servicesNS/nobody/splunk_httpinput/data/inputs/http/{name}?");
        let content = self.entry(&path, "look for a HEC token").await?;
        Ok(content.map(|content| content["token"].as_str().unwrap_or_default().to_owned()))
    }

    /// Creates a HEC token. One that is there already is for the caller to look at.
    pub(super) async fn create_token(
        &self,
        name: &str,
        token: &str,
        index: &IndexName,
        sourcetype: Option<&str>,
    ) -> Result<(), Problem> {
        let what = "create a HEC token";
        let mut form = vec![
            ("name", name),
            ("token", token),
            ("index", index.as_str()),
            ("indexes", index.as_str()),
            ("disabled", "0"),
            ("useACK", "0"),
        ];
        form.extend(sourcetype.map(|sourcetype| ("sourcetype", sourcetype)));
        let path = "/servicesNS/nobody/splunk_httpinput/data/inputs/http?";
        let reply = self.ask(Method::POST, path, &form, what).await?;
        if reply.status == 409 { Ok(()) } else { reply.good(what, token).map(drop) }
    }

    pub(super) async fn delete_token(&self, name: &str) -> Result<(), Problem> {
        let path = format!("/servicesNS/nobody/splunk_httpinput/data/inputs/http/{name}?");
        self.delete(&path, "delete a HEC token").await
    }

    pub(super) async fn role(&self, name: &str) -> Result<Option<Role>, Problem> {
        let content = self.entry(&format!("/services/authorization/roles/{name}?"), "look for a role").await?;
        Ok(content.map(|content| {
            let indexes = content["srchIndexesAllowed"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let filter = content["srchFilter"].as_str().unwrap_or_default().to_owned();
            Role { filter, indexes: indexes.map(str::to_owned).collect() }
        }))
    }

    /// Creates a role that may search one index: without a filter for users, with one as a mark.
    ///
    /// One that came meanwhile is looked at by the next attempt.
    pub(super) async fn create_role(&self, name: &str, index: &IndexName, mark: Option<&str>) -> Result<(), Problem> {
        let what = "create a role";
        let mut form =
            vec![("name", name), ("srchIndexesAllowed", index.as_str()), ("srchIndexesDefault", index.as_str())];
        form.push(mark.map_or(("capabilities", READER_CAPABILITY), |mark| ("srchFilter", mark)));
        self.ask(Method::POST, "/services/authorization/roles?", &form, what).await?.good(what, "").map(drop)
    }

    /// Changes what a mark says.
    pub(super) async fn mark_anew(&self, name: &str, mark: &str) -> Result<(), Problem> {
        let (path, what) = (format!("/services/authorization/roles/{name}?"), "change a role");
        self.ask(Method::POST, &path, &[("srchFilter", mark)], what).await?.good(what, "").map(drop)
    }

    pub(super) async fn delete_role(&self, name: &str) -> Result<(), Problem> {
        self.delete(&format!("/services/authorization/roles/{name}?"), "delete a role").await
    }

    /// The real name of a user.
    pub(super) async fn user(&self, name: &str) -> Result<Option<String>, Problem> {
        let content = self.entry(&format!("/services/authentication/users/{name}?"), "look for a user").await?;
        Ok(content.map(|content| content["realname"].as_str().unwrap_or_default().to_owned()))
    }

    pub(super) async fn create_user(&self, names: &Names) -> Result<(), Problem> {
        let what = "create a user";
        let form = [
            ("name", names.name.as_str()),
            ("password", names.password.as_str()),
            ("realname", names.real_name.as_str()),
            ("roles", names.name.as_str()),
        ];
        let reply = self.ask(Method::POST, "/services/authentication/users?", &form, what).await?;
        reply.good(what, &names.password).map(drop)
    }

    pub(super) async fn delete_user(&self, name: &str) -> Result<(), Problem> {
        self.delete(&format!("/services/authentication/users/{name}?"), "delete a user").await
    }

    /// Logs in as a user, which proves that the password works.
    pub(super) async fn verify_user(&self, names: &Names) -> Result<(), Problem> {
        self.login(&names.name, &names.password).await.map(drop)
    }

    async fn login(&self, username: &str, password: &str) -> Result<String, Problem> {
        let what = "log in";
        let form = form(&[("username", username), ("password", password)]);
        let url = format!("{}/services/auth/login?output_mode=json", self.base);
        let reply = self.client.send(self.client.post(url).header(TYPE.0, TYPE.1).body(form), what).await?;
        let key = reply.body["sessionKey"].as_str().filter(|_| reply.is_success());
        let refused = || unavailable(format_args!("Splunk does not let {username} log in: {}", reply.words(password)));
        key.map(str::to_owned).ok_or_else(refused)
    }

    /// The content of one entry, if there is one.
    async fn entry(&self, path: &str, what: &str) -> Result<Option<Value>, Problem> {
        let reply = self.ask(Method::GET, path, &[], what).await?;
        if reply.status == 404 {
            return Ok(None);
        }
        let reply = reply.good(what, "")?;
        match &reply.body["entry"][0]["content"] {
            content if content.is_object() => Ok(Some(content.clone())),
            _ => Err(unavailable(format_args!("Splunk cannot {what}: its answer has no entry"))),
        }
    }

    /// Deletes; what is not there is as good.
    async fn delete(&self, path: &str, what: &str) -> Result<(), Problem> {
        let reply = self.ask(Method::DELETE, path, &[], what).await?;
        if reply.status == 404 { Ok(()) } else { reply.good(what, "").map(drop) }
    }

    /// One request; a session that has ended is begun again once. `path` ends where a parameter can follow.
    async fn ask(&self, method: Method, path: &str, fields: Form<'_>, what: &str) -> Result<Reply, Problem> {
        let mut is_fresh = false;
        loop {
            let (header, fresh) = self.authorization(is_fresh).await?;
            let url = format!("{}{path}output_mode=json", self.base);
            let request = self.client.request(method.clone(), url).header("Authorization", header);
            let request = match fields {
                [] => request,
                fields => request.header(TYPE.0, TYPE.1).body(form(fields)),
            };
            let reply = self.client.send(request, what).await?;
            if reply.status != 401 || fresh {
                return Ok(reply);
            }
            is_fresh = true;
        }
    }

    /// What proves who we are, and whether it was just made.
    async fn authorization(&self, again: bool) -> Result<(String, bool), Problem> {
        let (username, password, key) = match &self.auth {
            Auth::Token(token) => return Ok((format!("Bearer {token}"), true)),
            Auth::Session { username, password, key } => (username, password, key),
        };
        let mut key = key.lock().await;
        if let Some(known) = key.as_ref().filter(|_| !again) {
            return Ok((format!("Splunk {known}"), false));
        }
        let fresh = self.login(username, password).await?;
        *key = Some(fresh.clone());
        Ok((format!("Splunk {fresh}"), true))
    }
}

/// The form of every request with a body.
const TYPE: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// A form as it is sent; everything but the plainest characters is escaped.
fn form(fields: Form<'_>) -> String {
    let escaped = |text: &str| -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    fields.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        let fields = [("search", "search index=\"a\" | head 1"), ("roles", "ä&b=c")];
        let expected = "search=search%20index%3D%22a%22%20%7C%20head%201&roles=%C3%A4%26b%3Dc";
        assert_eq!(form(&fields), expected);
    }
}
