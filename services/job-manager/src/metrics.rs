//! What the job manager counts.

telemetry::metrics! {
    JOBS: Gauge = "lb_job_manager_jobs", "Jobs that are neither cancelled nor given up.";
    ATTEMPTS_FAILED: Counter = "lb_job_manager_attempts_failed_total", "Attempts of jobs that failed.";
    CHECKPOINTS_COMPLETED: Counter = "lb_job_manager_checkpoints_completed_total", "Checkpoints that were completed.";
    SLOTS_WANTED: Gauge = "lb_job_manager_slots_wanted", "Slots that all live jobs want, with or without having them; only where a cluster gives workers.";
    RESIZES: Counter["outcome"] = "lb_job_manager_resizes_total", "Changes of the number of task workers: done or failed.";
    CHECKPOINTS_LOST: Counter = "lb_job_manager_checkpoints_lost_total", "Checkpoints that were given up.";
}
