//! What the coordinator counts.

telemetry::metrics! {
    STREAMS: Gauge = "lb_coordinator_streams", "Streams that can be used.";
    PENDING: Gauge = "lb_coordinator_streams_pending", "Streams whose creation or deletion was begun and not ended.";
    STORES: Gauge = "lb_coordinator_stores", "Living replicas of segment-store.";
    PLACEMENTS: Counter = "lb_coordinator_placements_total", "Changes of the container placement.";
    EFFECTS: Counter["result"] = "lb_coordinator_effects_total", "Creations and deletions of streams that were tried.";
}
