//! Reader groups: that they exist, what they read, and up to where they have consumed it. Pure.
//!
//! What the readers of a group hold at the moment is theirs to write down, under the name and the generation that stand here.

pub(crate) mod doors;
mod error;

#[cfg(test)]
mod groups_tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use types::{GroupName, IndexName, ScopeName, StreamCut, Timestamp};
use wire::coordinator::{Consumed, CutKind, GroupConfig, GroupDescription, GroupRetention};

use crate::{CoordinatorError, State, graph::Graph};

pub use error::GroupError;

/// Reader groups of one installation: each costs a row here and a document of its readers.
pub const GROUPS_MAX: usize = 10_000;

/// Indexes that one group reads.
pub const INDEXES_MAX: usize = 16;

/// Places that the cuts of one group name, bounds and consumed ones each: about 40 bytes each in its description, which is one answer.
pub const PLACES_MAX: usize = 10_000;

/// What somebody wants of reader groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Creates a group, or finds it.
    Create(Wanted),
    /// Lets a group begin again, with another configuration.
    Reset(Wanted),
    /// Deletes a group.
    Delete(GroupName),
    /// A group has consumed.
    Report(Consumed),
}

/// A group as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it reads.
    pub config: GroupConfig,
    /// The end of each index that is named with a bound of kind `Tail`.
    pub tails: BTreeMap<IndexName, StreamCut>,
}

/// What happened to reader groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// There is a group.
    Created {
        /// What was asked for.
        asked: GroupConfig,
        /// The same with every `Tail` given.
        config: GroupConfig,
        /// The generation; a name that was used before goes on behind its last.
        generation: u64,
    },
    /// A group begins again.
    Reset {
        /// What was asked for.
        asked: GroupConfig,
        /// The same with every `Tail` given.
        config: GroupConfig,
        /// The generation.
        generation: u64,
    },
    /// A group is gone.
    Deleted {
        /// The group.
        group: GroupName,
    },
    /// A group has consumed what lies before the cut.
    Consumed {
        /// The group.
        group: GroupName,
        /// The index.
        index: IndexName,
        /// The cut.
        cut: StreamCut,
    },
}

/// One reader group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    asked: GroupConfig,
    config: GroupConfig,
    generation: u64,
    created: Timestamp,
    consumed: BTreeMap<IndexName, StreamCut>,
}

/// Every reader group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    groups: BTreeMap<GroupName, Group>,
    /// The groups that hold back retention, by what they read.
    subscribers: BTreeMap<IndexName, BTreeSet<GroupName>>,
    /// The highest generation of a group that is gone: a new group begins behind it, so that no reader takes what a former group of
    /// the name left for its own.
    generations_gone: u64,
}

impl Groups {
    /// A group as others see it.
    pub fn describe(&self, group: &GroupName) -> Result<GroupDescription, GroupError> {
        self.groups.get(group).map(Group::describe).ok_or_else(|| GroupError::Unknown(group.clone()))
    }

