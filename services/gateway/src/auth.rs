//! Who calls, and what that one may do.

use std::{sync::Arc, time::Duration};

use actix_web::HttpRequest;
use async_trait::async_trait;
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER};
use moka::sync::Cache;
use ring::digest::{SHA256, digest};
use types::{Clock, IndexName};
use wire::{
    Code, Problem,
    views::{Role, TokenGrant},
};

use crate::error::HttpError;

/// How long a looked-up token is believed: half of the second within which a revocation has to bite.
const CACHE_TTL: Duration = Duration::from_millis(500);
/// Tokens that are remembered, unknown ones included; beyond it the least used are forgotten.
const CACHE_MAX: u64 = 10_000;
/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 512;

/// Where grants are kept.
#[async_trait]
pub(crate) trait Grants: Send + Sync {
    /// The grant of a token, by the lower-case hex of its SHA-256.
    async fn grant(&self, hash: &str) -> Result<Option<TokenGrant>, Problem>;
}

#[async_trait]
impl Grants for bus::Bucket {
    async fn grant(&self, hash: &str) -> Result<Option<TokenGrant>, Problem> {
        self.get(hash).await?.map(|entry| wire::decode(&entry.value)).transpose()
    }
}

/// The one who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Holds the admin token: may do everything.
    Admin,
    /// Holds the token of a binding: may do what its role allows on its index.
    Bound(TokenGrant),
}

impl Principal {
    fn on(&self, index: &IndexName, allowed: fn(Role) -> bool, what: &str) -> Result<(), HttpError> {
        match self {
            Self::Admin => Ok(()),
            Self::Bound(grant) if grant.index != *index => Err(Problem::new(
                Code::Forbidden,
                "ForeignIndex",
                format_args!("this token is for the index {}, not for {index}", grant.index),
            )
            .into()),
            Self::Bound(grant) if allowed(grant.role) => Ok(()),
            Self::Bound(grant) => Err(Problem::new(
                Code::Forbidden,
                "RoleTooWeak",
                format_args!("the role {:?} of this token does not allow to {what} {index}", grant.role),
            )
            .into()),
        }
    }

    /// The index of a token; none for the admin.
    pub(crate) fn index(&self) -> Option<&IndexName> {
        match self {
            Self::Admin => None,
            Self::Bound(grant) => Some(&grant.index),
        }
    }

    /// May publish events to the index.
    pub(crate) fn may_write(&self, index: &IndexName) -> Result<(), HttpError> {
        self.on(index, Role::may_write, "write to")
    }

    /// Holds a token of the index, whatever its role.
    pub(crate) fn is_of(&self, index: &IndexName) -> Result<(), HttpError> {
        self.on(index, |_| true, "look at")
    }

    /// May search the index.
    pub(crate) fn may_read(&self, index: &IndexName) -> Result<(), HttpError> {
        self.on(index, Role::may_read, "read")
    }

    /// May change jobs and rules of the index.
    pub(crate) fn may_manage(&self, index: &IndexName) -> Result<(), HttpError> {
        self.on(index, |role| role == Role::Admin, "manage")
    }

    /// May look at the installation as a whole.
    pub(crate) fn is_admin(&self) -> Result<(), HttpError> {
        match self {
            Self::Admin => Ok(()),
            Self::Bound(_) => Err(Problem::new(Code::Forbidden, "AdminOnly", "this needs the admin token").into()),
        }
    }
}

/// Checks tokens.
#[derive(Clone)]
pub(crate) struct Auth {
    admin: Option<[u8; 32]>,
    grants: Arc<dyn Grants>,
    known: Cache<String, Option<Arc<TokenGrant>>>,
    clock: Arc<dyn Clock>,
}

impl Auth {
    /// With an admin token, if there is one, and the grants of bindings.
    pub(crate) fn new(admin: Option<&str>, grants: Arc<dyn Grants>, clock: Arc<dyn Clock>) -> Self {
        let known = Cache::builder().max_capacity(CACHE_MAX).time_to_live(CACHE_TTL).build();
        Self { admin: admin.filter(|token| !token.is_empty()).map(sha256), grants, known, clock }
    }

    /// Who sends this request.
    ///
    /// Errors: 401 without a token or with one that is unknown, revoked or expired; 503 where that cannot be learnt.
    pub(crate) async fn of(&self, request: &HttpRequest) -> Result<Principal, HttpError> {
        match token_of(request) {
            Some(token) => self.check(&token).await,
            None => Err(HttpError::unauthorized("send the header `Authorization: Bearer <token>`")),
        }
    }

    /// Who holds this token; cheap enough to ask twice a second for each open connection.
    pub(crate) async fn check(&self, token: &str) -> Result<Principal, HttpError> {
        let unknown = || HttpError::unauthorized("the token is not known, was revoked or has expired");
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(unknown());
        }
        let hash = sha256(token);
        if self.admin.is_some_and(|admin| same(&admin, &hash)) {
            return Ok(Principal::Admin);
        }
        let key = HEXLOWER.encode(&hash);
        let grant = match self.known.get(&key) {
            Some(known) => known,
            None => {
                let grant = self.grants.grant(&key).await?.map(Arc::new);
                self.known.insert(key, grant.clone());
                grant
            }
        };
        match grant {
            Some(grant) if grant.expires.is_none_or(|end| self.clock.now() < end) => {
                Ok(Principal::Bound(TokenGrant::clone(&grant)))
            }
            _ => Err(unknown()),
        }
    }
}

