//! One DataFusion session: our dialect, no files, no spilling, names as they are written.

use std::sync::Arc;

use datafusion::{
    common::config::Dialect,
    error::DataFusionError,
    execution::{
        SessionStateBuilder,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::RuntimeEnvBuilder,
    },
    prelude::{SessionConfig, SessionContext},
};

use crate::{templates::templates, yielding::JoinsYield};

/// Rows that an operator hands on at a time.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// Partitions of a query: it shares the machine with ingest and with other queries.
const PARTITIONS_MAX: usize = 8;

/// A session that may use so much memory.
pub(crate) fn session(memory_bytes: usize) -> Result<SessionContext, DataFusionError> {
    let partitions = std::thread::available_parallelism().map_or(1, usize::from).min(PARTITIONS_MAX);
    let mut config = SessionConfig::new().with_batch_size(BATCH_ROWS).with_target_partitions(partitions);
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    // Fields of logs are case-sensitive: `userId` must be found as it is written.
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_limit(memory_bytes, 1.0)
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build()?;
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_runtime_env(Arc::new(runtime))
        .with_physical_optimizer_rule(Arc::new(JoinsYield))
        .build();
    let context = SessionContext::new_with_state(state);
    context.register_udaf(templates());
    Ok(context)
}