    /// The groups of a scope, or all, by name; those behind a name.
    pub fn list<'a>(
        &'a self,
        scope: Option<&'a ScopeName>,
        after: Option<&GroupName>,
    ) -> impl Iterator<Item = GroupDescription> {
        use std::ops::Bound::{Excluded, Unbounded};
        let of_scope = move |group: &&Group| scope.is_none_or(|scope| group.config.scope == *scope);
        let behind = self.groups.range::<GroupName, _>((after.map_or(Unbounded, Excluded), Unbounded));
        behind.map(|(_, group)| group).filter(of_scope).map(Group::describe)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.groups.len()
    }

    /// Whether a scope has a group.
    pub fn has_any(&self, scope: &ScopeName) -> bool {
        self.groups.values().any(|group| group.config.scope == *scope)
    }

    /// Up to where all subscribing groups have consumed a stream; `None` if none subscribes to it.
    ///
    /// A group that has told nothing yet counts as standing where it begins. One whose cut is no longer valid holds back everything.
    pub fn lower_bound(&self, index: &IndexName, graph: &Graph) -> Option<StreamCut> {
        let subscribers = self.subscribers.get(index)?.iter().filter_map(|name| self.groups.get(name));
        let stands = subscribers.map(|group| group.stands(index));
        let valid = |cut: StreamCut| graph.resolve(&cut).unwrap_or_else(|_| graph.head_cut());
        stands.map(valid).reduce(|one, other| graph.earlier(&one, &other).unwrap_or_else(|_| graph.head_cut()))
    }

    /// Forgets the groups of a deleted scope.
    pub fn forget_scope(&mut self, scope: &ScopeName) {
        let of_scope = self.groups.values().filter(|group| group.config.scope == *scope);
        let names: Vec<GroupName> = of_scope.map(|group| group.config.group.clone()).collect();
        names.iter().for_each(|name| self.remove(name));
    }

    /// Forgets what groups have consumed of a deleted stream.
    pub fn forget_stream(&mut self, index: &IndexName) {
        for group in self.groups.values_mut() {
            group.consumed.remove(index);
        }
    }

    /// Decides a command.
    pub fn decide(&self, state: &State, command: Command, _: Timestamp) -> Result<Vec<Event>, CoordinatorError> {
        match command {
            Command::Create(wanted) => {
                if let Some(there) = self.groups.get(&wanted.config.group) {
                    let same = there.asked == wanted.config;
                    return if same { Ok(Vec::new()) } else { Err(GroupError::Differs(wanted.config.group).into()) };
                }
                if self.groups.len() >= GROUPS_MAX {
                    return Err(GroupError::TooMany.into());
                }
                let (config, generation) = (given(state, &wanted)?, self.generations_gone + 1);
                Ok(vec![Event::Created { asked: wanted.config, config, generation }])
            }
            Command::Reset(wanted) => {
                let group = &wanted.config.group;
                let there = self.groups.get(group).ok_or_else(|| GroupError::Unknown(group.clone()))?;
                if there.config.scope != wanted.config.scope {
                    return Err(GroupError::Differs(group.clone()).into());
                }
                let (config, generation) = (given(state, &wanted)?, there.generation + 1);
                Ok(vec![Event::Reset { asked: wanted.config, config, generation }])
            }
            Command::Delete(group) => {
                let there = self.groups.contains_key(&group);
                Ok(if there { vec![Event::Deleted { group }] } else { Vec::new() })
            }
            Command::Report(consumed) => self.report(state, consumed),
        }
    }

    fn report(&self, state: &State, consumed: Consumed) -> Result<Vec<Event>, CoordinatorError> {
        let Consumed { group, generation, index, cut } = consumed;
        let there = self.groups.get(&group).ok_or_else(|| GroupError::Unknown(group.clone()))?;
        if there.generation != generation {
            return Err(GroupError::Generation { group, is: there.generation, told: generation }.into());
        }
        if !there.config.from.contains_key(&index) {
            return Err(CoordinatorError::UnknownIndex(index));
        }
        let graph = state.live_stream(&index)?.graph();
        // Whatever is accepted here may become the head one day.
        graph.plan_truncation(&cut)?;
        let cut = graph.resolve(&cut)?;
        let goes_on = match there.consumed.get(&index) {
            Some(last) => *last != cut && graph.is_at_or_after(&cut, last).unwrap_or(true),
            None => true,
        };
        if !goes_on {
            return Ok(Vec::new());
        }
        let others = there.consumed.iter().filter(|(of, _)| **of != index).map(|(_, cut)| cut.0.len());
        check_places(&group, others.sum::<usize>() + cut.0.len())?;
        Ok(vec![Event::Consumed { group, index, cut }])
    }

    /// Takes in what happened.
    pub fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Created { asked, config, generation } => self.put(asked, config, *generation, at),
            Event::Reset { asked, config, generation } => {
                let created = self.groups.get(&config.group).map_or(at, |group| group.created);
                self.unsubscribe(&config.group);
                self.put(asked, config, *generation, created);
            }
            Event::Deleted { group } => self.remove(group),
            Event::Consumed { group, index, cut } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.consumed.insert(index.clone(), cut.clone());
                }
            }
        }
    }

    fn put(&mut self, asked: &GroupConfig, config: &GroupConfig, generation: u64, created: Timestamp) {
        let name = &config.group;
        if config.retention != GroupRetention::None {
            for index in config.from.keys() {
                self.subscribers.entry(index.clone()).or_default().insert(name.clone());
            }
        }
        let (asked, config, consumed) = (asked.clone(), config.clone(), BTreeMap::new());
        self.groups.insert(config.group.clone(), Group { asked, config, generation, created, consumed });
    }

    fn remove(&mut self, name: &GroupName) {
        self.unsubscribe(name);
        if let Some(gone) = self.groups.remove(name) {
            self.generations_gone = self.generations_gone.max(gone.generation);
        }
    }

    fn unsubscribe(&mut self, name: &GroupName) {
        let Some(group) = self.groups.get(name) else { return };
        for index in group.config.from.keys() {
            if let Some(subscribers) = self.subscribers.get_mut(index) {
                subscribers.remove(name);
                if subscribers.is_empty() {
                    self.subscribers.remove(index);
                }
            }
        }
    }
}

impl Group {
    fn describe(&self) -> GroupDescription {
        GroupDescription {
            config: self.config.clone(),
            generation: self.generation,
            created: self.created,
            consumed: self.consumed.clone(),
        }
    }

    /// Where the group stands in a stream; the empty cut is the stream's head.
    fn stands(&self, index: &IndexName) -> StreamCut {
        match (self.consumed.get(index), self.config.from.get(index)) {
            (Some(consumed), _) => consumed.clone(),
            (None, Some(CutKind::At(cut))) => cut.clone(),
            (None, _) => StreamCut::default(),
        }
    }
}

/// Checks a configuration and gives every bound of kind `Tail`.
fn given(state: &State, wanted: &Wanted) -> Result<GroupConfig, CoordinatorError> {
    let mut config = wanted.config.clone();
    if !(1..=INDEXES_MAX).contains(&config.from.len()) {
        return Err(GroupError::Indexes(config.from.len()).into());
    }
    if let Some(index) = config.to.keys().find(|index| !config.from.contains_key(*index)) {
        return Err(GroupError::EndWithoutBeginning(index.clone()).into());
    }
    for (index, bound) in config.from.iter_mut().chain(&mut config.to) {
        let stream = state.live_stream(index)?;
        if stream.summary().scope != wanted.config.scope {
            // Another tenant's index: whether it is there is nothing that a caller may learn.
            return Err(CoordinatorError::UnknownIndex(index.clone()));
        }
        if *bound == CutKind::Tail {
            let tail = wanted.tails.get(index).ok_or_else(|| CoordinatorError::UnknownIndex(index.clone()))?;
            *bound = CutKind::At(tail.clone());
        }
        if let CutKind::At(cut) = bound {
            stream.graph().resolve(cut)?;
        }
    }
    let places = config.from.values().chain(config.to.values()).map(|bound| match bound {
        CutKind::At(cut) => cut.0.len(),
        CutKind::Unbounded | CutKind::Tail => 0,
    });
    check_places(&config.group, places.sum())?;
    Ok(config)
}

fn check_places(group: &GroupName, places: usize) -> Result<(), GroupError> {
    if places > PLACES_MAX { Err(GroupError::TooManyPlaces { group: group.clone(), places }) } else { Ok(()) }
}
