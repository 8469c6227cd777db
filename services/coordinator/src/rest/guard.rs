//! Who asks, and whether they may: HTTP basic credentials against the password file.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use actix_web::{HttpRequest, http::header};
use data_encoding::BASE64;
use host::{Host, StartError};
use parking_lot::RwLock;
use ring::{hmac, rand::SystemRandom};
use settings::{Secret, SecretRef};
use tokio::sync::Semaphore;
use wire::{Code, Problem};

use super::{
    acl::{Acl, Permission, Resource},
    answer::Refusal,
    password::{FILE_BYTES_MAX, Hash, User, WORD_BYTES_MAX, users},
};
use crate::metrics;

/// How often the password file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Passwords that are tried at once: each takes some 100 ms of a core, and guessing must not take all of them.
const TRIALS_MAX: usize = 2;
/// How long a request waits for its trial; then 429.
const TRIAL_WAIT: Duration = Duration::from_secs(3);
/// Presented credentials above it are not looked at: base64 of two words.
const CREDENTIALS_BYTES_MAX: usize = 4 * WORD_BYTES_MAX;

/// What the password file says, and who has shown a right password since.
struct Known {
    users: BTreeMap<String, User>,
    /// Tags of right credentials, at most one for each user: the next request need not be tried again.
    proven: BTreeMap<String, hmac::Tag>,
    text: String,
}

/// Lets requests pass or not; clones share it.
#[derive(Clone)]
pub(crate) struct Guard {
    /// `None`: no password file is set, so nobody may anything.
    path: Option<Arc<PathBuf>>,
    known: Arc<RwLock<Known>>,
    key: Arc<hmac::Key>,
    trials: Arc<Semaphore>,
}

/// Somebody whose password was right.
pub(crate) struct Principal {
    name: String,
    acl: Acl,
}

impl Principal {
    /// Whether they may so much with the resource.
    pub(crate) fn is_allowed(&self, resource: Resource<'_>, needed: Permission) -> bool {
        self.acl.permission(resource) >= needed
    }

    /// The same as an answer.
    pub(crate) fn require(&self, resource: Resource<'_>, needed: Permission) -> Result<(), Refusal> {
        if self.is_allowed(resource, needed) {
            return Ok(());
        }
        metrics::REST_REFUSED.with("not_allowed").inc();
        let message = format!("{} needs {needed} on {resource}", self.name);
        Err(Problem::new(Code::Forbidden, "RoleTooWeak", message).into())
    }
}

impl Guard {
    /// Reads the password file; without one nobody gets in.
    ///
    /// Errors: the file cannot be read or understood.
    pub(crate) async fn open(file: &Secret) -> Result<Self, StartError> {
        let path = match file.reference() {
            Some(SecretRef::File(path)) => Some(PathBuf::from(path)),
            // The settings refuse any other reference.
            _ => None,
        };
        let mut known = Known { users: BTreeMap::new(), proven: BTreeMap::new(), text: String::new() };
        if let Some(path) = &path {
            known.text = read(path).await.map_err(StartError::other)?;
            let found = users(&known.text);
            known.users = found.map_err(|error| StartError::other(format!("{}: {error}", path.display())))?;
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| StartError::other("the system gives no random numbers"))?;
        let (path, known) = (path.map(Arc::new), Arc::new(RwLock::new(known)));
        Ok(Self { path, known, key: Arc::new(key), trials: Arc::new(Semaphore::new(TRIALS_MAX)) })
    }

