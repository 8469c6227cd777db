//! The calls of Flight SQL, one by one.

use std::{future::ready, pin::Pin};

use arrow_flight::{
    Action, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, Ticket,
    sql::{
        ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
        CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
        CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
        CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest,
        CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult, SqlInfo, TicketStatementQuery,
        server::{FlightSqlService, PeekableFlightDataStream},
    },
};
use bytes::Bytes;
use futures::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Answer, Flight, Rows,
    catalog::{self, FOREIGN_KEYS, PRIMARY_KEYS},
    defect, facts, written,
};
use crate::grpc::{caller, for_queries, token};

type Handshakes = Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>;

/// What would change something.
fn refused() -> Status {
    Status::invalid_argument(
        "Flight SQL only reads here: begin with SELECT or WITH; events are published through the other doors of the index",
    )
}

fn text_of(handle: &Bytes) -> Result<&str, Status> {
    std::str::from_utf8(handle).map_err(|_| Status::invalid_argument("this is no handle of a statement"))
}

#[tonic::async_trait]
impl FlightSqlService for Flight {
    type FlightService = Self;

    /// Answers the token of a binding, sent as a password, as the bearer token that it is.
    async fn do_handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Answer<Handshakes> {
        let metadata = request.metadata();
        self.told(metadata, caller(&self.door, metadata)).await?;
        let token = token(metadata).unwrap_or_default();
        let bearer = format!("Bearer {token}").parse();
        let bearer = bearer.map_err(|_| Status::invalid_argument("the token is no text of one line"))?;
        let said = HandshakeResponse { protocol_version: 0, payload: token.into() };
        let mut answer = Response::new(Box::pin(stream::iter([Ok(said)])) as Handshakes);
        answer.metadata_mut().insert("authorization", bearer);
        Ok(answer)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let ticket = TicketStatementQuery { statement_handle: query.query.clone().into() };
        self.statement(request, &query.query, ticket).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Rows {
        self.rows(request, text_of(&ticket.statement_handle)?).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let columns = self.columns(request.metadata(), &query.query).await?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: query.query.into(),
            dataset_schema: written(&columns).map_err(|error| for_queries(&error))?,
            // There are none.
            parameter_schema: Bytes::new(),
        })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let handle = query.prepared_statement_handle.clone();
        self.statement(request, text_of(&handle)?, query).await
    }

    async fn do_get_prepared_statement(&self, query: CommandPreparedStatementQuery, request: Request<Ticket>) -> Rows {
        self.rows(request, text_of(&query.prepared_statement_handle)?).await
    }

    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        // Nothing was kept.
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        _: CommandPreparedStatementQuery,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        Err(Status::invalid_argument("statements have no parameters here: write the values into the text"))
    }

    async fn do_put_statement_update(
        &self,
        _: CommandStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(refused())
    }

    async fn do_put_statement_ingest(
        &self,
        _: CommandStatementIngest,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(refused())
    }

    async fn do_put_prepared_statement_update(
        &self,
        _: CommandPreparedStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(refused())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        self.listed(request, query, &query.into_builder().schema()).await
    }

    async fn do_get_catalogs(&self, _: CommandGetCatalogs, request: Request<Ticket>) -> Rows {
        self.list(request, ready(catalog::catalogs())).await
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let schema = query.clone().into_builder().schema();
        self.listed(request, query, &schema).await
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Rows {
        self.list(request, ready(catalog::schemas(query))).await
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let schema = query.clone().into_builder().schema();
        self.listed(request, query, &schema).await
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Rows {
        let metadata = request.metadata();
        let principal = self.told(metadata, caller(&self.door, metadata)).await?;
        self.list(request, Box::pin(catalog::tables(&self.door, &principal, query))).await
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        self.listed(request, query, &query.into_builder().schema()).await
    }

    async fn do_get_table_types(&self, _: CommandGetTableTypes, request: Request<Ticket>) -> Rows {
        self.list(request, ready(catalog::table_types())).await
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let facts = facts::of_server(self.door.config.query_timeout).map_err(|error| for_queries(&defect(&error)))?;
        self.listed(request, query, &facts.schema()).await
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, request: Request<Ticket>) -> Rows {
        let facts = facts::of_server(self.door.config.query_timeout).and_then(|facts| facts::wanted(query, &facts));
        self.list(request, ready(facts.map_err(|error| defect(&error)))).await
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let types = facts::types().map_err(|error| for_queries(&defect(&error)))?;
        self.listed(request, query, &types.schema()).await
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, request: Request<Ticket>) -> Rows {
        let types = facts::types().and_then(|types| facts::types_wanted(query, &types));
        self.list(request, ready(types.map_err(|error| defect(&error)))).await
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        self.listed(request, query, &PRIMARY_KEYS).await
    }

    async fn do_get_primary_keys(&self, _: CommandGetPrimaryKeys, request: Request<Ticket>) -> Rows {
        self.list(request, ready(catalog::nothing(&PRIMARY_KEYS))).await
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        self.listed(request, query, &FOREIGN_KEYS).await
    }

    async fn do_get_exported_keys(&self, _: CommandGetExportedKeys, request: Request<Ticket>) -> Rows {
        self.list(request, ready(catalog::nothing(&FOREIGN_KEYS))).await
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        self.listed(request, query, &FOREIGN_KEYS).await
    }

    async fn do_get_imported_keys(&self, _: CommandGetImportedKeys, request: Request<Ticket>) -> Rows {
        self.list(request, ready(catalog::nothing(&FOREIGN_KEYS))).await
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        self.listed(request, query, &FOREIGN_KEYS).await
    }

    async fn do_get_cross_reference(&self, _: CommandGetCrossReference, request: Request<Ticket>) -> Rows {
        self.list(request, ready(catalog::nothing(&FOREIGN_KEYS))).await
    }

    /// What is known of the server is always the same.
    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}
