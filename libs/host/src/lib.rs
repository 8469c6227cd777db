//! What every service does besides its job.
//!
//! Owns the frame of a service: settings to connections ([`Host`]), lease, restore, replay and fenced appends of a control service
//! ([`Ledger`]), what only a leader does ([`while_leading`], [`keep_serving`], [`run_effects`]), start and drain order ([`run`],
//! [`start_in_process`]), the process's certificate and when it is read again, what
//! the users of an index may still take ([`Quotas`]), the keys of encrypted indexes ([`IndexKeyring`]), places at a door that no index takes all of ([`Places`]), and the probes
//! of Kubernetes.
//! Deliberately does not know: any service, any message, what a state means, how NATS or object storage work.
//!
//! ```no_run
//! use host::{ControlState, Host, Ledger, Running, Service, StartError};
//! use serde::{Deserialize, Serialize};
//! use types::Timestamp;
//! use wire::Problem;
//!
//! #[derive(Default, Clone, Serialize, Deserialize)]
//! struct Rules {
//!     names: Vec<String>,
//! }
//!
//! impl ControlState for Rules {
//!     const SERVICE: wire::Service = wire::Service::Alerter;
//!     type Command = String;
//!     type Event = String;
//!     type Error = Problem;
//!     fn decide(&self, name: String, _now: Timestamp) -> Result<Vec<String>, Problem> {
//!         if self.names.contains(&name) {
//!             return Err(Problem::conflict("RuleExists", name));
//!         }
//!         Ok(vec![name])
//!     }
//!     fn apply(&mut self, name: &String, _at: Timestamp) {
//!         self.names.push(name.clone());
//!     }
//! }
//!
//! #[derive(serde::Deserialize)]
//! struct Config {}
//! impl settings::Section for Config {
//!     const NAME: &'static str = "alerter";
//! }
//!
//! struct Alerter;
//! impl Service for Alerter {
//!     const NAME: wire::Service = wire::Service::Alerter;
//!     type Config = Config;
//!     async fn start(_config: Config, host: Host) -> Result<Running, StartError> {
//!         let ledger = Ledger::<Rules>::start(&host).await?;
//!         let leading = {
//!             let ledger = ledger.clone();
//!             async move {
//!                 host::while_leading(&ledger, |token| async move {
//!                     // Open the command doors here, close them when the token says so.
//!                     token.cancelled().await;
//!                 })
//!                 .await
//!             }
//!         };
//!         host.spawn("leading", leading);
//!         Ok(Running::idle())
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let settings = settings::Settings::load(settings::Layers::default())?;
//!     Ok(host::run::<Alerter>(settings, None)?)
//! }
//! ```

mod announce;
mod certificate;
mod control;
mod effect;
mod error;
mod guest;
mod index_keys;
mod keyring;
mod ledger;
mod listen;
mod metrics;
mod places;
mod probe;
mod quotas;
mod run;
mod secret;
mod watch;

pub use announce::Announcement;
pub use certificate::tls_of;
pub use control::{ControlState, ENTRY_BYTES_MAX};
pub use effect::{EFFECTS_IN_FLIGHT_MAX, Free, Turn, Turns, keep_serving, run_effects, while_leading};
pub use error::StartError;
pub use guest::Host;
pub use index_keys::{INDEX_KEYS_MAX, IndexKeyring, Rewrapped};
pub use keyring::{KeyringError, NamedKey, named_keys};
pub use ledger::Ledger;
pub use places::{Place, Places};
pub use quotas::{OverQuota, QueryPermit, Quotas};
pub use run::{DRAIN_MAX, InProcess, Running, Service, run, start_in_process};
pub use watch::{Seen, Watch};
