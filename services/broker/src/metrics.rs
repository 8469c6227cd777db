//! What the broker counts.

telemetry::metrics! {
    REQUESTS: Counter["answer"] = "lb_broker_requests_total", "Answered requests by method, door and status.";
    DURATION: Histogram["door"] = "lb_broker_request_duration_seconds", "Time until a request was answered, by method and door.", &telemetry::SECONDS;
    PLANS: Counter["change"] = "lb_broker_plan_requests_total", "Answered changes by plan, method, door and class of status.";
    RELOADS: Counter["outcome"] = "lb_broker_reloads_total", "Files of the catalog and of credentials that changed: taken, or refused.";
    INSTANCES: Gauge = "lb_broker_instances", "Service instances.";
    BINDINGS: Gauge = "lb_broker_bindings", "Service bindings.";
    AUDIT: Counter["outcome"] = "lb_broker_audit_entries_total", "Entries of the audit: stored, or lost because JetStream did not take them.";
    ORPHANS: Counter = "lb_broker_orphans_removed_total", "What the provisioner had left of something that was over, and was removed.";
    STRANGERS: Gauge = "lb_broker_strangers", "What the provisioner has and nothing of the broker explains; it is left alone.";
    OPERATOR_LOOKS: Counter["outcome"] = "lb_broker_operator_looks_total", "Looks of the operator at an object: done, changed by another, or failed.";
    OPERATIONS: Gauge = "lb_broker_operations_pending", "Operations that were begun and not ended.";
}
