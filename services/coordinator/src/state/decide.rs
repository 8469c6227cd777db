//! What scopes and streams allow.

use types::{ContainerId, IndexName, KeyRange, ScopeName, SegmentId, StreamCut};
use wire::coordinator::{NewStream, RetentionChange, RetentionPolicy, ScalingPolicy, StreamUpdate};

use super::{Changed, Event, Phase, SCOPES_MAX, SEGMENTS_MAX, STREAMS_MAX, ScopePhase, State, Stream, TAGS_MAX};
use crate::{error::CoordinatorError, transactions::Reason};

/// Most segments that one is split into by a policy.
const SPLIT_MAX: u16 = 64;

impl State {
    pub(super) fn refuse_deleting_scope(&self, scope: &ScopeName) -> Result<(), CoordinatorError> {
        match self.scopes.get(scope) {
            Some(ScopePhase::Deleting) => Err(CoordinatorError::ScopeBeingDeleted(scope.clone())),
            None if self.scopes.len() >= SCOPES_MAX => Err(CoordinatorError::TooManyScopes(SCOPES_MAX)),
            _ => Ok(()),
        }
    }

    pub(super) fn create_scope(&self, scope: ScopeName) -> Result<Vec<Event>, CoordinatorError> {
        self.refuse_deleting_scope(&scope)?;
        let there = self.scopes.contains_key(&scope);
        Ok(if there { Vec::new() } else { vec![Event::ScopeCreated { scope }] })
    }

    pub(super) fn begin_scope_deletion(
        &self,
        scope: ScopeName,
        recursive: bool,
    ) -> Result<Vec<Event>, CoordinatorError> {
        if self.scopes.get(&scope) != Some(&ScopePhase::Live) {
            return Ok(Vec::new());
        }
        let stream_count = self.streams_in(&scope).count();
        if !recursive && (stream_count > 0 || self.groups.has_any(&scope)) {
            return Err(CoordinatorError::ScopeNotEmpty { scope, stream_count });
        }
        Ok(vec![Event::ScopeDeletionBegun { scope }])
    }

    pub(super) fn end_scope_deletion(&self, scope: ScopeName) -> Vec<Event> {
        let deleting = self.scopes.get(&scope) == Some(&ScopePhase::Deleting);
        if !deleting || self.streams_in(&scope).next().is_some() {
            return Vec::new();
        }
        vec![Event::ScopeDeleted { scope }]
    }

    pub(super) fn begin_stream(&self, new: NewStream) -> Result<Vec<Event>, CoordinatorError> {
        if self.container_count == 0 {
            return Err(CoordinatorError::NotInstalled);
        }
        if !(1..=SEGMENTS_MAX).contains(&new.segment_count) {
            return Err(CoordinatorError::SegmentCount(new.segment_count));
        }
        check_policies(&new.scaling, new.retention.as_ref(), &new.tags)?;
        let Some(stream) = self.stream(&new.index) else {
            self.refuse_deleting_scope(&new.scope)?;
            if self.streams.len() >= STREAMS_MAX {
                return Err(CoordinatorError::TooManyStreams(STREAMS_MAX));
            }
            return Ok(vec![Event::StreamBegun { stream: self.next_stream, new }]);
        };
        if stream.description.scope != new.scope {
            return Err(CoordinatorError::IndexNameTaken { index: new.index });
        }
        if stream.phase == Phase::Deleting {
            return Err(CoordinatorError::BeingDeleted(new.index));
        }
        if stream.restored {
            return self.take_over(new);
        }
        if stream.asked != new {
            return Err(CoordinatorError::StreamDiffers { scope: new.scope, index: new.index });
        }
        Ok(Vec::new())
    }

