//! Names and numbers of rows by which a target outside recognises what a new attempt repeats.
//!
//! A writer is named by job, submission, vertex, generation and subtask, and numbers its rows from 1. Where each split's rows keep their
//! order only by themselves, each split has numbers of its own. Where order is chance altogether, no number could name a row in two attempts:
//! then the attempt is part of the name, and what it repeats is not recognised.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::TaskError,
    part::Part,
    run::{Begin, own},
    task::Context,
};

/// The numbers of one subtask's rows. Bounds: one for each split that it reads.
#[derive(Debug)]
pub(super) struct Numbered {
    name: String,
    /// Whether every attempt gives the same rows in the same order.
    ordered: bool,
    /// The last number, by split.
    last: BTreeMap<Option<u64>, u64>,
}

/// Numbers that were given to rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) writer: String,
    /// Of the first row; the others follow.
    pub(super) first: u64,
}

/// What a checkpoint keeps.
#[derive(Debug, Serialize, Deserialize)]
struct Kept(Vec<(Option<u64>, u64)>);

impl Numbered {
    /// Goes on behind the part of the same subtask of the same generation.
    pub(super) fn open(context: &Context, begin: Begin<'_>, ordered: bool) -> Result<Self, TaskError> {
        let (submitted, id) = (&context.submitted, context.id);
        let attempt = if ordered { String::new() } else { format!("-a{}", context.attempt) };
        let name = format!(
            "{}-{}-v{}-g{}{attempt}-s{}",
            submitted.job, submitted.submission, id.vertex, submitted.generation, id.subtask
        );
        let record = own(context, begin.parts).filter(|_| ordered).and_then(|part| part.sink.as_ref());
        let kept = match record {
            None => Kept(Vec::new()),
            Some(record) => wire::decode(record)
                .map_err(|problem| TaskError::Part { key: name.clone(), problem: problem.to_string() })?,
        };
        Ok(Self { name, ordered, last: kept.0.into_iter().collect() })
    }

    /// Numbers the next rows.
    pub(super) fn give(&mut self, split: Option<u64>, count: u64) -> Given {
        let last = self.last.entry(split).or_default();
        let first = last.saturating_add(1);
        *last = last.saturating_add(count);
        let writer = match split {
            Some(split) => format!("{}-{split:016x}", self.name),
            None => self.name.clone(),
        };
        Given { writer, first }
    }

    /// Writes the numbers down: everything up to them is acknowledged.
    pub(super) fn note(&self, part: &mut Part) {
        if self.ordered {
            let kept = Kept(self.last.iter().map(|(split, last)| (*split, *last)).collect());
            part.sink = Some(Bytes::from(wire::encode(&kept)));
        }
    }
}

#[cfg(test)]
mod tests {
    use flow::{TaskId, Uid};

    use super::*;

    fn numbered(name: &str, part: Option<&Part>) -> Numbered {
        let kept =
            part.and_then(|part| part.sink.as_ref()).map_or(Kept(Vec::new()), |sink| wire::decode(sink).unwrap());
        Numbered { name: name.to_owned(), ordered: true, last: kept.0.into_iter().collect() }
    }

    #[test]
    fn numbers_go_on_where_the_checkpoint_left_them() {
        let mut first = numbered("w", None);
        assert_eq!(first.give(None, 3), Given { writer: "w".to_owned(), first: 1 });
        assert_eq!(first.give(Some(7), 2), Given { writer: "w-0000000000000007".to_owned(), first: 1 });
        let mut part = Part::new(TaskId { vertex: 0, subtask: 0 }, Uid::default(), 1);
        first.note(&mut part);
        let behind = [first.give(None, 5), first.give(Some(7), 1), first.give(Some(8), 1)];
        let mut second = numbered("w", Some(&part));
        assert_eq!([second.give(None, 5), second.give(Some(7), 1), second.give(Some(8), 1)], behind);
    }
}
