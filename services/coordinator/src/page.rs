//! Pages of listings: as many entries as were asked for, and no more bytes than NATS carries. Pure.

use wire::{
    Problem,
    coordinator::{
        EpochPage, EpochsOf, GroupList, GroupsOf, ItemList, ItemsOf, Page, ScopeList, ScopesOf, SegmentNodes,
        SegmentsOf, StreamList, StreamsOf, TransactionList, TransactionsOf,
    },
};

use crate::{State, Stream};

/// Streams of a scope or with a tag, or all.
pub(crate) fn streams(state: &State, wanted: &StreamsOf) -> Result<StreamList, Problem> {
    let in_scope = |scope| wanted.scope.as_ref().is_none_or(|wanted| wanted == scope);
    let tagged = |tags: &[types::Tag]| wanted.tag.as_ref().is_none_or(|tag| tags.contains(tag));
    let found = state.live_behind(wanted.after).filter(|s| in_scope(&s.summary().scope) && tagged(&s.summary().tags));
    let (streams, more) = wanted.limit.fill(found.map(Stream::describe))?;
    Ok(StreamList { streams, more })
}

/// Every scope.
pub(crate) fn scopes(state: &State, wanted: &ScopesOf) -> Result<ScopeList, Problem> {
    let behind = state.scopes(wanted.after.as_ref()).map(|(scope, _)| scope.clone());
    let (scopes, more) = wanted.limit.fill(behind)?;
    Ok(ScopeList { scopes, more })
}

/// Segments of a stream.
pub(crate) fn segments(state: &State, wanted: &SegmentsOf) -> Result<SegmentNodes, Problem> {
    let nodes = state.live_stream(&wanted.index)?.graph().nodes(wanted.after).cloned();
    let (segments, more) = Page(wanted.limit).fill(nodes)?;
    Ok(SegmentNodes { segments, more })
}

/// Epochs of a stream.
pub(crate) fn epochs(state: &State, wanted: &EpochsOf) -> Result<EpochPage, Problem> {
    let records = state.live_stream(&wanted.index)?.graph().epochs(wanted.from).cloned();
    let (epochs, more) = Page(wanted.limit).fill(records)?;
    Ok(EpochPage { epochs, more })
}

/// Transactions of a stream.
pub(crate) fn transactions(state: &State, wanted: &TransactionsOf) -> Result<TransactionList, Problem> {
    let stream = state.live_stream(&wanted.index)?.graph().stream();
    let (transactions, more) = wanted.limit.fill(state.transactions().list(stream, wanted.before))?;
    Ok(TransactionList { transactions, more })
}

/// Items of the library of an index.
pub(crate) fn items(state: &State, wanted: &ItemsOf) -> Result<ItemList, Problem> {
    let of = (state.live_stream(&wanted.index)?.summary().stream, &wanted.index);
    let (items, more) = wanted.limit.fill(state.library().list(of, wanted.kind, wanted.after.as_ref()))?;
    Ok(ItemList { items, more })
}

