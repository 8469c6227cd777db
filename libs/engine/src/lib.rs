//! Runs queries and row expressions over Arrow batches, on DataFusion.
//!
//! Owns the execution of one-off queries ([`run_select`]) over tables of chunks and rows whose schemas differ
//! ([`TableSource`]), reading of them no more than filters, columns and order ask for ([`ScanStats`]), with limits of rows,
//! memory, time and bytes; the same while they run ([`run_select_stream`]); filtering and projecting batches for jobs ([`Stage`]); results as JSON, CSV and Arrow
//! ([`ResultSet`]); and what is kept of chunks in memory ([`Chunks`]).
//! Deliberately does not know: which segments a table has, how a chunk is laid out, subjects, HTTP, or how jobs are planned.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use engine::{Limits, Rows, run_select};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let select = query::parse_select("SELECT count(*) AS n FROM shop")?;
//! let empty = Arc::new(Rows::new(Vec::new()));
//! let limits = Limits { rows_max: 100, timeout: Duration::from_secs(5), ..Limits::default() };
//! let result = run_select(&select, vec![("shop".parse()?, empty)], limits).await?;
//! assert_eq!(result.to_json_rows()?[0].get(), r#"{"n":0}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod chunks;
mod counts;
mod distinct;
mod distinct_ids;
mod error;
mod export;
mod facet;
mod figures;
mod flights;
mod fragment;
mod partial;
mod plans;
mod provider;
mod result;
mod run;
mod said;
mod scan;
mod session;
mod signatures;
mod stage;
mod streamed;
mod table;
mod templates;
mod turns;
mod views;
mod yielding;

pub use chunks::{CHUNK_CACHE_BYTES, Chunks, SCHEMAS_KEPT_MAX};
pub use counts::is_counted;
pub use error::EngineError;
pub use export::{from_parquet, to_parquet};
pub use facet::{FACET_VALUES_MAX, Facet};
pub use figures::Figures;
pub use fragment::{
    FRAGMENT_ROWS_MAX, Fragment, FragmentRows, FragmentStats, Scatter, Scattered, Whole, batches_of, run_fragment,
    run_scattered, schema_of, schema_to_ipc,
};
pub use result::{ResultColumn, ResultSet, Stats, json_rows};
pub use run::{Limits, run_select};
pub use scan::{Progress, ScanStats};
pub use signatures::{BUCKETS_MAX, SEVERITIES, SIGNATURES_MAX, Signed};
pub use stage::{FailureKind, PLANS_KEPT_MAX, RowFailure, Stage};
pub use streamed::{End, Part, run_select_stream};
pub use table::{BatchStream, ChunkPiece, Piece, Rows, TableSource};