    /// Counts and begins in one step, so that streams asked for together do not pass together. A repeat of what is there is no more.
    pub(super) fn begin_stream_beside(&self, new: NewStream, most: u64) -> Result<Vec<Event>, CoordinatorError> {
        let scope = new.scope.clone();
        let begun = self.begin_stream(new)?;
        let begins = begun.iter().any(|event| matches!(event, Event::StreamBegun { .. }));
        if begins && u64::try_from(self.streams_in(&scope).count()).unwrap_or(u64::MAX) >= most {
            return Err(CoordinatorError::ScopeFull { scope, most });
        }
        Ok(begun)
    }

    pub(super) fn end_stream(&self, stream: u32, index: IndexName) -> Result<Vec<Event>, CoordinatorError> {
        match self.streams.get(&stream).map(|s| s.phase) {
            Some(Phase::Creating) => Ok(vec![Event::StreamCreated { stream }]),
            Some(Phase::Live) => Ok(Vec::new()),
            Some(Phase::Deleting) | None => Err(CoordinatorError::Deleted(index)),
        }
    }

    pub(super) fn update_stream(&self, update: StreamUpdate) -> Result<Vec<Event>, CoordinatorError> {
        let there = &self.live_stream(&update.index)?.description;
        // Days are a shorthand: whoever says that everything is kept means them too.
        let retention_days =
            if update.retention == Some(RetentionChange::Forever) { None } else { there.retention_days };
        let changed = Changed {
            retention_days,
            scaling: update.scaling.unwrap_or(there.scaling),
            retention: update.retention.map_or(there.retention, RetentionChange::policy),
            tags: update.tags.unwrap_or_else(|| there.tags.clone()),
        };
        check_policies(&changed.scaling, changed.retention.as_ref(), &changed.tags)?;
        let before = Changed {
            retention_days: there.retention_days,
            scaling: there.scaling,
            retention: there.retention,
            tags: there.tags.clone(),
        };
        let (stream, same) = (there.stream, changed == before);
        Ok(if same { Vec::new() } else { vec![Event::StreamUpdated { stream, changed }] })
    }

    /// Refuses while something else that changes segments is on its way; whoever asks later finds it ended.
    fn refuse_busy(&self, stream: &Stream, for_commit: bool) -> Result<(), CoordinatorError> {
        let index = &stream.description.index;
        if stream.graph.scaling().is_some() {
            return Err(CoordinatorError::ScaleInProgress(index.clone()));
        }
        if !for_commit && self.transactions.is_committing(stream.description.stream) {
            return Err(CoordinatorError::CommitInProgress(index.clone()));
        }
        Ok(())
    }

    pub(super) fn begin_scale(
        &self,
        index: &IndexName,
        seal: &[SegmentId],
        ranges: &[KeyRange],
        containers: Option<&[ContainerId]>,
        for_commit: bool,
    ) -> Result<Vec<Event>, CoordinatorError> {
        let stream = self.live_stream(index)?;
        if stream.graph.was_scaled(seal, ranges) {
            return Ok(Vec::new());
        }
        if stream.is_ending() {
            return Err(CoordinatorError::StreamSealed(index.clone()));
        }
        self.refuse_busy(stream, for_commit)?;
        if !for_commit {
            stream.graph.check_room(ranges.len())?;
        }
        if let Some(containers) = containers.map(<[ContainerId]>::len).filter(|count| *count != ranges.len()) {
            let ranges = ranges.len();
            return Err(super::graph::ScaleError::Containers { containers, ranges }.into());
        }
        let scaling = stream.graph.plan(seal, ranges, |asked, segment| {
            let given = containers.and_then(|containers| containers.get(asked));
            given.copied().unwrap_or_else(|| segment.container(self.container_count))
        })?;
        Ok(vec![Event::ScaleBegun { stream: stream.description.stream, scaling }])
    }

    pub(super) fn end_scale(&self, stream: u32, epoch: u32) -> Vec<Event> {
        let scaling = self.streams.get(&stream).and_then(|s| s.graph.scaling());
        match scaling.filter(|scaling| scaling.epoch == epoch) {
            Some(_) => vec![Event::EpochOpened { stream, epoch }],
            None => Vec::new(),
        }
    }

