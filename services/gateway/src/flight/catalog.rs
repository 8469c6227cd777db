//! What there is to ask of: indexes as tables, without catalogs and schemas.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use arrow_flight::sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables};
use types::IndexName;
use wire::Problem;

use super::defect;
use crate::{api::Door, auth::Principal, error::HttpError, platform::askable, sql};

/// What an index is called.
const TABLE: &str = "TABLE";
/// The name of what has none, by the specification.
const NONE: &str = "";
/// Tables whose columns are told at once: each costs as much as a query that is planned.
const SCHEMAS_MAX: usize = 100;
/// The column of a table's name.
const NAMES: &str = "table_name";

/// The indexes that somebody may read, by name.
async fn indexes(door: &Door, principal: &Principal) -> Result<Vec<IndexName>, HttpError> {
    let all = askable(&*door.platform).await?.into_iter();
    Ok(all.filter(|index| principal.may_read(index).is_ok()).collect())
}

/// The tables that pass the filters, with their columns where they are wanted.
///
/// Bounds: columns of [`SCHEMAS_MAX`] tables, then BadRequest `TooManyTables`.
pub(super) async fn tables(
    door: &Door,
    principal: &Principal,
    wanted: CommandGetTables,
) -> Result<RecordBatch, HttpError> {
    let named = tables_of(&CommandGetTables { include_schema: false, ..wanted.clone() }, {
        indexes(door, principal).await?.into_iter().map(|index| (index.to_string(), Schema::empty()))
    })?;
    if !wanted.include_schema {
        return Ok(named);
    }
    let names = named.column_by_name(NAMES).and_then(|names| names.as_string_opt::<i32>());
    let names: Vec<_> = names.into_iter().flatten().flatten().collect();
    if names.len() > SCHEMAS_MAX {
        let message = format!("{} tables pass the filter, and columns are told of {SCHEMAS_MAX} at once", names.len());
        return Err(Problem::bad_request("TooManyTables", message).into());
    }
    let mut with = Vec::with_capacity(names.len());
    for name in names {
        let schema = sql::schema(door, principal, &format!("SELECT * FROM \"{name}\"")).await?;
        with.push((name.to_owned(), Schema::clone(&schema)));
    }
    tables_of(&wanted, with)
}

fn tables_of(
    wanted: &CommandGetTables,
    all: impl IntoIterator<Item = (String, Schema)>,
) -> Result<RecordBatch, HttpError> {
    let mut tables = wanted.clone().into_builder();
    for (name, schema) in all {
        tables.append(NONE, NONE, &name, TABLE, &schema).map_err(|error| defect(&error))?;
    }
    tables.build().map_err(|error| defect(&error))
}

pub(super) fn catalogs() -> Result<RecordBatch, HttpError> {
    CommandGetCatalogs {}.into_builder().build().map_err(|error| defect(&error))
}

/// One that has no name: it is where the tables are.
pub(super) fn schemas(wanted: CommandGetDbSchemas) -> Result<RecordBatch, HttpError> {
    let mut schemas = wanted.into_builder();
    schemas.append(NONE, NONE);
    schemas.build().map_err(|error| defect(&error))
}

pub(super) fn table_types() -> Result<RecordBatch, HttpError> {
    let mut types = CommandGetTableTypes {}.into_builder();
    types.append(TABLE);
    types.build().map_err(|error| defect(&error))
}

/// No rows: events have no keys.
pub(super) fn nothing(schema: &SchemaRef) -> Result<RecordBatch, HttpError> {
    Ok(RecordBatch::new_empty(Arc::clone(schema)))
}

fn columns<const N: usize>(all: [(&str, DataType, bool); N]) -> SchemaRef {
    let fields = all.map(|(name, of, nullable)| Field::new(name, of, nullable));
    Arc::new(Schema::new(Vec::from(fields)))
}

/// The columns of primary keys.
pub(super) static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    columns([
        ("catalog_name", DataType::Utf8, true),
        ("db_schema_name", DataType::Utf8, true),
        ("table_name", DataType::Utf8, false),
        ("column_name", DataType::Utf8, false),
        ("key_name", DataType::Utf8, true),
        ("key_sequence", DataType::Int32, false),
    ])
});

/// The columns of keys that lead from one table to another.
pub(super) static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    columns([
        ("pk_catalog_name", DataType::Utf8, true),
        ("pk_db_schema_name", DataType::Utf8, true),
        ("pk_table_name", DataType::Utf8, false),
        ("pk_column_name", DataType::Utf8, false),
        ("fk_catalog_name", DataType::Utf8, true),
        ("fk_db_schema_name", DataType::Utf8, true),
        ("fk_table_name", DataType::Utf8, false),
        ("fk_column_name", DataType::Utf8, false),
        ("key_sequence", DataType::Int32, false),
        ("fk_key_name", DataType::Utf8, true),
        ("pk_key_name", DataType::Utf8, true),
        ("update_rule", DataType::UInt8, false),
        ("delete_rule", DataType::UInt8, false),
    ])
});
