//! What the frame of a service measures.

telemetry::metrics! {
    LEADER: Gauge["service"] = "lb_host_leader", "1 while this replica leads its service.";
    APPLIED: Gauge["service"] = "lb_host_journal_applied", "Sequence of the last journal event that this replica applied.";
    COMMANDS: Counter["outcome"] = "lb_host_commands_total", "Commands by outcome.";
    APPEND: Histogram = "lb_host_append_duration_seconds", "Time from decision to acknowledged journal append.", &telemetry::SECONDS;
    SNAPSHOTS: Counter["outcome"] = "lb_host_snapshots_total", "Snapshots by outcome.";
    SNAPSHOT_TIME: Histogram = "lb_host_snapshot_duration_seconds", "Time to write a snapshot.", &telemetry::SECONDS;
    RESTORES: Counter["source"] = "lb_host_restores_total", "Restores of the state by source.";
    LOCAL_BROKEN: Gauge["service"] = "lb_host_local_broken", "Local states of this process that were set aside as damaged.";
    CERTIFICATE_EXPIRES: Gauge["service"] = "lb_certificate_expires_seconds", "Seconds until the certificate ends; below zero when it has ended.";
    CERTIFICATES: Counter["outcome"] = "lb_host_certificate_changes_total", "Changes of the certificate's files: taken, or refused because they are broken.";
    EFFECTS: Counter["outcome"] = "lb_host_effects_total", "Runs of effects by outcome.";
    QUOTA_REFUSED: Counter["kind"] = "lb_host_quota_refused_total", "What doors refused because a quota is used up, by its kind: single events over NATS, requests over HTTP, blocks of writers.";
}
