//! Who may ask: several platforms, each with its own credential, or two during a rotation.

use std::sync::Arc;

use data_encoding::BASE64;
use parking_lot::RwLock;
use ring::{hmac, rand::SystemRandom};

/// Credentials at most; every request is compared with each of them.
pub(crate) const CREDENTIALS_MAX: usize = 64;

/// What is wrong with the list; a line of it is never repeated, since it holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("broker.password is not set; it, or a line of broker.credentials, is needed to start")]
    None,
    #[error(
        "broker.credentials, line {0}: must be `basic NAME:PASSWORD` or `bearer NAME:TOKEN`, neither part empty; # begins a comment"
    )]
    Line(usize),
    #[error("broker.credentials: more than {CREDENTIALS_MAX} credentials")]
    TooMany,
    #[error("there is no randomness for the comparison of credentials")]
    NoRandomness,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer,
}

struct Known {
    name: String,
    tag: hmac::Tag,
}

/// Everyone who may ask, as tags of equal length under a random key: the time of a comparison says nothing about how much is right.
pub(crate) struct Credentials {
    key: hmac::Key,
    known: Vec<Known>,
}

impl Credentials {
    /// The first credential, if there is one, and a list of further ones.
    pub(crate) fn new(first: Option<(&str, &str)>, list: &str) -> Result<Self, CredentialsError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| CredentialsError::NoRandomness)?;
        let mut known = Vec::new();
        let mut add = |scheme, name: &str, secret: &str| {
            let presented = match scheme {
                Scheme::Basic => format!("{name}:{secret}"),
                Scheme::Bearer => secret.to_owned(),
            };
            known.push(Known { name: name.to_owned(), tag: tag(&key, scheme, presented.as_bytes()) });
        };
        if let Some((name, password)) = first.filter(|(_, password)| !password.is_empty()) {
            add(Scheme::Basic, name, password);
        }
        for (number, line) in list.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (scheme, name, secret) = parse(line).ok_or(CredentialsError::Line(number + 1))?;
            add(scheme, name, secret);
        }
        match known.len() {
            0 => Err(CredentialsError::None),
            count if count > CREDENTIALS_MAX => Err(CredentialsError::TooMany),
            _ => Ok(Self { key, known }),
        }
    }

    /// The name of the credential that an `Authorization` header carries; `None` lets nobody in.
    pub(crate) fn admits(&self, authorization: Option<&str>) -> Option<&str> {
        let (scheme, presented) = presented(authorization?)?;
        let presented = tag(&self.key, scheme, &presented);
        // All of them are compared, so that the time does not say which one was right either.
        self.known.iter().fold(None, |found, one| {
            // Of two tags under the same key, verifying one as a message of the other would hash again; equal length bytes suffice.
            let same = equal(presented.as_ref(), one.tag.as_ref());
            if same { Some(one.name.as_str()) } else { found }
        })
    }
}

/// Without an early exit: every byte counts.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y))) == 0
}

fn tag(key: &hmac::Key, scheme: Scheme, presented: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(match scheme {
        Scheme::Basic => b"basic ",
        Scheme::Bearer => b"bearer ",
    });
    context.update(presented);
    context.sign()
}

fn parse(line: &str) -> Option<(Scheme, &str, &str)> {
    let (scheme, rest) = line.split_once(' ')?;
    let (name, secret) = rest.trim().split_once(':')?;
    let scheme = match scheme {
        "basic" => Scheme::Basic,
        "bearer" => Scheme::Bearer,
        _ => return None,
    };
    (!name.is_empty() && !secret.is_empty()).then_some((scheme, name, secret))
}

fn presented(authorization: &str) -> Option<(Scheme, Vec<u8>)> {
    let (scheme, rest) = authorization.trim().split_once(' ')?;
    let rest = rest.trim().as_bytes();
    if scheme.eq_ignore_ascii_case("basic") {
        BASE64.decode(rest).ok().map(|presented| (Scheme::Basic, presented))
    } else if scheme.eq_ignore_ascii_case("bearer") {
        Some((Scheme::Bearer, rest.to_owned()))
    } else {
        None
    }
}

/// The credentials in force, exchanged as a whole while the service runs.
#[derive(Clone)]
pub(crate) struct Admission(Arc<RwLock<InForce>>);

struct InForce {
    credentials: Arc<Credentials>,
    /// What they were read from, to see whether it changes.
    from: (String, String),
}

