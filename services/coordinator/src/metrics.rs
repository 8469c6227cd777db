//! What the coordinator counts.

telemetry::metrics! {
    STREAMS: Gauge = "lb_coordinator_streams", "Streams that can be used.";
    PENDING: Gauge = "lb_coordinator_streams_pending", "Streams on which something was begun and not ended.";
    STORES: Gauge = "lb_coordinator_stores", "Living replicas of segment-store.";
    PLACEMENTS: Counter = "lb_coordinator_placements_total", "Changes of the container placement.";
    EPOCHS: Counter = "lb_coordinator_epochs_total", "Epochs that were opened after the first of a stream.";
    TRUNCATIONS: Counter = "lb_coordinator_truncations_total", "Truncations of streams that were ended.";
    TRANSACTIONS: Gauge = "lb_coordinator_transactions", "Transactions that have not ended.";
    LEASES_EXPIRED: Counter = "lb_coordinator_leases_expired_total", "Transactions that were aborted because nobody pinged them.";
    COMMIT_STEPS: Counter["result"] = "lb_coordinator_commit_steps_total", "Steps of commits that were tried.";
    WATCHED: Gauge = "lb_coordinator_autoscale_segments", "Segments whose load is watched.";
    EFFECTS: Counter["result"] = "lb_coordinator_effects_total", "Pieces of work on streams that were tried: creations, scales, truncations, seals, deletions.";
    REST_REQUESTS: Counter["status"] = "lb_coordinator_rest_requests_total", "Requests to the REST interface by status.";
    REST_REFUSED: Counter["reason"] = "lb_coordinator_rest_refused_total", "Requests to the REST interface that were refused for who asked: missing, malformed, wrong, not_allowed, busy, no_file.";
    REST_PASSWORDS: Counter["result"] = "lb_coordinator_rest_password_files_total", "Changes of the password file that were looked at: taken, refused.";
}