/// The token of the `Authorization` header, in any of the ways that agents have: `Bearer` and `Splunk` with the token itself, `Basic`
/// with it as the password, `ApiKey` with it as the key, also behind an id as Elasticsearch packs the two.
pub(crate) fn token_of(request: &HttpRequest) -> Option<String> {
    token_in(request.headers().get("authorization")?.to_str().ok()?)
}

/// The same of the header's value.
pub(crate) fn token_in(authorization: &str) -> Option<String> {
    let (scheme, given) = authorization.trim().split_once(' ')?;
    let given = given.trim();
    // Of those two words the second one is the secret.
    let behind_colon = || {
        let decoded = BASE64.decode(given.as_bytes()).or_else(|_| BASE64_NOPAD.decode(given.as_bytes())).ok()?;
        let pair = String::from_utf8(decoded).ok()?;
        pair.split_once(':').map(|(_, secret)| secret.to_owned())
    };
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "splunk" => Some(given.to_owned()),
        "basic" => behind_colon(),
        "apikey" => Some(behind_colon().unwrap_or_else(|| given.to_owned())),
        _ => None,
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    out
}

/// Compares in a time that does not depend on where the two differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use parking_lot::Mutex;
    use types::{ManualClock, Timestamp};

    use super::*;

    #[derive(Default)]
    struct Table {
        grants: Mutex<HashMap<String, TokenGrant>>,
        asked: Mutex<u32>,
    }

    #[async_trait]
    impl Grants for Table {
        async fn grant(&self, hash: &str) -> Result<Option<TokenGrant>, Problem> {
            *self.asked.lock() += 1;
            Ok(self.grants.lock().get(hash).cloned())
        }
    }

    fn grant(role: Role) -> TokenGrant {
        TokenGrant {
            index: "shop".parse().unwrap(),
            scope: "team".parse().unwrap(),
            binding: "b-1".parse().unwrap(),
            role,
            expires: Some(Timestamp::from_millis(1_000)),
        }
    }

    #[actix_web::test]
    async fn tokens_are_known_by_their_hash_and_end() {
        let table = Arc::new(Table::default());
        // printf secret | sha256sum
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        table.grants.lock().insert(hash.to_owned(), grant(Role::Read));
        let clock = Arc::new(ManualClock::default());
        let auth = Auth::new(Some("root"), Arc::clone(&table) as Arc<dyn Grants>, Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!(auth.check("root").await.unwrap(), Principal::Admin);
        assert_eq!(*table.asked.lock(), 0, "the admin token is not looked up");
        assert_eq!(auth.check("secret").await.unwrap(), Principal::Bound(grant(Role::Read)));
        auth.check("secret").await.unwrap();
        assert_eq!(*table.asked.lock(), 1, "a known token is believed for a while");
        for wrong in ["", "Secret", "roo", hash, &"x".repeat(600)] {
            assert!(auth.check(wrong).await.is_err(), "{wrong}");
        }
        clock.advance(Duration::from_secs(1));
        assert!(auth.check("secret").await.is_err(), "expired");
        let open = Auth::new(Some(""), table, clock);
        assert!(open.check("").await.is_err(), "an empty admin token opens nothing");
    }

    #[test]
    fn agents_send_tokens_in_their_own_ways() {
        for (header, token) in [
            ("Bearer secret", Some("secret")),
            ("bearer  secret ", Some("secret")),
            ("Splunk secret", Some("secret")),
            // printf x:secret | base64
            ("Basic eDpzZWNyZXQ=", Some("secret")),
            ("Basic secret", None),
            ("ApiKey eDpzZWNyZXQ=", Some("secret")),
            ("ApiKey eDpzZWNyZXQ", Some("secret")),
            ("ApiKey secret", Some("secret")),
            ("Digest secret", None),
            ("secret", None),
        ] {
            let request = actix_web::test::TestRequest::default().insert_header(("authorization", header));
            assert_eq!(token_of(&request.to_http_request()).as_deref(), token, "{header}");
        }
    }

    #[test]
    fn roles_allow_what_they_say() {
        let (own, foreign): (IndexName, IndexName) = ("shop".parse().unwrap(), "other".parse().unwrap());
        for (role, write, read, manage) in
            [(Role::Write, true, false, false), (Role::Read, false, true, false), (Role::Admin, true, true, true)]
        {
            let who = Principal::Bound(grant(role));
            assert_eq!(
                (who.may_write(&own).is_ok(), who.may_read(&own).is_ok(), who.may_manage(&own).is_ok()),
                (write, read, manage),
                "{role:?}"
            );
            assert!(
                who.may_write(&foreign).is_err()
                    && who.may_read(&foreign).is_err()
                    && who.may_manage(&foreign).is_err()
            );
            assert!(who.is_admin().is_err());
        }
        assert!(Principal::Admin.may_write(&foreign).is_ok() && Principal::Admin.is_admin().is_ok());
    }
}