    pub(super) fn begin_truncation(&self, index: &IndexName, cut: &StreamCut) -> Result<Vec<Event>, CoordinatorError> {
        let stream = self.live_stream(index)?;
        let cut = stream.graph.plan_truncation(cut)?;
        let stream = stream.description.stream;
        Ok(cut.map(|cut| Event::StreamTruncated { stream, cut }).into_iter().collect())
    }

    pub(super) fn end_truncation(&self, stream: u32, number: u64) -> Vec<Event> {
        let begun = self.streams.get(&stream).and_then(Stream::truncation);
        match begun.filter(|truncation| truncation.number == number) {
            Some(_) => vec![Event::TruncationEnded { stream, number }],
            None => Vec::new(),
        }
    }

    pub(super) fn begin_seal(&self, index: &IndexName) -> Result<Vec<Event>, CoordinatorError> {
        let stream = self.live_stream(index)?;
        if stream.is_ending() {
            return Ok(Vec::new());
        }
        self.refuse_busy(stream, false)?;
        let stream = stream.description.stream;
        // Whatever is open could only be refused at its commit: its writers learn it now.
        let aborted = self.transactions.abort_all(stream, Reason::StreamSealed);
        let mut events = vec![Event::SealBegun { stream }];
        events.extend(aborted.into_iter().map(Event::Transactions));
        Ok(events)
    }

    pub(super) fn end_seal(&self, stream: u32) -> Vec<Event> {
        let sealing = self.streams.get(&stream).is_some_and(Stream::is_sealing);
        if sealing { vec![Event::StreamSealed { stream }] } else { Vec::new() }
    }

    pub(super) fn begin_deletion(&self, index: &IndexName) -> Vec<Event> {
        match self.stream(index).filter(|stream| stream.phase != Phase::Deleting) {
            Some(stream) => vec![Event::StreamDeletionBegun { stream: stream.description.stream }],
            None => Vec::new(),
        }
    }

    pub(super) fn end_deletion(&self, stream: u32) -> Vec<Event> {
        match self.streams.get(&stream).map(|s| s.phase) {
            Some(Phase::Deleting) => vec![Event::StreamDeleted { stream }],
            _ => Vec::new(),
        }
    }
}

pub(super) fn check_policies(
    scaling: &ScalingPolicy,
    retention: Option<&RetentionPolicy>,
    tags: &[types::Tag],
) -> Result<(), CoordinatorError> {
    let refuse = |what: &str| Err(CoordinatorError::InvalidPolicy(what.to_owned()));
    let (target, factor, min_segments) = match *scaling {
        ScalingPolicy::Fixed => (1, 2, 1),
        ScalingPolicy::EventRate { target, factor, min_segments } => (target, factor, min_segments),
        ScalingPolicy::DataRate { target_kib, factor, min_segments } => (target_kib, factor, min_segments),
    };
    if target == 0 || !(2..=SPLIT_MAX).contains(&factor) || min_segments == 0 {
        return refuse("a scaling policy has a target of at least 1, a factor of 2 to 64 and at least 1 segment");
    }
    let (least, most) = match retention {
        Some(RetentionPolicy::Time { min_ms, max_ms }) => (*min_ms, *max_ms),
        Some(RetentionPolicy::Size { min_bytes, max_bytes }) => (*min_bytes, *max_bytes),
        Some(RetentionPolicy::TimeAndSize { .. }) | None => (0, None),
    };
    if most.is_some_and(|most| most < least) {
        return refuse("the most that a retention policy keeps is below the least");
    }
    let distinct: std::collections::BTreeSet<&types::Tag> = tags.iter().collect();
    if tags.len() > TAGS_MAX || distinct.len() != tags.len() {
        return refuse("a stream has at most 16 tags, each once");
    }
    Ok(())
}
