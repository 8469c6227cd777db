//! Starting and ending the telemetry of a process.

use std::time::Duration;

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tokio::runtime::Runtime;
use tonic::transport::Endpoint;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::dial::{Dialer, TlsSource, is_exposed};

/// How long one export may take; what is not taken by then is lost.
const EXPORT_MAX: Duration = Duration::from_secs(10);
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
    /// OTLP/gRPC endpoint such as `https://collector:4317`; `None` exports nothing.
    pub otlp_endpoint: Option<String>,
    /// What an `https://` endpoint is reached with.
    pub otlp_tls: Option<TlsSource>,
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
            otlp_tls: None,
        }
    }
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter directives cannot be read.
    #[error("log filter {0:?} cannot be read: write directives such as info,segment_store=debug")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// The endpoint is none, or wants TLS that was not given.
    #[error("OTLP endpoint {0:?} must be https://host:port or http://host:port: {1}")]
    Endpoint(String, &'static str),
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
    let endpoint = options.otlp_endpoint.as_deref().map(|url| endpoint(url, options.otlp_tls.is_some())).transpose()?;
    let exposed = endpoint.as_ref().is_some_and(|endpoint| is_exposed(endpoint.uri()));
    let (provider, runtime) = provider(&options, endpoint)?;
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("logboom"))
        .with_location(false)
        .with_threads(false)
        .with_context_activation(false)
        .with_filter(LevelFilter::INFO);
    let guard = Guard { provider, runtime };
    Registry::default().with(lines.with_filter(filter)).with(traces).try_init().map_err(Error::Twice)?;
    if exposed {
        let endpoint = options.otlp_endpoint.as_deref();
        tracing::warn!(endpoint, "traces leave this host in plain text, an https:// endpoint gives them TLS");
    }
    Ok(guard)
}

fn endpoint(url: &str, tls: bool) -> Result<Endpoint, Error> {
    let refused = |reason| Error::Endpoint(url.to_owned(), reason);
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| refused("it is no URL"))?;
    match (endpoint.uri().scheme_str(), endpoint.uri().host()) {
        (Some("https"), Some(_)) if !tls => Err(refused("TLS is not set up for it")),
        (Some("http" | "https"), Some(_)) => Ok(endpoint.timeout(EXPORT_MAX).connect_timeout(EXPORT_MAX)),
        _ => Err(refused("it has another scheme, or no host")),
    }
}

fn provider(options: &Options, endpoint: Option<Endpoint>) -> Result<(SdkTracerProvider, Option<Runtime>), Error> {
    let attributes = [KeyValue::new("service.instance.id", options.replica.clone())];
    let resource =
        Resource::builder_empty().with_service_name(options.service.clone()).with_attributes(attributes).build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = endpoint else {
        // Ids only; a caller's wish to be sampled is still passed on.
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        return Ok((builder.with_sampler(sampler).build(), None));
    };
    // The exporter needs a runtime that is never blocked by a service's own work.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("otlp")
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let exporter = {
        let _inside = runtime.enter();
        let dialer = Dialer::new(options.otlp_tls.clone());
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |uri| dialer.clone().dial(uri)));
        SpanExporter::builder().with_tonic().with_channel(channel).with_timeout(EXPORT_MAX).build()
    };
    let exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            runtime.shutdown_background();
            return Err(Error::Exporter(endpoint.uri().to_string(), error));
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
        for (url, words) in
            [("https://x", "not set up"), ("ftp://x", "scheme"), ("x", "no host"), ("http://", "no URL")]
        {
            let refused = init(Options { otlp_endpoint: Some(url.into()), ..Options::new("test") }).unwrap_err();
            assert!(matches!(refused, Error::Endpoint(..)) && refused.to_string().contains(words), "{refused}");
        }
        assert!(!tracing::dispatcher::has_been_set());
    }
}
