//! Our own logs, metrics and traces.
//!
//! Owns how a process of the house logs (`tracing`, JSON or text on standard error), the registry of metrics with its Prometheus
//! page, the W3C trace context that travels in the header `traceparent`, the export of traces over OTLP, and what a panic does.
//! Deliberately does not know: which services exist, what is measured, the bus that carries the header, the door that serves the
//! page, or where settings come from.
//!
//! ```
//! use telemetry::{current_traceparent, metrics, render, span_from};
//!
//! metrics! {
//!     APPENDS: Counter = "lb_segment_store_appends_total", "Batches that were appended.";
//!     REFUSALS: Counter["reason"] = "lb_segment_store_refusals_total", "Appends that were refused.";
//!     DELAY: Histogram = "lb_segment_store_append_duration_seconds", "Time until durable.", &telemetry::SECONDS;
//! }
//!
//! register_all();
//! APPENDS.inc();
//! REFUSALS.with("throttled").add(2);
//! DELAY.observe(0.004);
//! assert!(render().contains("lb_segment_store_refusals_total{reason=\"throttled\"} 2\n"));
//!
//! let telemetry = telemetry::init(telemetry::Options::new("segment-store"))?;
//! let span = span_from(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "append");
//! let onward = span.in_scope(current_traceparent).expect("inside a span there is a context");
//! assert!(onward.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
//! # drop(telemetry);
//! # Ok::<(), telemetry::Error>(())
//! ```

mod context;
mod dial;
mod metric;
mod panic;
mod start;

pub use context::{current_traceparent, span_from};
pub use dial::TlsSource;
pub use metric::{By, Cell, Counter, Gauge, Histogram, LABEL_VALUES_MAX, Metric, SECONDS, SIZES, render};
pub use panic::abort_on_panic;
pub use start::{Error, Format, Guard, Options, init};
