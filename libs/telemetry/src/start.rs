//! Starting and ending the telemetry of a process.

use std::time::Duration;

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tokio::runtime::Runtime;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

/// How long the last spans may take to leave when the process ends.
const LAST_EXPORT_MAX: Duration = Duration::from_secs(2);

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line; the fields of enclosing spans (`trace_id`) come in `spans`.
    Json,
    /// For people.
    Text,
}

/// What [`init`] is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Format of log lines.
    pub format: Format,
    /// Which log lines are written, as tracing-subscriber directives: `info,segment_store=debug`.
    pub filter: String,
    /// Name of the service in traces.
    pub service: String,
    /// Name of the replica in traces.
    pub replica: String,
    /// OTLP/gRPC endpoint such as `http://collector:4317`; `None` exports nothing.
    pub otlp_endpoint: Option<String>,
}

impl Options {
    /// Text lines from level info, nothing exported.
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            format: Format::Text,
            filter: "info".into(),
            service: service.into(),
            replica: String::new(),
            otlp_endpoint: None,
        }
    }
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter directives cannot be read.
    #[error("log filter {0:?} cannot be read: write directives such as info,segment_store=debug")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// The endpoint is not plain HTTP.
    #[error("OTLP endpoint {0:?}: only http://host:port is supported; use a collector beside the process")]
    Endpoint(String),
    /// The exporter could not be built.
    #[error("OTLP exporter for {0:?} could not be built")]
    Exporter(String, #[source] opentelemetry_otlp::ExporterBuildError),
    /// The exporter's runtime could not be started.
    #[error("runtime of the OTLP exporter could not be started")]
    Runtime(#[source] std::io::Error),
    /// Some telemetry was started before in this process.
    #[error("telemetry was started twice in one process")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps telemetry alive; sends the last spans when dropped.
#[derive(Debug)]
#[must_use = "dropping the guard ends the export of traces"]
pub struct Guard {
    provider: SdkTracerProvider,
    runtime: Option<Runtime>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            if let Err(error) = self.provider.shutdown_with_timeout(LAST_EXPORT_MAX) {
                tracing::warn!(?error, "last traces were not exported");
            }
            // The guard may be dropped inside another runtime, where waiting for this one would panic.
            runtime.shutdown_background();
        }
    }
}

/// Starts logs and traces of this process; metrics need no start.
///
/// Trace ids are given and passed on even when nothing is exported, so that log lines of different services can be joined.
/// Errors: see [`Error`]; nothing has been started then.
pub fn init(options: Options) -> Result<Guard, Error> {
    let filter = EnvFilter::try_new(&options.filter).map_err(|error| Error::Filter(options.filter.clone(), error))?;
    let lines = match options.format {
        Format::Json => {
            let json = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(true);
            json.with_writer(std::io::stderr).boxed()
        }
        Format::Text => fmt::layer().with_writer(std::io::stderr).boxed(),
    };
    let (provider, runtime) = provider(&options)?;
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("logboom"))
        .with_location(false)
        .with_threads(false)
        .with_context_activation(false)
        .with_filter(LevelFilter::INFO);
    let guard = Guard { provider, runtime };
    Registry::default().with(lines.with_filter(filter)).with(traces).try_init().map_err(Error::Twice)?;
    Ok(guard)
}

fn provider(options: &Options) -> Result<(SdkTracerProvider, Option<Runtime>), Error> {
    let attributes = [KeyValue::new("service.instance.id", options.replica.clone())];
    let resource =
        Resource::builder_empty().with_service_name(options.service.clone()).with_attributes(attributes).build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = &options.otlp_endpoint else {
        // Ids only; a caller's wish to be sampled is still passed on.
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        return Ok((builder.with_sampler(sampler).build(), None));
    };
    if !endpoint.starts_with("http://") {
        return Err(Error::Endpoint(endpoint.clone()));
    }
    // The exporter needs a runtime that is never blocked by a service's own work.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("otlp")
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let exporter = {
        let _inside = runtime.enter();
        SpanExporter::builder().with_tonic().with_endpoint(endpoint.clone()).build()
    };
    let exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            runtime.shutdown_background();
            return Err(Error::Exporter(endpoint.clone(), error));
        }
    };
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    Ok((builder.with_sampler(sampler).with_batch_exporter(exporter).build(), Some(runtime)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_are_refused_before_anything_starts() {
        let refused = init(Options { filter: "a=b=c".into(), ..Options::new("test") }).unwrap_err();
        assert!(matches!(refused, Error::Filter(..)), "{refused}");
        let refused = init(Options { otlp_endpoint: Some("https://x".into()), ..Options::new("test") }).unwrap_err();
        assert!(matches!(refused, Error::Endpoint(_)), "{refused}");
        assert!(!tracing::dispatcher::has_been_set());
    }
}
