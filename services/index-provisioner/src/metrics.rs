//! What the provisioner counts.

telemetry::metrics! {
    INDEXES: Gauge = "lb_index_provisioner_indexes", "Log indexes.";
    BINDINGS: Gauge = "lb_index_provisioner_bindings", "Bindings that can be used or are being revoked.";
    REVOCATIONS: Gauge = "lb_index_provisioner_revocations", "Revoked user keys in the tenants account.";
    UNFINISHED: Gauge["backend"] = "lb_index_provisioner_unfinished", "Service instances with work on a back-end that was begun and not ended.";
    SEALED: Gauge = "lb_index_provisioner_sealed", "Bindings with a sealed secret.";
    UNOPENED: Gauge = "lb_index_provisioner_unopened", "Sealed secrets that no key of the settings opens; above 0 a person must act.";
    BACKEND_CALLS: Counter["result"] = "lb_index_provisioner_backend_calls_total", "Requests to back-ends outside of the platform: done, refused, unavailable.";
    EFFECTS: Counter["effect"] = "lb_index_provisioner_effects_total", "Steps of back-ends that were done: create, update, delete, look, issue, revoke.";
    FAILURES: Counter["effect"] = "lb_index_provisioner_failures_total", "Steps of back-ends that failed; what is not refused for good is tried again.";
    PUSHES: Counter = "lb_index_provisioner_account_pushes_total", "Versions of the tenants account given to the NATS servers.";
}
