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
}
