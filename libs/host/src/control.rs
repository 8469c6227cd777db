//! The pure part of a control service, and how it looks in the journal.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use types::{ReplicaId, Timestamp};
use wire::{Code, Problem, Service};

/// The largest journal entry: all events of one command. It travels as one message, whose limit is 8 MiB by default.
pub const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The state of a control service: decisions and their consequences, without any I/O.
pub trait ControlState: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Whose state it is; names journal, lease and snapshots.
    const SERVICE: Service;
    /// What is asked for.
    type Command: Send;
    /// What happened. Stored for ever: fields are only added, with `#[serde(default)]`.
    type Event: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;
    /// Why a command is refused.
    type Error: Into<Problem> + Send;

    /// Decides what happens because of a command; no event means that it is fulfilled already.
    fn decide(&self, command: Self::Command, now: Timestamp) -> Result<Vec<Self::Event>, Self::Error>;

    /// Takes in what happened at `at`; must give the same state on every replica, so it reads no clock and no randomness.
    fn apply(&mut self, event: &Self::Event, at: Timestamp);
}

/// One entry of a journal: everything that one command made happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry<E> {
    /// Unique; repeats of the append carry the same.
    pub id: String,
    /// When it was decided; never before the entry in front of it.
    pub at: Timestamp,
    /// Who decided it.
    pub replica: ReplicaId,
    /// Identity of the journal, born with its first entry: tells this journal from another one of the same name.
    pub journal: String,
    /// What the journal goes on from, where the one before it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// What happened, in order.
    pub events: Vec<E>,
}

/// A state that outlived its journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recovered {
    /// Identity of the lost journal.
    pub journal: String,
    /// Where the state stood in it; this journal begins right behind.
    pub seq: u64,
}

/// The entry without its events.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Head {
    pub id: String,
    pub journal: String,
    #[serde(default)]
    pub recovered: Option<Recovered>,
}

/// A state and where in which journal it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Applied<S> {
    /// Which service's.
    pub service: Service,
    /// Identity of the journal; empty before its first entry.
    pub journal: String,
    /// Sequence of the last entry in it.
    pub seq: u64,
    /// When that entry was decided.
    pub at: Timestamp,
    /// The state.
    pub state: S,
}

/// Why an entry cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    #[error("entry {seq} does not follow {applied}")]
    Gap { applied: u64, seq: u64 },
    #[error("entry {seq} belongs to journal {found:?}, this state to {expected:?}")]
    Foreign { seq: u64, expected: String, found: String },
    #[error("entry {seq} cannot be read: {reason}; run the version that wrote it, or a newer one")]
    Unreadable { seq: u64, reason: String },
}

impl<S: ControlState> Applied<S> {
    /// Before the first entry.
    pub(crate) fn empty() -> Self {
        Self { service: S::SERVICE, journal: String::new(), seq: 0, at: Timestamp::default(), state: S::default() }
    }

    /// Takes in an entry as stored.
    pub(crate) fn take(&mut self, seq: u64, payload: &[u8]) -> Result<(), Misfit> {
        let entry = decode_entry::<S::Event>(seq, payload)?;
        self.take_decoded(seq, &entry)
    }

