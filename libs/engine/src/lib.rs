//! Runs queries and row expressions over Arrow batches, on DataFusion.
//!
//! Owns the execution of one-off queries ([`run_select`]) over tables whose batches have different inferred schemas, with
//! projection and time ranges pushed down to them ([`TableSource`]) and with limits of rows, memory and time; filtering
//! and projecting batches for jobs ([`Stage`]); results as JSON, CSV and Arrow ([`ResultSet`]); and reading chunks by
//! column ([`Chunks`]).
//! Deliberately does not know: where a table's segments are, subjects, HTTP, or how jobs are planned. It names no object
//! store to DataFusion: tables hand in batches.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use engine::{Limits, Rows, run_select};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let select = query::parse_select("SELECT count(*) AS n FROM shop")?;
//! let empty = Arc::new(Rows::new(Vec::new()));
//! let limits = Limits { rows_max: 100, memory_bytes: 64 << 20, timeout: Duration::from_secs(5) };
//! let result = run_select(&select, vec![("shop".parse()?, empty)], limits).await?;
//! assert_eq!(result.to_json_rows()?[0].get(), r#"{"n":0}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chunks;
mod error;
mod provider;
mod result;
mod run;
mod session;
mod stage;
mod table;
mod time_range;

pub use chunks::{Chunks, SCHEMAS_KEPT_MAX};
pub use error::EngineError;
pub use result::{ResultColumn, ResultSet, Stats, json_rows};
pub use run::{Limits, run_select};
pub use stage::{PLANS_KEPT_MAX, Stage};
pub use table::{BatchStream, Rows, ScanRequest, TableSource};
pub use time_range::TimeRange;