    /// Takes over every change of the file until the service stops; what is not understood changes nothing.
    pub(crate) async fn follow(self, host: Host) {
        let Some(path) = self.path.clone() else { return };
        let mut told = None;
        while host.stop.run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL)).await.is_some() {
            let text = match read(&path).await {
                Ok(text) if text == self.known.read().text => continue,
                Ok(text) => text,
                Err(error) => {
                    tell(&mut told, error);
                    continue;
                }
            };
            match users(&text) {
                Ok(users) => {
                    tracing::info!(path = %path.display(), users = users.len(), "password file was read again");
                    metrics::REST_PASSWORDS.with("taken").inc();
                    *self.known.write() = Known { users, proven: BTreeMap::new(), text };
                    told = None;
                }
                Err(error) => tell(&mut told, format!("{}: {error}", path.display())),
            }
        }
    }

    /// Who sent the request. Errors: 401; 429 while others try passwords.
    pub(crate) async fn principal(&self, http: &HttpRequest) -> Result<Principal, Refusal> {
        if self.path.is_none() {
            let message = "nobody may use this interface: set coordinator.rest_password_file";
            return Err(refused("no_file", message));
        }
        let presented = http.headers().get(header::AUTHORIZATION);
        let Some(presented) = presented else {
            return Err(refused("missing", "send the credentials of a user with HTTP basic authentication"));
        };
        let Some((name, password)) = presented.to_str().ok().and_then(basic) else {
            return Err(refused("malformed", "the credentials are not of the form Basic base64(user:password)"));
        };
        let tag = hmac::sign(&self.key, format!("{name}:{password}").as_bytes());
        let user = {
            let known = self.known.read();
            let user = known.users.get(&name).cloned();
            if let (Some(proven), Some(user)) = (known.proven.get(&name), &user)
                && hmac::verify(&self.key, format!("{name}:{password}").as_bytes(), proven.as_ref()).is_ok()
            {
                return Ok(Principal { name, acl: user.acl.clone() });
            }
            user
        };
        let hash = user.as_ref().map_or_else(Hash::of_nobody, |user| user.hash.clone());
        let right = self.try_password(hash, password).await?;
        match user.filter(|_| right) {
            Some(user) => {
                let mut known = self.known.write();
                // The file may have changed meanwhile: only what it says now is remembered.
                if known.users.get(&name).is_some_and(|now| now.hash == user.hash) {
                    known.proven.insert(name.clone(), tag);
                }
                drop(known);
                Ok(Principal { name, acl: user.acl })
            }
            None => {
                tracing::warn!(user = name.as_str(), peer = ?http.peer_addr(), "credentials are wrong");
                Err(refused("wrong", "the credentials are wrong"))
            }
        }
    }

    async fn try_password(&self, hash: Hash, password: String) -> Result<bool, Problem> {
        let busy = || Problem::throttled("Throttled", "too many passwords are being tried; try again");
        let permit = tokio::time::timeout(TRIAL_WAIT, Arc::clone(&self.trials).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            metrics::REST_REFUSED.with("busy").inc();
            return Err(busy());
        };
        let trial = tokio::task::spawn_blocking(move || {
            let right = hash.is_met_by(&password);
            drop(permit);
            right
        });
        trial.await.map_err(|error| Problem::internal(format_args!("the trial of a password did not end: {error}")))
    }
}

fn refused(reason: &'static str, message: &str) -> Refusal {
    metrics::REST_REFUSED.with(reason).inc();
    Refusal::unauthorized(message)
}

/// Says the same thing once.
fn tell(told: &mut Option<String>, error: String) {
    if told.as_ref() != Some(&error) {
        metrics::REST_PASSWORDS.with("refused").inc();
        tracing::error!(error, "password file is not taken over; the last good one stays in force");
        *told = Some(error);
    }
}

async fn read(path: &std::path::Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("password file {} cannot be read: {error}", path.display());
    let bytes = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("password file {} has {bytes} bytes; {FILE_BYTES_MAX} are allowed", path.display()));
    }
    tokio::fs::read_to_string(path).await.map_err(failed)
}

fn basic(text: &str) -> Option<(String, String)> {
    let (scheme, encoded) = text.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > CREDENTIALS_BYTES_MAX {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(encoded.trim().as_bytes()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_read_as_browsers_write_them() {
        for (header, expected) in [
            ("Basic YW5uOm9wZW4=", Some(("ann", "open"))),
            ("basic  YW5uOm9wZW46OmE=", Some(("ann", "open::a"))),
            ("Bearer YW5uOm9wZW4=", None),
            ("Basic YW5u", None),
            ("Basic ???", None),
            ("YW5uOm9wZW4=", None),
        ] {
            let found = basic(header);
            assert_eq!(found.as_ref().map(|(user, word)| (user.as_str(), word.as_str())), expected, "{header}");
        }
        assert_eq!(basic(&format!("Basic {}", "YW5u".repeat(CREDENTIALS_BYTES_MAX))), None);
    }
}