impl Admission {
    /// Credentials of a user with his password, and of a list of further ones.
    pub(crate) fn new(username: &str, password: String, list: String) -> Result<Self, CredentialsError> {
        let credentials = Arc::new(Credentials::new(Some((username, &password)), &list)?);
        Ok(Self(Arc::new(RwLock::new(InForce { credentials, from: (password, list) }))))
    }

    /// The name of the credential that an `Authorization` header carries.
    pub(crate) fn admits(&self, authorization: Option<&str>) -> Option<String> {
        let credentials = Arc::clone(&self.0.read().credentials);
        credentials.admits(authorization).map(str::to_owned)
    }

    /// Takes what the files hold now; true if that is something else. On an error the former ones stay in force.
    pub(crate) fn take(&self, username: &str, password: String, list: String) -> Result<bool, CredentialsError> {
        let from = (password, list);
        if self.0.read().from == from {
            return Ok(false);
        }
        let credentials = Arc::new(Credentials::new(Some((username, &from.0)), &from.1)?);
        *self.0.write() = InForce { credentials, from };
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# platforms\n\nbasic cf:with:colon\n bearer kube:t0ken \nbasic admin:older\n";

    fn basic(text: &str) -> String {
        format!("Basic {}", BASE64.encode(text.as_bytes()))
    }

    #[test]
    fn each_credential_lets_its_own_platform_in() {
        let known = Credentials::new(Some(("admin", "s3:cret")), LIST).unwrap();
        for (header, name) in [
            (basic("admin:s3:cret"), Some("admin")),
            (basic("admin:s3:cret").replace("Basic", "basic"), Some("admin")),
            (basic("admin:older"), Some("admin")),
            (basic("cf:with:colon"), Some("cf")),
            ("Bearer t0ken".into(), Some("kube")),
            ("bearer  t0ken ".into(), Some("kube")),
            (basic("admin:s3:cre"), None),
            (basic("admin"), None),
            (basic(""), None),
            (basic("t0ken"), None),
            (basic("kube:t0ken"), None),
            ("Bearer kube:t0ken".into(), None),
            ("Bearer s3:cret".into(), None),
            ("Bearer ".into(), None),
            ("Basic ???".into(), None),
            ("Digest x".into(), None),
            ("t0ken".into(), None),
        ] {
            assert_eq!(known.admits(Some(&header)), name, "{header}");
        }
        assert_eq!(known.admits(None), None);
    }

    #[test]
    fn a_list_that_is_wrong_is_refused_without_its_secrets() {
        for (list, expected) in [
            ("hunter2", CredentialsError::Line(1)),
            ("# x\nbasic hunter2", CredentialsError::Line(2)),
            ("basic :hunter2", CredentialsError::Line(1)),
            ("basic name:", CredentialsError::Line(1)),
            ("digest a:hunter2", CredentialsError::Line(1)),
            ("Basic a:hunter2", CredentialsError::Line(1)),
        ] {
            let error = Credentials::new(Some(("a", "b")), list).err();
            assert!(!error.as_ref().unwrap().to_string().contains("hunter2"));
            assert_eq!(error, Some(expected), "{list}");
        }
        assert_eq!(Credentials::new(Some(("admin", "")), "").err(), Some(CredentialsError::None));
        assert!(Credentials::new(None, "bearer a:b").is_ok(), "a platform may have tokens only");
        let many = "basic a:b\n".repeat(CREDENTIALS_MAX + 1);
        assert_eq!(Credentials::new(None, &many).err(), Some(CredentialsError::TooMany));
    }

    #[test]
    fn new_contents_are_taken_and_bad_ones_leave_the_former() {
        let admission = Admission::new("admin", "one".into(), String::new()).unwrap();
        let name = |text: &str| admission.admits(Some(&basic(text)));
        assert_eq!(admission.take("admin", "one".into(), String::new()), Ok(false));
        assert_eq!(admission.take("admin", "two".into(), "basic admin:one".into()), Ok(true));
        assert_eq!((name("admin:one"), name("admin:two")), (Some("admin".into()), Some("admin".into())));
        assert_eq!(admission.take("admin", "two".into(), "nonsense".into()), Err(CredentialsError::Line(1)));
        assert!(name("admin:one").is_some());
        assert_eq!(admission.take("admin", "two".into(), String::new()), Ok(true));
        assert_eq!((name("admin:one"), name("admin:two")), (None, Some("admin".into())));
    }
}
