//! Lines of the password file: `user:hash:acl`, where the hash is `pbkdf2-sha256$<rounds>$<salt>$<key>`.

use std::{collections::BTreeMap, num::NonZeroU32};

use data_encoding::BASE64;
use ring::{
    pbkdf2,
    rand::{SecureRandom, SystemRandom},
};

use super::acl::{Acl, AclError};

/// Rounds of a new hash. Source: OWASP, Password Storage Cheat Sheet, PBKDF2 with HMAC-SHA-256.
const ROUNDS: u32 = 600_000;
/// Fewer are too weak, more would let a line of the file stop the service.
const ROUNDS_ALLOWED: std::ops::RangeInclusive<u32> = 100_000..=10_000_000;
/// Bytes of a salt, and of a key.
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const NAME: &str = "pbkdf2-sha256";
static ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;

/// The largest password file.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;
/// Users of one file.
const USERS_MAX: usize = 1_000;
/// The longest user name, and the longest password, in bytes.
pub(crate) const WORD_BYTES_MAX: usize = 256;

/// Why a password file, or a line for one, cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// A user that no HTTP client could present.
    #[error("user {0:?}: 1 to {WORD_BYTES_MAX} bytes without colon, space or line end, not beginning with #")]
    User(String),
    /// Too short or too long.
    #[error("a password has 1 to {WORD_BYTES_MAX} bytes on one line")]
    Password,
    /// No randomness.
    #[error("the system gives no random numbers")]
    Random,
    /// A line that is not understood.
    #[error("line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

/// A line of the password file for a user with this password; `acl` as in `prn::/scope:shop/*,READ_UPDATE`.
///
/// Shape: `user:pbkdf2-sha256$600000$<salt>$<key>:acl`, salt and key in base64.
pub fn password_line(user: &str, password: &str, acl: &str) -> Result<String, PasswordError> {
    if !is_user(user) {
        return Err(PasswordError::User(user.to_owned()));
    }
    if password.is_empty() || password.len() > WORD_BYTES_MAX || password.contains(['\n', '\r', '\0']) {
        return Err(PasswordError::Password);
    }
    acl.parse::<Acl>().map_err(|error: AclError| PasswordError::Line { line: 1, what: error.to_string() })?;
    let mut salt = [0; SALT_BYTES];
    SystemRandom::new().fill(&mut salt).map_err(|_| PasswordError::Random)?;
    let rounds = NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN);
    let mut key = [0; KEY_BYTES];
    pbkdf2::derive(ALGORITHM, rounds, &salt, password.as_bytes(), &mut key);
    Ok(format!("{user}:{NAME}${ROUNDS}${}${}:{acl}", BASE64.encode(&salt), BASE64.encode(&key)))
}

fn is_user(text: &str) -> bool {
    let fits = (1..=WORD_BYTES_MAX).contains(&text.len()) && !text.starts_with('#');
    fits && !text.contains(|c: char| c == ':' || c.is_whitespace() || c.is_control())
}

/// A stored password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hash {
    rounds: NonZeroU32,
    salt: Vec<u8>,
    key: Vec<u8>,
}

impl Hash {
    /// One that no password meets, as costly to try as any other: an unknown user must not be told from a wrong password by the time.
    pub(crate) fn of_nobody() -> Self {
        let rounds = NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN);
        Self { rounds, salt: vec![0; SALT_BYTES], key: vec![0; KEY_BYTES] }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('$');
        let (name, rounds, salt, key) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if name != NAME || parts.next().is_some() {
            return None;
        }
        let rounds: u32 = rounds.parse().ok().filter(|rounds| ROUNDS_ALLOWED.contains(rounds))?;
        let bytes = |text: &str| BASE64.decode(text.as_bytes()).ok();
        let salt = bytes(salt).filter(|salt| salt.len() >= SALT_BYTES)?;
        let key = bytes(key).filter(|key| key.len() == KEY_BYTES)?;
        Some(Self { rounds: NonZeroU32::new(rounds)?, salt, key })
    }

    /// Whether the password is the right one; takes some 100 ms of a core, the same whether it is or not.
    pub(crate) fn is_met_by(&self, password: &str) -> bool {
        pbkdf2::verify(ALGORITHM, self.rounds, &self.salt, password.as_bytes(), &self.key).is_ok()
    }
}

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) hash: Hash,
    pub(crate) acl: Acl,
}

/// The users of a password file. Empty lines and those that begin with `#` say nothing.
pub(crate) fn users(text: &str) -> Result<BTreeMap<String, User>, PasswordError> {
    let mut users = BTreeMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        let wrong = |what: String| PasswordError::Line { line, what };
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let mut parts = text.splitn(3, ':');
        let (user, hash) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if !is_user(user) {
            return Err(wrong(PasswordError::User(user.to_owned()).to_string()));
        }
        let hash = Hash::parse(hash).ok_or_else(|| {
            wrong(format!(
                "the hash of user {user} is not {NAME}$rounds$salt$key; `logboom admin password {user}` makes a line"
            ))
        })?;
        let acl = parts.next().unwrap_or_default().parse().map_err(|error: AclError| wrong(error.to_string()))?;
        if users.insert(user.to_owned(), User { hash, acl }).is_some() {
            return Err(wrong(format!("user {user} stands in the file twice")));
        }
        if users.len() > USERS_MAX {
            return Err(wrong(format!("there are more than {USERS_MAX} users")));
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::acl::{Permission, Resource};

    #[test]
    fn a_line_is_met_by_its_password_only() {
        let line = password_line("ann", "open: sesame", "prn::/scope:a,READ").unwrap();
        assert!(!line.contains("sesame"), "{line}");
        assert_ne!(line, password_line("ann", "open: sesame", "prn::/scope:a,READ").unwrap(), "salted");
        let users = users(&format!("# people\n\n{line}\n{}\n", line.replacen("ann", "bob", 1))).unwrap();
        assert_eq!(users.len(), 2);
        let ann = &users["ann"];
        assert!(ann.hash.is_met_by("open: sesame"));
        assert!(!ann.hash.is_met_by("open: sesam") && !ann.hash.is_met_by("") && !Hash::of_nobody().is_met_by(""));
        assert_eq!(ann.acl.permission(Resource::Scope("a")), Permission::Read);
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused_with_its_line() {
        let good = password_line("ann", "x", "").unwrap();
        let hash = good.split(':').nth(1).unwrap();
        for (text, expected) in [
            (format!("{good}\nbob"), "line 2: the hash of user bob"),
            (format!("{good}\n{good}"), "line 2: user ann stands in the file twice"),
            ("ann:plain:prn::/,READ".to_owned(), "line 1: the hash"),
            (good.replace("$600000$", "$1$"), "line 1: the hash"),
            (good.replace(NAME, "md5"), "line 1: the hash"),
            (format!("ann:{hash}$x:"), "line 1: the hash"),
            (format!("a b:{hash}:"), "line 1: user \"a b\""),
            (format!("ann:{hash}:prn::/,ALL"), "line 1: \"ALL\" is no permission"),
        ] {
            let found = users(&text).unwrap_err().to_string();
            assert!(found.starts_with(expected), "{text}: {found}");
        }
    }

    #[test]
    fn no_line_is_made_that_could_not_be_read() {
        for (user, password, acl) in
            [("", "x", ""), ("a:b", "x", ""), ("#a", "x", ""), ("a", "", ""), ("a", "x\ny", ""), ("a", "x", "prn::/")]
        {
            assert!(password_line(user, password, acl).is_err(), "{user} {password} {acl}");
        }
    }
}
