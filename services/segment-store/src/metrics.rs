//! What this service counts.

telemetry::metrics! {
    APPENDED_EVENTS: Counter = "lb_segment_store_appended_events_total", "Events stored in segments of this replica.";
    DUPLICATES: Counter = "lb_segment_store_duplicate_events_total", "Events dropped because they were stored before.";
    FRAMES: Counter = "lb_segment_store_frames_total", "Frames written to the durable log.";
    FRAME_BYTES: Histogram = "lb_segment_store_frame_bytes", "Size of a frame as written.", &telemetry::SIZES;
    FRAME_SECONDS: Histogram = "lb_segment_store_frame_duration_seconds", "Time until a frame is durable.", &telemetry::SECONDS;
    REFUSALS: Counter["reason"] = "lb_segment_store_refusals_total", "Appends that were not taken.";
    THROTTLE_SECONDS: Histogram = "lb_segment_store_throttle_duration_seconds", "How long frames were held back because much waits for Tier 2.", &telemetry::SECONDS;
    RESYNCS: Counter = "lb_segment_store_resyncs_total", "Times that an owner re-read its log because an append had no answer.";
    DAMAGES: Counter = "lb_segment_store_damages_total", "Times that a log was not what was written to it.";
    READ_ONLY: Gauge = "lb_segment_store_read_only_containers", "Containers whose log is damaged.";
    OWNED: Gauge = "lb_segment_store_owned_containers", "Containers that this replica serves.";
    RECOVERY_SECONDS: Histogram = "lb_segment_store_recovery_duration_seconds", "Time from claim to served.", &telemetry::SECONDS;
    TAIL_BYTES: Gauge["container"] = "lb_segment_store_tail_bytes", "Bytes not yet in Tier 2.";
    CHUNKS: Counter = "lb_segment_store_chunks_total", "Chunks committed to Tier 2.";
    CHUNK_BYTES: Histogram = "lb_segment_store_chunk_bytes", "Size of a chunk.", &telemetry::SIZES;
    FLUSH_FAILURES: Counter = "lb_segment_store_flush_failures_total", "Attempts to move events to Tier 2 that failed and are repeated.";
    CHORE_FAILURES: Counter["chore"] = "lb_segment_store_chore_failures_total", "Attempts at compaction, garbage and orphans that failed and are repeated.";
    COMPACTIONS: Counter = "lb_segment_store_compactions_total", "Chunks that took the place of smaller ones.";
    COMPACTED_CHUNKS: Counter = "lb_segment_store_compacted_chunks_total", "Chunks that were merged into larger ones.";
    UNREADABLE_CHUNKS: Counter = "lb_segment_store_unreadable_chunks_total", "Chunks that are named and cannot be read; a person must act.";
    COLLECTED_OBJECTS: Counter = "lb_segment_store_collected_objects_total", "Objects deleted because nothing names them any more.";
    ORPHANS: Counter = "lb_segment_store_orphans_total", "Of those, objects that never were named.";
    CARRIED_BLOCKS: Counter = "lb_segment_store_carried_blocks_total", "Blocks of open transactions that were written to the log once more.";
    SNAPSHOTS: Counter = "lb_segment_store_snapshots_total", "Container snapshots written.";
    ARCHIVED_CHUNKS: Counter = "lb_segment_store_archived_chunks_total", "Chunks copied to the buckets of archives.";
    ARCHIVE_LAG_BYTES: Gauge["container"] = "lb_segment_store_archive_lag_bytes", "Bytes of chunks of archived indexes that are not known to be in their archives.";
    ARCHIVE_FAILURES: Counter = "lb_segment_store_archive_failures_total", "Attempts to copy a chunk to an archive that failed and are repeated.";
    ARCHIVE_LOST_EVENTS: Counter = "lb_segment_store_archive_lost_events_total", "Events that were truncated before they were archived.";
    FRAGMENTS: Counter["outcome"] = "lb_segment_store_fragments_total", "Fragments of queries that ended here, by how.";
    LANE_MESSAGES: Counter = "lb_segment_store_lane_messages_total", "Messages that front-door lanes received.";
    LANE_REFUSED: Counter["reason"] = "lb_segment_store_lane_refused_total", "Messages that front-door lanes refused.";
}
