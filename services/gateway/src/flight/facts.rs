//! What a driver asks about the server before it asks anything else.

use arrow::array::RecordBatch;
use arrow_flight::{
    error::Result,
    sql::{
        CommandGetSqlInfo, CommandGetXdbcTypeInfo, Nullable, Searchable, SqlInfo, SqlSupportedTransaction,
        XdbcDataType,
        metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder},
    },
};
use types::DurationText;

/// The version of Arrow's format that is written.
const ARROW_VERSION: &str = "1.5";

/// What the server is and may do: it only reads.
pub(super) fn of_server(query_timeout: DurationText) -> Result<SqlInfoData> {
    let mut facts = SqlInfoDataBuilder::new();
    facts.append(SqlInfo::FlightSqlServerName, "Logboom");
    facts.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    facts.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_VERSION);
    facts.append(SqlInfo::FlightSqlServerReadOnly, true);
    facts.append(SqlInfo::FlightSqlServerSql, true);
    facts.append(SqlInfo::FlightSqlServerSubstrait, false);
    facts.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    facts.append(SqlInfo::FlightSqlServerCancel, false);
    facts.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    let timeout = i32::try_from(query_timeout.0.as_millis()).unwrap_or(i32::MAX);
    facts.append(SqlInfo::FlightSqlServerStatementTimeout, timeout);
    facts.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    facts.append(SqlInfo::SqlDdlCatalog, false);
    facts.append(SqlInfo::SqlDdlSchema, false);
    facts.append(SqlInfo::SqlDdlTable, false);
    facts.build()
}

/// Those that are wanted.
pub(super) fn wanted(wanted: CommandGetSqlInfo, facts: &SqlInfoData) -> Result<RecordBatch> {
    wanted.into_builder(facts).build()
}

/// The types that columns have.
pub(super) fn types() -> Result<XdbcTypeInfoData> {
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, of, size, quote) in [
        ("VARCHAR", XdbcDataType::XdbcVarchar, None, Some("'")),
        ("BIGINT", XdbcDataType::XdbcBigint, Some(64), None),
        ("DOUBLE", XdbcDataType::XdbcDouble, Some(64), None),
        ("BOOLEAN", XdbcDataType::XdbcBit, Some(1), None),
        ("TIMESTAMP", XdbcDataType::XdbcTimestamp, None, Some("'")),
    ] {
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type: of,
            sql_data_type: of,
            column_size: size,
            literal_prefix: quote.map(str::to_owned),
            literal_suffix: quote.map(str::to_owned),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: of == XdbcDataType::XdbcVarchar,
            searchable: Searchable::Full,
            num_prec_radix: size.map(|_| 2),
            ..XdbcTypeInfo::default()
        });
    }
    types.build()
}

/// Those of one kind, or all.
pub(super) fn types_wanted(wanted: CommandGetXdbcTypeInfo, types: &XdbcTypeInfoData) -> Result<RecordBatch> {
    wanted.into_builder(types).build()
}