/// Reader groups of a scope, or all.
pub(crate) fn groups(state: &State, wanted: &GroupsOf) -> Result<GroupList, Problem> {
    let (groups, more) = wanted.limit.fill(state.groups().list(wanted.scope.as_ref(), wanted.after.as_ref()))?;
    Ok(GroupList { groups, more })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use host::ControlState;
    use serde::Serialize;
    use types::{IndexName, KeyRange, ScopeName, Tag, Timestamp, TransactionId};
    use wire::{
        coordinator::{CutKind, GroupConfig, NewStream, PAGE_MAX},
        encode,
    };

    use super::*;
    use crate::{
        Command, Event, TAGS_MAX, groups,
        transactions::{self, SHARES_MAX, TRANSACTIONS_OPEN_MAX, Wish},
    };

    /// What NATS takes unless it is told otherwise.
    const PAYLOAD: usize = 1 << 20;

    const STREAMS: u32 = 10_000;

    fn run(state: &mut State, command: Command) -> Vec<Event> {
        let events = state.decide(command, Timestamp::default()).unwrap();
        events.iter().for_each(|event| state.apply(event, Timestamp::default()));
        events
    }

    fn installed() -> State {
        let mut state = State::default();
        run(&mut state, Command::Install { container_count: 8 });
        state
    }

    fn index(n: u32) -> IndexName {
        format!("index-of-some-length-{n}").parse().unwrap()
    }

    fn add(state: &mut State, stream: u32, new: NewStream) {
        let index = new.index.clone();
        run(state, Command::BeginStream(new));
        run(state, Command::EndStream { stream, index });
    }

    /// Walks all pages; answers the entries of each and the bytes of the largest.
    fn walk<T: Serialize>(mut next: impl FnMut(Option<&T>) -> (Vec<T>, bool)) -> (Vec<T>, usize, usize) {
        let (mut all, mut pages, mut largest) = (Vec::new(), 0, 0);
        loop {
            let (page, more) = next(all.last());
            assert!(!more || !page.is_empty(), "a page that says that there are more has something");
            largest = largest.max(encode(&page).len());
            all.extend(page);
            pages += 1;
            if !more {
                return (all, pages, largest);
            }
        }
    }

    #[test]
    fn ten_thousand_streams_and_scopes_are_listed_in_pages_that_can_be_sent() {
        let mut state = installed();
        let tags: Vec<Tag> = (0..TAGS_MAX).map(|n| format!("tag-{n}-{}", "x".repeat(50)).parse().unwrap()).collect();
        for n in 0..STREAMS {
            let scope: ScopeName = format!("scope-{n}").parse().unwrap();
            let tags = if n % 3 == 0 { Vec::new() } else { tags.clone() };
            add(
                &mut state,
                n,
                NewStream { tags, ..NewStream::fixed(scope, index(n), if n % 100 == 0 { 64 } else { 2 }) },
            );
        }
        let all = |wanted: StreamsOf| {
            walk(|last: Option<&wire::coordinator::StreamDescription>| {
                let page =
                    streams(&state, &StreamsOf { after: last.map(|stream| stream.stream), ..wanted.clone() }).unwrap();
                (page.streams, page.more)
            })
        };
        let (found, pages, largest) = all(StreamsOf::default());
        let numbers: Vec<u32> = found.iter().map(|stream| stream.stream).collect();
        assert_eq!(numbers, (0..STREAMS).collect::<Vec<_>>(), "each once, in order of creation");
        assert!(pages > 10 && largest < PAYLOAD, "{pages} pages, {largest} bytes");
        let (tagged, ..) = all(StreamsOf { tag: Some(tags[1].clone()), limit: Page(7), ..StreamsOf::default() });
        assert_eq!(tagged.len(), 6_666);
        let one = StreamsOf { scope: Some("scope-77".parse().unwrap()), ..StreamsOf::default() };
        assert_eq!(all(one).0.len(), 1);

        let (found, pages, largest) = walk(|last: Option<&ScopeName>| {
            let page = scopes(&state, &ScopesOf { after: last.cloned(), ..ScopesOf::default() }).unwrap();
            (page.scopes, page.more)
        });
        assert_eq!((found.len(), found.iter().collect::<BTreeSet<_>>().len(), pages), (10_000, 10_000, 10));
        assert!(largest < PAYLOAD, "{largest}");
    }

    #[test]
    fn wide_streams_and_their_transactions_are_listed_in_pages_that_can_be_sent() {
        let mut state = installed();
        let width = u32::try_from(SHARES_MAX / TRANSACTIONS_OPEN_MAX).unwrap();
        add(&mut state, 0, NewStream::fixed("team".parse().unwrap(), index(0), 64));
        for epoch in 1..=6 {
            let seal = state.graph(&index(0)).unwrap().present().map(|there| there.segment).collect();
            let ranges = KeyRange::split_evenly(width - epoch % 2);
            run(&mut state, Command::BeginScale { index: index(0), seal, ranges, containers: None, for_commit: false });
            run(&mut state, Command::EndScale { stream: 0, epoch });
        }
        for n in 0..TRANSACTIONS_OPEN_MAX {
            let of = |wish| Command::Transactions(transactions::Command::Of { index: index(0), wish });
            run(&mut state, of(Wish::Begin { lease_ms: 1_000 }));
            run(&mut state, of(Wish::Open(TransactionId(u32::try_from(n).unwrap()))));
        }
        let (found, pages, largest) = walk(|last: Option<&wire::coordinator::Transaction>| {
            let before = last.map(|one| one.transaction);
            let page =
                super::transactions(&state, &TransactionsOf { before, ..TransactionsOf::all(index(0)) }).unwrap();
            (page.transactions, page.more)
        });
        let ids: Vec<u32> = found.iter().map(|one| one.transaction.0).collect();
        assert_eq!(ids, (0..100).rev().collect::<Vec<_>>());
        assert!(pages > 20 && largest < PAYLOAD, "{pages} pages, {largest} bytes");

        let (found, pages, largest) = walk(|last: Option<&wire::coordinator::SegmentNode>| {
            let after = last.map(|node| node.segment);
            let page = segments(&state, &SegmentsOf { index: index(0), after, limit: PAGE_MAX }).unwrap();
            (page.segments, page.more)
        });
        assert_eq!((found.len(), pages), (state.graph(&index(0)).unwrap().len(), 13));
        assert!(largest < PAYLOAD, "{largest}");
        let (found, pages, largest) = walk(|last: Option<&wire::coordinator::EpochRecord>| {
            let from = last.map_or(0, |record| record.epoch + 1);
            let page = epochs(&state, &EpochsOf { index: index(0), from, limit: PAGE_MAX }).unwrap();
            (page.epochs, page.more)
        });
        assert_eq!((found.len(), pages), (7, 2));
        assert!(largest < PAYLOAD, "{largest}");
    }

    #[test]
    fn thousands_of_groups_are_listed_in_pages_that_can_be_sent() {
        let mut state = installed();
        add(&mut state, 0, NewStream::fixed("team".parse().unwrap(), index(0), 64));
        let tail = state.graph(&index(0)).unwrap().head_cut();
        for n in 0..3_000 {
            let config = GroupConfig {
                group: format!("group-{n}").parse().unwrap(),
                scope: "team".parse().unwrap(),
                from: [(index(0), CutKind::At(tail.clone()))].into(),
                to: [(index(0), CutKind::At(tail.clone()))].into(),
                checkpoint_ms: 0,
                retention: Default::default(),
            };
            let wanted = groups::Wanted { config, tails: Default::default() };
            run(&mut state, Command::Groups(groups::Command::Create(wanted)));
        }
        let (found, pages, largest) = walk(|last: Option<&wire::coordinator::GroupDescription>| {
            let after = last.map(|group| group.config.group.clone());
            let page = super::groups(&state, &GroupsOf { after, ..GroupsOf::default() }).unwrap();
            (page.groups, page.more)
        });
        let names: BTreeSet<_> = found.iter().map(|group| group.config.group.clone()).collect();
        assert_eq!((found.len(), names.len()), (3_000, 3_000));
        assert!(pages > 3 && largest < PAYLOAD, "{pages} pages, {largest} bytes");
    }
}
