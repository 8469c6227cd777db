//! What the broker counts.

telemetry::metrics! {
    REQUESTS: Counter["answer"] = "lb_broker_requests_total", "Answered requests by method, door and status.";
    DURATION: Histogram = "lb_broker_request_duration_seconds", "Time until a request was answered.", &telemetry::SECONDS;
    INSTANCES: Gauge = "lb_broker_instances", "Service instances.";
    BINDINGS: Gauge = "lb_broker_bindings", "Service bindings.";
    OPERATIONS: Gauge = "lb_broker_operations_pending", "Operations that were begun and not ended.";
}
