//! Stopping, going on, another parallelism, savepoints.

use serde::{Deserialize, Serialize};
use types::JobId;
use wire::job_manager::{JobStatus, Savepoint, SavepointName, Savepoints};

use super::{Command, Event, Job, State};

/// Why a job is being stopped: it decides what follows its last savepoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// It is suspended at a savepoint of that name.
    Suspend(String),
    /// Every window closes first, and it is finished.
    Drain(String),
    /// It goes on with another parallelism.
    Rescale(u16),
}

/// The key of a savepoint in the state.
pub(crate) fn savepoint_key(savepoint: &Savepoint) -> String {
    format!("{}/{}", savepoint.name.job, savepoint.name.name)
}

impl State {
    /// A savepoint by its name.
    pub(crate) fn savepoint(&self, name: &SavepointName) -> Option<&Savepoint> {
        self.savepoints.get(&format!("{}/{}", name.job, name.name))
    }

    /// The savepoints of a job, oldest first.
    pub(crate) fn savepoints_of(&self, job: &JobId) -> Savepoints {
        let mut savepoints: Vec<Savepoint> =
            self.savepoints.values().filter(|savepoint| savepoint.name.job == *job).cloned().collect();
        savepoints.sort_by_key(|savepoint| savepoint.taken);
        Savepoints { savepoints }
    }

    /// The numbers of the savepoints whose manifests lie below a folder: they stay, whatever becomes of the job.
    pub(crate) fn pinned(&self, folder: &str) -> impl Iterator<Item = u64> {
        self.savepoints.values().filter(move |savepoint| savepoint.manifest.starts_with(folder)).map(|s| s.checkpoint)
    }

    /// Whether a live job still begins with the state of a savepoint.
    pub(crate) fn begins_from(&self, savepoint: &Savepoint) -> Option<&JobId> {
        let folder = savepoint.manifest.rsplit_once('/').map_or("", |(folder, _)| folder);
        let refers = |job: &&Job| {
            let parts = job.checkpoint.iter().flat_map(|checkpoint| &checkpoint.parts);
            job.is_live() && parts.into_iter().any(|(_, part)| part.key.starts_with(folder))
        };
        self.jobs.values().find(refers).map(|job| &job.new.job)
    }

    pub(super) fn decide_stop(&self, command: Command) -> Vec<Event> {
        match command {
            Command::Stop(job, stop) => match self.live(&job) {
                Some(known) if known.stop.is_none() && known.status != JobStatus::Suspended => {
                    vec![Event::Stopping { job, stop }]
                }
                _ => Vec::new(),
            },
            Command::Stopped { job, attempt, graph } => {
                let Some(known) = self.current(&job, attempt) else { return Vec::new() };
                match (&known.stop, graph) {
                    (Some(Stop::Rescale(_)), Some(graph)) => {
                        vec![Event::Rescaled { job, generation: known.generation + 1, graph: *graph }]
                    }
                    (Some(Stop::Drain(_)), _) => vec![Event::Finished { job }],
                    (Some(Stop::Suspend(_)), _) => vec![Event::Suspended { job }],
                    _ => Vec::new(),
                }
            }
            Command::StopLost { job, attempt, reason } => match self.current(&job, attempt) {
                Some(known) if known.stop.is_some() => vec![Event::StopLost { job, reason }],
                _ => Vec::new(),
            },
            Command::Finish(job, attempt) => match self.current(&job, attempt) {
                Some(_) => vec![Event::Finished { job }],
                None => Vec::new(),
            },
            Command::Resume(job) => match self.live(&job) {
                Some(known) if known.status == JobStatus::Suspended => vec![Event::Resumed { job }],
                _ => Vec::new(),
            },
            Command::Keep(savepoint) if self.savepoints.contains_key(&savepoint_key(&savepoint)) => Vec::new(),
            Command::Keep(savepoint) => vec![Event::Savepointed { savepoint }],
            Command::Drop(key) if self.savepoints.contains_key(&key) => vec![Event::SavepointDropped { key }],
            // Decided where the other commands are, or about a savepoint that is dropped already.
            _ => Vec::new(),
        }
    }

    pub(super) fn apply_stop(&mut self, event: &Event) {
        let over = |j: &mut Job, status: JobStatus| {
            j.status = status;
            j.execution = None;
            j.stop = None;
        };
        match event {
            Event::Stopping { job, stop } => self.update(job, |j| {
                j.status = JobStatus::Stopping;
                j.stop = Some(stop.clone());
            }),
            Event::StopLost { job, reason } => self.update(job, |j| {
                over(j, JobStatus::Restarting);
                j.failure = Some(crate::history::cut(reason));
            }),
            Event::Suspended { job } => self.update(job, |j| over(j, JobStatus::Suspended)),
            Event::Resumed { job } => self.update(job, |j| over(j, JobStatus::Scheduling)),
            Event::Rescaled { job, generation, graph } => self.update(job, |j| {
                over(j, JobStatus::Restarting);
                j.generation = *generation;
                j.graph = graph.clone();
            }),
            Event::Finished { job } => {
                self.update(job, |j| over(j, JobStatus::Finished));
                self.forget_old();
            }
            Event::Savepointed { savepoint } => {
                self.savepoints.insert(savepoint_key(savepoint), savepoint.clone());
            }
            Event::SavepointDropped { key } => {
                self.savepoints.remove(key);
            }
            _ => {}
        }
    }
}
