//! The REST interface, with Pravega's paths and JSON: every replica serves it, reads from its applied journal, and has the leader
//! carry out changes by the coordinator's own calls.

mod acl;
mod answer;
mod door;
mod groups;
mod guard;
mod health;
mod password;
mod resize;
mod scaling;
mod scopes;
mod shape;
mod streams;

use actix_web::dev::ServerHandle;
use bus::Bucket;
use host::{Host, Ledger, StartError};
use wire::views::LEASES;

use self::{door::Front, guard::Guard};
use crate::{Config, State};

pub use password::{PasswordError, password_line};

/// Serves until the handle is stopped; `None` when it is off.
pub(crate) async fn serve(
    config: &Config,
    host: &Host,
    ledger: &Ledger<State>,
    members: Bucket,
    groups: Bucket,
) -> Result<Option<ServerHandle>, StartError> {
    if config.rest_address.is_empty() {
        return Ok(None);
    }
    let guard = Guard::open(&config.rest_password_file).await?;
    let leases = host.bus.bucket(LEASES, Some(host.common.lease_ttl.0), host.common.journal_replicas).await?;
    let front = Front { host: host.clone(), ledger: ledger.clone(), guard: guard.clone(), members, leases, groups };
    let address = || config.rest_address.clone();
    let (server, handle) =
        front.serve(&config.rest_address).map_err(|source| StartError::Address { address: address(), source })?;
    let gone = host.clone();
    host.spawn_local("rest", async move {
        if let Err(source) = server.await {
            gone.fail(StartError::Io { what: "the REST interface ended".to_owned(), source });
        }
    });
    host.spawn_local("passwords", guard.follow(host.clone()));
    Ok(Some(handle))
}
