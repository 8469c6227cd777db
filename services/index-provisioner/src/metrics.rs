//! What the provisioner counts.

telemetry::metrics! {
    INDEXES: Gauge = "lb_index_provisioner_indexes", "Log indexes.";
    BINDINGS: Gauge = "lb_index_provisioner_bindings", "Bindings that can be used or are being revoked.";
    REVOCATIONS: Gauge = "lb_index_provisioner_revocations", "Revoked user keys in the tenants account.";
    EFFECTS: Counter["effect"] = "lb_index_provisioner_effects_total", "Work of back-ends that was done.";
    FAILURES: Counter["effect"] = "lb_index_provisioner_failures_total", "Work of back-ends that failed and is tried again.";
    PUSHES: Counter = "lb_index_provisioner_account_pushes_total", "Versions of the tenants account given to the NATS servers.";
}
