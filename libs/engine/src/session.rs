//! DataFusion sessions: our dialect, no files, no spilling, names as they are written.
//!
//! What all sessions have in common (some hundred functions and rules) is made once.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    },
    common::config::Dialect,
    error::DataFusionError,
    execution::{
        FunctionRegistry, SessionState, SessionStateBuilder, TaskContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    prelude::{SessionConfig, SessionContext},
};

use crate::{
    distinct::OrderedGroupsAreWhole, distinct_ids::DistinctIdsRule, facet::facet, scan::CountersRule,
    signatures::signatures, templates::templates, yielding::JoinsYield,
};

/// Rows that an operator hands on at a time.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// Partitions of a query: it shares the machine with ingest and with other queries.
const PARTITIONS_MAX: usize = 8;

/// What a scan in order may be ahead of who takes its rows; these lie in its own memory anyway.
const AHEAD_BYTES: usize = 1 << 20;

static BASE: LazyLock<SessionState> = LazyLock::new(base);

fn base() -> SessionState {
    let partitions = std::thread::available_parallelism().map_or(1, usize::from).min(PARTITIONS_MAX);
    let mut config = SessionConfig::new().with_batch_size(BATCH_ROWS).with_target_partitions(partitions);
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    // Fields of logs are case-sensitive: `userId` must be found as it is written.
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.execution.sort_pushdown_buffer_capacity = AHEAD_BYTES;
    // Scans come in parts by themselves; dealt out again, rows in order would be in none.
    options.optimizer.enable_round_robin_repartition = false;
    // What `min(a)` and `max(b)` have found so far tells nothing of rows that have one of them only, or of `max(b + 1)` beside
    // them: these would be left out.
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // The first rows of each part of a window would be told by what all parts have found together: rows between them were
    // left out.
    options.optimizer.enable_window_limits = false;
    let mut state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_optimizer_rule(Arc::new(CountersRule))
        .with_optimizer_rule(Arc::new(DistinctIdsRule))
        .with_physical_optimizer_rule(Arc::new(OrderedGroupsAreWhole))
        .with_physical_optimizer_rule(Arc::new(JoinsYield))
        .build();
    for aggregate in [templates(), signatures(), facet()] {
        let name = aggregate.name().to_owned();
        if let Err(error) = state.register_udaf(Arc::new(aggregate)) {
            tracing::error!(name, %error, "aggregate not registered");
        }
    }
    state
}

/// A state to plan for execution with, which is given what its tables read beside.
pub(crate) fn state() -> SessionState {
    BASE.clone()
}

/// A session of which the tables are its own and the memory is not bounded: to plan with.
pub(crate) fn planning() -> SessionContext {
    let context = SessionContext::new_with_state(BASE.clone());
    context.register_catalog_list(catalogs(&BASE));
    context
}

/// A session that may use so much memory.
pub(crate) fn session(memory_bytes: usize) -> Result<SessionContext, DataFusionError> {
    let builder = SessionStateBuilder::new_from_existing(BASE.clone());
    let state = builder.with_runtime_env(runtime(memory_bytes)?).with_catalog_list(catalogs(&BASE)).build();
    Ok(SessionContext::new_with_state(state))
}

/// What a plan of this state runs in; functions are in the plan already.
pub(crate) fn task(state: &SessionState, memory_bytes: usize) -> Result<Arc<TaskContext>, DataFusionError> {
    Ok(Arc::new(TaskContext::new(
        None,
        state.session_id().to_owned(),
        state.config().clone(),
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        runtime(memory_bytes)?,
    )))
}

fn runtime(memory_bytes: usize) -> Result<Arc<RuntimeEnv>, DataFusionError> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_limit(memory_bytes, 1.0)
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build()?;
    Ok(Arc::new(runtime))
}

/// A place for tables that are of one query.
fn catalogs(base: &SessionState) -> Arc<dyn CatalogProviderList> {
    let (names, catalog, all) =
        (&base.config_options().catalog, MemoryCatalogProvider::new(), MemoryCatalogProviderList::new());
    // It takes schemas, and is new.
    if let Err(error) = catalog.register_schema(&names.default_schema, Arc::new(MemorySchemaProvider::new())) {
        tracing::error!(%error, "schema of a query not registered");
    }
    all.register_catalog(names.default_catalog.clone(), Arc::new(catalog));
    Arc::new(all)
}