    pub(crate) fn take_decoded(&mut self, seq: u64, entry: &Entry<S::Event>) -> Result<(), Misfit> {
        if seq != self.seq + 1 {
            return Err(Misfit::Gap { applied: self.seq, seq });
        }
        let continues = match &entry.recovered {
            Some(from) => from.journal == self.journal && from.seq == self.seq,
            None => self.journal.is_empty() || self.journal == entry.journal,
        };
        if !continues {
            let (expected, found) = (self.journal.clone(), entry.journal.clone());
            return Err(Misfit::Foreign { seq, expected, found });
        }
        self.journal.clone_from(&entry.journal);
        for event in &entry.events {
            self.state.apply(event, entry.at);
        }
        self.seq = seq;
        self.at = entry.at;
        Ok(())
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Problem> {
        rmp_serde::to_vec_named(self)
            .map_err(|error| Problem::internal(format_args!("state cannot be encoded: {error}")))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let applied: Self = rmp_serde::from_slice(bytes).map_err(|error| error.to_string())?;
        if applied.service != S::SERVICE {
            return Err(format!("it belongs to {}", applied.service));
        }
        Ok(applied)
    }
}

/// Encodes an entry within its bound.
pub(crate) fn encode_entry<E: Serialize>(entry: &Entry<E>) -> Result<Vec<u8>, Problem> {
    let bytes = rmp_serde::to_vec_named(entry)
        .map_err(|error| Problem::new(Code::Internal, "Internal", format_args!("event cannot be encoded: {error}")))?;
    if bytes.len() > ENTRY_BYTES_MAX {
        let message =
            format!("the command makes {} bytes of events, at most {ENTRY_BYTES_MAX} are possible", bytes.len());
        return Err(Problem::bad_request("CommandTooLarge", message));
    }
    Ok(bytes)
}

fn decode_entry<E: DeserializeOwned>(seq: u64, payload: &[u8]) -> Result<Entry<E>, Misfit> {
    rmp_serde::from_slice(payload).map_err(|error| Misfit::Unreadable { seq, reason: error.to_string() })
}

/// What a stored entry says about itself.
pub(crate) fn head_of(seq: u64, payload: &[u8]) -> Result<Head, Misfit> {
    rmp_serde::from_slice(payload).map_err(|error| Misfit::Unreadable { seq, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
    struct Sum(i64);

    impl ControlState for Sum {
        const SERVICE: Service = Service::Alerter;
        type Command = i64;
        type Event = i64;
        type Error = Problem;
        fn decide(&self, n: i64, _now: Timestamp) -> Result<Vec<i64>, Problem> {
            Ok(vec![n])
        }
        fn apply(&mut self, n: &i64, _at: Timestamp) {
            self.0 += n;
        }
    }

    fn entry(journal: &str, at: i64, events: Vec<i64>) -> Vec<u8> {
        let replica = "a".parse().unwrap();
        let entry = Entry {
            id: "id".into(),
            at: Timestamp::from_nanos(at),
            replica,
            journal: journal.into(),
            recovered: None,
            events,
        };
        encode_entry(&entry).unwrap()
    }

    #[test]
    fn entries_are_taken_in_order_and_from_one_journal() {
        let mut applied = Applied::<Sum>::empty();
        applied.take(1, &entry("j", 5, vec![1, 2])).unwrap();
        applied.take(2, &entry("j", 6, vec![10])).unwrap();
        assert_eq!((applied.state.0, applied.seq, applied.at.nanos()), (13, 2, 6));
        let before = applied.clone();
        assert!(matches!(applied.take(4, &entry("j", 7, vec![1])), Err(Misfit::Gap { applied: 2, seq: 4 })));
        assert!(matches!(applied.take(3, &entry("other", 7, vec![1])), Err(Misfit::Foreign { .. })));
        assert!(matches!(applied.take(3, b"\xc1"), Err(Misfit::Unreadable { seq: 3, .. })));
        assert_eq!(applied, before, "a misfit changes nothing");
        assert_eq!(Applied::<Sum>::decode(&applied.encode().unwrap()), Ok(applied));
        assert_eq!(head_of(1, &entry("j", 5, vec![])).unwrap().journal, "j");
    }

    #[test]
    fn a_journal_that_goes_on_from_a_snapshot_fits_exactly_that_state() {
        let going_on = |journal: &str, seq| {
            let replica = "a".parse().unwrap();
            let recovered = Some(Recovered { journal: journal.into(), seq });
            let (at, events) = (Timestamp::from_nanos(9), Vec::<i64>::new());
            encode_entry(&Entry { id: "id".into(), at, replica, journal: "new".into(), recovered, events }).unwrap()
        };
        let mut applied = Applied::<Sum>::empty();
        assert!(matches!(applied.take(1, &going_on("j", 1)), Err(Misfit::Foreign { .. })), "an empty state");
        applied.take(1, &entry("j", 5, vec![1])).unwrap();
        for misfit in [going_on("other", 1), going_on("j", 2)] {
            assert!(matches!(applied.take(2, &misfit), Err(Misfit::Foreign { .. })));
        }
        applied.take(2, &going_on("j", 1)).unwrap();
        assert!(matches!(applied.take(3, &entry("j", 10, vec![1])), Err(Misfit::Foreign { .. })), "what was lost");
        applied.take(3, &entry("new", 10, vec![1])).unwrap();
        assert_eq!((applied.state.0, applied.seq, applied.journal.as_str()), (2, 3, "new"));
    }

    #[test]
    fn an_entry_has_a_bound() {
        let entry = Entry {
            id: String::new(),
            at: Timestamp::default(),
            replica: "a".parse().unwrap(),
            journal: String::new(),
            recovered: None,
            events: vec!["x".repeat(ENTRY_BYTES_MAX)],
        };
        assert_eq!(encode_entry(&entry).unwrap_err().kind, "CommandTooLarge");
    }

    /// Written by the first version; it must decode for ever.
    #[test]
    fn the_first_entry_still_reads() {
        let golden = b"\x85\xa2id\xa1i\xa2at\x07\xa7replica\xa1r\xa7journal\xa1j\xa6events\x92\x01\x02";
        let entry: Entry<i64> = decode_entry(1, golden).unwrap();
        assert_eq!(
            (entry.id.as_str(), entry.at.nanos(), entry.journal.as_str(), entry.events.as_slice()),
            ("i", 7, "j", [1, 2].as_slice())
        );
        assert_eq!(encode_entry(&entry).unwrap(), golden);
    }
}
