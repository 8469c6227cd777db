//! What the gateway measures.

telemetry::metrics! {
    REQUESTS: Counter["status"] = "lb_gateway_requests_total", "HTTP requests by status.";
    REQUEST_TIME: Histogram = "lb_gateway_request_duration_seconds", "Time to the head of an answer.", &telemetry::SECONDS;
    EVENTS: Counter["outcome"] = "lb_gateway_ingest_events_total", "Lines of ingest requests by outcome.";
    INGEST_BYTES: Counter = "lb_gateway_ingest_bytes_total", "Bytes of ingest bodies after decompression.";
    QUERIES: Counter["outcome"] = "lb_gateway_queries_total", "Queries by outcome.";
    QUERY_TIME: Histogram = "lb_gateway_query_duration_seconds", "Time to answer a query.", &telemetry::SECONDS;
    FRAGMENTS: Counter["outcome"] = "lb_gateway_fragments_total", "Fragments of queries: beside (they ran in a segment store), no_answer (they ran here instead), too_large (the query was read as whole rows).";
    SYSLOG: Counter["outcome"] = "lb_gateway_syslog_messages_total", "Messages of syslog by outcome: stored, refused, given_up, overflow (datagrams that found the queue full), cut (connections that ended within one).";
    SYSLOG_CONNECTIONS: Gauge = "lb_gateway_syslog_connections", "Open connections of syslog.";
    TAILS: Gauge = "lb_gateway_tails", "Open live tails.";
}
