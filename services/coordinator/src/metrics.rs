//! What the coordinator counts.

telemetry::metrics! {
    STREAMS: Gauge = "lb_coordinator_streams", "Streams that can be used.";
    SCOPES: Gauge = "lb_coordinator_scopes", "Scopes.";
    GROUPS: Gauge = "lb_coordinator_groups", "Reader groups.";
    ITEMS: Gauge = "lb_coordinator_library_items", "Views, saved searches and lookups of all indexes.";
    SEGMENTS: Gauge = "lb_coordinator_segments", "Present segments of all streams.";
    SEGMENTS_KEPT: Gauge = "lb_coordinator_segments_kept", "Segments of all streams that are remembered, ended ones included.";
    SEGMENTS_KEPT_MOST: Gauge = "lb_coordinator_segments_kept_most", "Segments that the stream with the most of them remembers; at 250000 it must be truncated.";
    PENDING: Gauge = "lb_coordinator_streams_pending", "Streams on which something was begun and not ended.";
    STORES: Gauge = "lb_coordinator_stores", "Living replicas of segment-store.";
    UNPLACED: Gauge = "lb_coordinator_containers_unplaced", "Containers without an owner.";
    PLACEMENTS: Counter = "lb_coordinator_placements_total", "Changes of the container placement.";
    PLACED: Counter = "lb_coordinator_containers_placed_total", "Containers that got an owner: at the start, after the loss or restart of a store, for balance.";
    EPOCHS: Counter = "lb_coordinator_epochs_total", "Epochs that were opened after the first of a stream.";
    SPLITS: Counter = "lb_coordinator_segment_splits_total", "Segments that were replaced by several.";
    MERGES: Counter = "lb_coordinator_segment_merges_total", "Segments that replaced several.";
    TRANSACTIONS: Gauge = "lb_coordinator_transactions", "Transactions that have not ended.";
    TRANSACTION_ENDS: Counter["what"] = "lb_coordinator_transactions_total", "Transactions that were begun, were committed or were to be aborted: begun, committed, aborted.";
    COMMIT_SECONDS: Histogram = "lb_coordinator_commit_duration_seconds", "Time from the wish to commit until everything is visible.", &telemetry::SECONDS;
    LEASES_EXPIRED: Counter = "lb_coordinator_leases_expired_total", "Transactions that were aborted because nobody pinged them.";
    COMMIT_STEPS: Counter["result"] = "lb_coordinator_commit_steps_total", "Steps of commits that were tried.";
    WATCHED: Gauge = "lb_coordinator_autoscale_segments", "Segments whose load is watched.";
    UNWATCHED: Gauge = "lb_coordinator_autoscale_segments_left_out", "Segments with a scaling policy for whose load there is no room.";
    AUTOSCALES: Counter["result"] = "lb_coordinator_autoscales_total", "Scales that policies asked for: done, failed.";
    RETAINED: Counter["result"] = "lb_coordinator_retention_streams_total", "Looks at a stream with a retention policy: kept, truncated, failed.";
    RETAINED_BYTES: Counter = "lb_coordinator_retention_truncated_bytes_total", "Payload bytes that retention policies let go.";
    EFFECT_SECONDS: Histogram["effect"] = "lb_coordinator_effect_duration_seconds", "Time of each piece of work on a stream that was done: create, scale, truncate, seal, delete.", &telemetry::SECONDS;
    EFFECT_FAILURES: Counter["effect"] = "lb_coordinator_effect_failures_total", "Pieces of work on streams that failed and are tried again.";
    REST_REQUESTS: Counter["status"] = "lb_coordinator_rest_requests_total", "Requests to the REST interface by status.";
    REST_REFUSED: Counter["reason"] = "lb_coordinator_rest_refused_total", "Requests to the REST interface that were refused for who asked: missing, malformed, wrong, not_allowed, busy, no_file.";
    REST_PASSWORDS: Counter["result"] = "lb_coordinator_rest_password_files_total", "Changes of the password file that were looked at: taken, refused.";
}
