//! The calls of IAM that users with keys need.

use reqwest::Method;

use super::{
    error::S3Error,
    http::{Ask, Http},
    sigv4::{self, Signer},
    xml::{KeyCreated, KeysListed, NewKey},
};

/// The version of the interface.
const VERSION: &str = "2010-05-08";
/// The one inline policy of a user.
const POLICY: &str = "logboom";

/// Users of one account, below one path.
#[derive(Clone)]
pub(super) struct Users {
    pub(super) http: Http,
    pub(super) signer: Signer,
    /// `/`, or `/name/`.
    pub(super) path: String,
}

impl Users {
    /// Creates a user; one that is there already is as good, for nobody else makes such names.
    pub(super) async fn create(&self, user: &str, tags: &[(&str, &str)]) -> Result<(), S3Error> {
        let mut form = vec![("Path".to_owned(), self.path.clone())];
        for (number, (key, value)) in (1..).zip(tags) {
            form.push((format!("Tags.member.{number}.Key"), (*key).to_owned()));
            form.push((format!("Tags.member.{number}.Value"), (*value).to_owned()));
        }
        match self.call("CreateUser", user, form).await {
            Err(error) if error.code() == "EntityAlreadyExists" => Ok(()),
            done => done,
        }
    }

    /// Sets what the user may do.
    pub(super) async fn allow(&self, user: &str, policy: String) -> Result<(), S3Error> {
        let form = vec![("PolicyName".to_owned(), POLICY.to_owned()), ("PolicyDocument".to_owned(), policy)];
        self.call("PutUserPolicy", user, form).await
    }

    /// The ids of the user's keys; none if there is no such user.
    pub(super) async fn keys(&self, user: &str) -> Result<Vec<String>, S3Error> {
        let ask = self.ask("ListAccessKeys", user, Vec::new());
        match self.http.read::<KeysListed>(&self.signer, &ask).await {
            Ok(keys) => Ok(keys.ids()),
            Err(error) if error.is_absent() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Makes a key. It is never asked for twice by itself: an answer that is lost leaves a key whose secret nobody knows.
    pub(super) async fn create_key(&self, user: &str) -> Result<NewKey, S3Error> {
        let ask = Ask { repeatable: false, ..self.ask("CreateAccessKey", user, Vec::new()) };
        let made: KeyCreated = self.http.read(&self.signer, &ask).await?;
        Ok(made.create_access_key_result.access_key)
    }

    /// Deletes a key.
    pub(super) async fn delete_key(&self, user: &str, key_id: &str) -> Result<(), S3Error> {
        let form = vec![("AccessKeyId".to_owned(), key_id.to_owned())];
        gone(self.call("DeleteAccessKey", user, form).await)
    }

    /// Deletes a user with its keys and its policy.
    pub(super) async fn delete(&self, user: &str) -> Result<(), S3Error> {
        for key in self.keys(user).await? {
            self.delete_key(user, &key).await?;
        }
        let form = vec![("PolicyName".to_owned(), POLICY.to_owned())];
        gone(self.call("DeleteUserPolicy", user, form).await)?;
        gone(self.call("DeleteUser", user, Vec::new()).await)
    }

    async fn call(&self, action: &'static str, user: &str, form: Vec<(String, String)>) -> Result<(), S3Error> {
        self.http.send(&self.signer, &self.ask(action, user, form)).await.map(drop)
    }

    fn ask(&self, action: &'static str, user: &str, mut form: Vec<(String, String)>) -> Ask {
        for (name, value) in [("Action", action), ("Version", VERSION), ("UserName", user)] {
            form.push((name.to_owned(), value.to_owned()));
        }
        Ask {
            method: Method::POST,
            path: "/".to_owned(),
            query: Vec::new(),
            headers: vec![("content-type", "application/x-www-form-urlencoded".to_owned())],
            body: sigv4::query(&form).into_bytes(),
            repeatable: true,
            what: format!("{action} {user}"),
        }
    }
}

/// What is not there is deleted already.
fn gone(done: Result<(), S3Error>) -> Result<(), S3Error> {
    match done {
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok(()),
    }
}
