//! Layered, documented, validated configuration.
//!
//! Owns how a setting gets its value (compiled-in defaults < files < environment < `--set`), where that value came from, what is
//! wrong with it, and that secrets are only ever references. `deploy/settings/default.toml` is the complete list: a key that does
//! not stand there is an error.
//! Deliberately does not know: files, the process environment (callers hand in texts and pairs), or what a service does with its
//! section. There is no global: every service receives [`Common`] and its own section by value.
//!
//! ```
//! use settings::{Common, Layers, Settings};
//!
//! let layers = Layers {
//!     files: vec![("logboom.toml".into(), "[common]\nlease_ttl = \"3s\"".into())],
//!     env: vec![("LOGBOOM__COMMON__LEASE_TTL".into(), "4s".into())],
//!     set: vec!["common.container_count=16".into()],
//! };
//! let settings = Settings::load(layers)?;
//! let common = settings.section::<Common>()?;
//! assert_eq!(common.lease_ttl.to_string(), "4s");
//! assert_eq!(common.container_count, 16);
//!
//! let typo = Layers { set: vec!["common.leese_ttl=1s".into()], ..Layers::default() };
//! let findings = Settings::load(typo).unwrap_err();
//! assert!(findings.to_string().contains("did you mean common.lease_ttl?"));
//! # Ok::<(), settings::Findings>(())
//! ```

mod common_section;
mod finding;
mod layers;
mod reference;
mod secret;

pub use common_section::{Common, LogFormat};
pub use finding::{FINDINGS_MAX, Finding, Findings};
pub use layers::{Layers, Section, Settings};
pub use reference::reference_markdown;
pub use secret::{Secret, SecretRef};

/// The compiled-in defaults: the complete, commented list of settings.
pub const DEFAULTS: &str = include_str!("../../../deploy/settings/default.toml");
