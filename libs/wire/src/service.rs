//! The names of the services: argument, subject, metric prefix and Kubernetes name are one word.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use types::Invalid;

/// One service of the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Answers the Open Service Broker API.
    Broker,
    /// Creates log indexes on a back-end and issues credentials.
    IndexProvisioner,
    /// Owns scopes, streams, segments and container placement.
    Coordinator,
    /// Keeps the events.
    SegmentStore,
    /// Runs jobs on task workers.
    JobManager,
    /// Executes tasks in slots.
    TaskWorker,
    /// Evaluates rules and notifies.
    Alerter,
    /// The HTTP front door and console.
    Gateway,
}

impl Service {
    /// Every service, in start order.
    pub const ALL: [Self; 8] = [
        Self::Coordinator,
        Self::SegmentStore,
        Self::IndexProvisioner,
        Self::Broker,
        Self::JobManager,
        Self::TaskWorker,
        Self::Alerter,
        Self::Gateway,
    ];

    /// The one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::IndexProvisioner => "index-provisioner",
            Self::Coordinator => "coordinator",
            Self::SegmentStore => "segment-store",
            Self::JobManager => "job-manager",
            Self::TaskWorker => "task-worker",
            Self::Alerter => "alerter",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Service {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| Invalid::new("service", text, "one of the eight services"))
    }
}
