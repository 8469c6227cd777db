//! Arrow Flight SQL: statements of SQL, and what there is to ask of, as drivers of ADBC and JDBC want it.
//!
//! Nothing is kept between calls: the handle of a statement is its text, so that any replica answers with it. It only reads, by the same
//! way as `POST /api/v1/query`, whose limits and quotas it has.

mod catalog;
mod facts;
mod results;
mod sending;
mod service;

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::IpcWriteOptions,
};
use arrow_flight::{
    FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket,
    flight_service_server::{FlightService, FlightServiceServer},
    sql::ProstMessageExt,
};
use bus::with_origin;
use bytes::Bytes;
use prost::Message;
use tonic::{
    Request, Response, Status,
    metadata::{MetadataMap, MetadataValue},
};
use wire::Problem;

use self::results::Results;
use crate::{
    api::Door,
    error::HttpError,
    grpc::{OpenCall, caller, for_queries, origin},
    metrics::{QUERIES, QUERY_TIME},
    sql,
};

/// The largest message of a call: a statement, or the names of what is looked for.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Results that are sent at once, half of them to tokens of one index; beyond it there is no place. Each is in memory, and keeps its
/// place, until its connection took the last message, or took none for too long.
const RESULTS_MAX: usize = 64;

type Answer<T> = Result<Response<T>, Status>;
type Rows = Answer<<Flight as FlightService>::DoGetStream>;

/// The service.
pub(crate) fn service(door: Door) -> FlightServiceServer<Flight> {
    let results = Results::new(RESULTS_MAX, door.answers.clone());
    let flight = Flight { door, results };
    FlightServiceServer::new(flight).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// Answers calls.
pub(crate) struct Flight {
    door: Door,
    results: Results,
}

impl Flight {
    /// Does something on behalf of a call.
    async fn told<T>(
        &self,
        metadata: &MetadataMap,
        work: impl Future<Output = Result<T, HttpError>>,
    ) -> Result<T, Status> {
        let done = with_origin(origin(&self.door, metadata), work).await;
        done.map_err(|error| {
            tracing::debug!(%error, "Flight call refused");
            for_queries(&error)
        })
    }

    /// The rows of a statement, each once it is wanted; their header `x-truncated` says whether there are more.
    ///
    /// Bounds: those of a query; [`RESULTS_MAX`] and the memory of all answers, then Throttled `TooManyResults`.
    async fn rows<T>(&self, request: Request<T>, text: &str) -> Rows {
        let (metadata, extensions, _) = request.into_parts();
        let work = async {
            let principal = caller(&self.door, &metadata).await?;
            let place = self.results.place(&principal)?;
            let result = sql::answer(&self.door, &principal, text).await;
            QUERIES.with(if result.is_ok() { "answered" } else { "failed" }).inc();
            let result = result?;
            QUERY_TIME.observe_duration(result.stats.elapsed);
            let room = self.results.room(&principal, &result.batches)?;
            Ok((result, place, room))
        };
        let (result, place, room) = self.told(&metadata, work).await?;
        let held = (place, room, extensions.get::<OpenCall>().cloned());
        let mut answer = Response::new(sending::rows(result.schema, result.batches, held));
        let truncated = MetadataValue::from_static(if result.truncated { "true" } else { "false" });
        answer.metadata_mut().insert("x-truncated", truncated);
        Ok(answer)
    }

    /// Where the rows of a statement are, once it is read and whoever calls may read what it names.
    async fn statement(
        &self,
        request: Request<FlightDescriptor>,
        text: &str,
        ticket: impl ProstMessageExt,
    ) -> Answer<FlightInfo> {
        let (metadata, _, descriptor) = request.into_parts();
        let work = async {
            let principal = caller(&self.door, &metadata).await?;
            sql::check(&principal, text)
        };
        self.told(&metadata, work).await?;
        Ok(Response::new(info(descriptor, &ticket)))
    }

    /// The columns of a statement.
    async fn columns(&self, metadata: &MetadataMap, text: &str) -> Result<SchemaRef, Status> {
        let work = async {
            let principal = caller(&self.door, metadata).await?;
            sql::schema(&self.door, &principal, text).await
        };
        self.told(metadata, work).await
    }

    /// Where the rows of a command are that says what there is.
    async fn listed(
        &self,
        request: Request<FlightDescriptor>,
        command: impl ProstMessageExt,
        schema: &Schema,
    ) -> Answer<FlightInfo> {
        let (metadata, _, descriptor) = request.into_parts();
        self.told(&metadata, caller(&self.door, &metadata)).await?;
        let info = info(descriptor, &command).try_with_schema(schema);
        info.map(Response::new).map_err(|error| for_queries(&defect(&error)))
    }

    /// The rows of such a command, for whoever has a token. Bounds: as [`rows`](Self::rows).
    async fn list<T>(&self, request: Request<T>, list: impl Future<Output = Result<RecordBatch, HttpError>>) -> Rows {
        let (metadata, extensions, _) = request.into_parts();
        let work = async {
            let principal = caller(&self.door, &metadata).await?;
            let place = self.results.place(&principal)?;
            let batch = list.await?;
            let room = self.results.room(&principal, std::slice::from_ref(&batch))?;
            Ok((batch, place, room))
        };
        let (batch, place, room) = self.told(&metadata, work).await?;
        let held = (place, room, extensions.get::<OpenCall>().cloned());
        Ok(Response::new(sending::rows(batch.schema(), vec![batch], held)))
    }
}

/// That all rows are here, for this ticket.
fn info(descriptor: FlightDescriptor, ticket: &impl ProstMessageExt) -> FlightInfo {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.as_any().encode_to_vec()));
    FlightInfo::new()
        .with_descriptor(descriptor)
        .with_endpoint(endpoint)
        .with_total_records(-1)
        .with_total_bytes(-1)
        .with_ordered(true)
}

/// A schema as a message.
fn written(schema: &Schema) -> Result<Bytes, HttpError> {
    let options = IpcWriteOptions::default();
    let message: Result<IpcMessage, ArrowError> = SchemaAsIpc::new(schema, &options).try_into();
    message.map(|message| message.0).map_err(|error| defect(&error))
}

fn defect(error: &impl std::fmt::Display) -> HttpError {
    Problem::internal(format_args!("the answer cannot be written: {error}")).into()
}

#[cfg(test)]
mod tests;
