//! What this release runs. A graph that asks for more is refused by name when it is planned, never later.
//!
//! Whoever builds something turns its line to `true`, in the same change that makes it run.

use super::{
    OperatorSpec,
    sink::SinkSpec,
    source::{Connector, SourceSpec},
};
use crate::{Emit, Error, JoinKind, Phase, WindowPlan, WindowShape};

impl OperatorSpec {
    /// Whether this release runs it.
    ///
    /// Errors: `NotBuilt` names what is missing.
    pub fn built(&self) -> Result<(), Error> {
        let (what, built) = match self {
            Self::Source { .. } | Self::Filter { .. } | Self::Project { .. } => return Ok(()),
            Self::WindowAggregate(_) | Self::SinkIndex { .. } | Self::SinkAlerts { .. } => return Ok(()),
            Self::Read(SourceSpec { from, .. }) => source(from),
            Self::Write(sink) => self::sink(sink),
            Self::Window(plan) => window(plan),
            Self::GroupAggregate(_) => ("group aggregates", false),
            Self::Over(_) => ("OVER windows", false),
            Self::TopN(_) => ("top-N", false),
            Self::Deduplicate(_) => ("deduplication", false),
            Self::Join(join) => match join.kind {
                JoinKind::Window(_) => ("window joins", false),
                JoinKind::Interval { .. } => ("interval joins", false),
                JoinKind::Temporal => ("temporal joins", false),
                JoinKind::Lookup { .. } => ("lookup joins", false),
            },
            Self::Pattern(_) => ("patterns", false),
        };
        if built { Ok(()) } else { Err(Error::NotBuilt(what.to_owned())) }
    }
}

fn source(from: &Connector) -> (&'static str, bool) {
    match from {
        Connector::Index { .. } => ("the index source with columns", false),
        Connector::Files { .. } => ("the files source", false),
        Connector::Datagen { .. } => ("the datagen source", false),
        Connector::Nexmark { .. } => ("the nexmark source", false),
        Connector::JetStream { .. } => ("the jetstream source", false),
    }
}

fn sink(sink: &SinkSpec) -> (&'static str, bool) {
    match sink {
        SinkSpec::Files { .. } => ("the files sink", false),
        SinkSpec::JetStream { .. } => ("the jetstream sink", false),
        SinkSpec::Http { .. } => ("the http sink", false),
        SinkSpec::Stdout => ("the stdout sink", false),
        SinkSpec::Blackhole => ("the blackhole sink", false),
    }
}

fn window(plan: &WindowPlan) -> (&'static str, bool) {
    match plan.shape {
        _ if plan.emit != Emit::OnClose => ("rows of windows by the clock", false),
        _ if plan.early.is_some() => ("early rows of windows with lateness", false),
        WindowShape::Tumble { .. } => ("tumbling windows with lateness", true),
        WindowShape::Hop { .. } => ("hopping windows", true),
        WindowShape::Cumulate { .. } => ("cumulating windows", true),
        WindowShape::Session { .. } if plan.phase != Phase::Whole => ("sessions in two phases", false),
        WindowShape::Session { .. } => ("session windows", true),
        WindowShape::Count { .. } => ("windows by count", false),
    }
}
