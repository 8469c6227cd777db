//! What this release runs. A graph that asks for more is refused by name when it is planned, never later.
//!
//! Whoever builds something turns its line to `true`, in the same change that makes it run.

use super::{
    OperatorSpec,
    sink::SinkSpec,
    source::{Connector, FileFormat, SourceSpec},
};
use crate::{Emit, Error, JoinKind, WindowPlan, WindowShape};

impl OperatorSpec {
    /// Whether this release runs it.
    ///
    /// Errors: `NotBuilt` names what is missing.
    pub fn built(&self) -> Result<(), Error> {
        let (what, built) = match self {
            Self::Source { .. } | Self::Filter { .. } | Self::Project { .. } => return Ok(()),
            Self::WindowAggregate(_) | Self::SinkIndex { .. } | Self::SinkAlerts { .. } => return Ok(()),
            Self::Read(SourceSpec { time, .. }) if time.max_drift.is_some() => {
                ("a limit to how far splits drift", false)
            }
            Self::Read(SourceSpec { from, .. }) => source(from),
            Self::Write(sink) => self::sink(sink),
            Self::Window(plan) => window(plan),
            Self::GroupAggregate(_) => ("group aggregates", true),
            Self::Over(_) => ("OVER windows", true),
            Self::TopN(_) => ("top-N", true),
            Self::Deduplicate(_) => ("deduplication", true),
            Self::Join(join) => match join.kind {
                JoinKind::Window(_) => ("window joins", true),
                JoinKind::Interval { .. } => ("interval joins", true),
                JoinKind::Temporal => ("temporal joins", true),
                JoinKind::Lookup { .. } => ("lookup joins", false),
            },
            Self::Pattern(_) => ("patterns", true),
        };
        if built { Ok(()) } else { Err(Error::NotBuilt(what.to_owned())) }
    }
}

fn source(from: &Connector) -> (&'static str, bool) {
    match from {
        Connector::Index { .. } => ("the index source with columns", true),
        Connector::Files { bounded: false, .. } => ("files that come later", false),
        Connector::Files { .. } => ("the files source", true),
        Connector::Datagen { .. } => ("the datagen source", true),
        Connector::Nexmark { .. } => ("the nexmark source", true),
        Connector::JetStream { format: FileFormat::Ndjson, .. } => ("the jetstream source", true),
        Connector::JetStream { .. } => ("messages of JetStream that are not NDJSON", false),
    }
}

fn sink(sink: &SinkSpec) -> (&'static str, bool) {
    match sink {
        SinkSpec::Files { .. } => ("the files sink", true),
        SinkSpec::JetStream { .. } => ("the jetstream sink", true),
        SinkSpec::Http { .. } => ("the http sink", true),
        SinkSpec::Stdout => ("the stdout sink", true),
        SinkSpec::Blackhole => ("the blackhole sink", true),
    }
}

fn window(plan: &WindowPlan) -> (&'static str, bool) {
    match plan.shape {
        WindowShape::Session { .. } if plan.emit != Emit::OnClose => ("rows of sessions by the clock", false),
        WindowShape::Session { .. } if plan.early.is_some() => ("early rows of sessions", false),
        WindowShape::Tumble { .. } => ("tumbling windows with lateness", true),
        WindowShape::Hop { .. } => ("hopping windows", true),
        WindowShape::Cumulate { .. } => ("cumulating windows", true),
        WindowShape::Session { .. } => ("session windows", true),
        WindowShape::Count { .. } => ("windows by count", true),
    }
}
