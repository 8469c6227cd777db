//! The W3C trace context: read from a caller, carried in the current span, written for the next callee.

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header value `traceparent` that continues the current span; `None` outside of any span or before [`crate::init`].
///
/// Source: W3C Trace Context, section 3.2.
pub fn current_traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let here = span.span_context();
    here.is_valid().then(|| format!("00-{}-{}-{:02x}", here.trace_id(), here.span_id(), here.trace_flags().to_u8()))
}

/// A span that continues the caller's trace, or begins one if `traceparent` is missing or malformed.
///
/// Its field `trace_id` stands on every log line written inside.
pub fn span_from(traceparent: Option<&str>, name: &'static str) -> Span {
    // Level error only so that no log filter removes the trace id from the lines that pass it.
    let span = tracing::error_span!("call", otel.name = name, call = name, trace_id = tracing::field::Empty);
    if let Some(parent) = traceparent.and_then(parse) {
        // Refused only where telemetry has not been started; there is no trace to continue then.
        drop(span.set_parent(Context::new().with_remote_span_context(parent)));
    }
    let context = span.context();
    let trace_id = context.span().span_context().trace_id();
    if trace_id != TraceId::INVALID {
        span.record("trace_id", tracing::field::display(trace_id));
    }
    span
}

/// Reads `00-<32 hex>-<16 hex>-<2 hex>`; of a later version the same fields, as the standard demands.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let shape = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    if !shape || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_parents_are_read() {
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
        const SPAN: &str = "b7ad6b7169203331";
        for (text, expected) in [
            (format!("00-{TRACE}-{SPAN}-01"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-00"), Some(false)),
            (format!("00-{TRACE}-{SPAN}-03"), Some(true)),
            (format!("01-{TRACE}-{SPAN}-01-more"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-01-more"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("00-{TRACE}-+{}-01", &SPAN[1..]), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&text).map(|context| context.is_sampled()), expected, "{text}");
        }
    }

    #[test]
    fn without_telemetry_there_is_no_context() {
        let span = span_from(Some("nonsense"), "call");
        assert_eq!(span.in_scope(current_traceparent), None);
    }
}
