//! Lining up barriers: an operator takes its snapshot when every open input has delivered the same epoch.

/// What to do with the inputs after a barrier, an end of input or an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alignment {
    /// Nothing changes: an old barrier, or an end of input that no alignment waited for.
    Unchanged,
    /// Do not read this input until the alignment is over; the others go on.
    Block,
    /// Every open input has delivered this epoch: take the snapshot, pass the barrier on, unblock all inputs.
    Complete(u64),
    /// A newer epoch came before this one was complete: unblock all inputs, then block only the one that brought it.
    Restart {
        /// The epoch that will never complete here; it is to be reported as declined.
        abandoned: u64,
    },
}

/// The alignment of one operator over its inputs.
///
/// - Barriers of one input come in rising order. One that is not newer than the last completed or aborted epoch, or
///   older than the one being aligned, is ignored.
/// - An input that has ended counts as aligned, for the present epoch and all later ones. When all have ended
///   nothing completes any more: the operator's last snapshot is its part of every later checkpoint.
/// - An operator with one input completes at once.
#[derive(Debug, Clone)]
pub struct Aligner {
    inputs: Vec<Input>,
    pending: Option<u64>,
    done: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Input {
    arrived: bool,
    ended: bool,
}

impl Aligner {
    /// Aligns `inputs` inputs; barriers up to `restored_epoch` (0 for a fresh start) are old.
    pub fn new(inputs: usize, restored_epoch: u64) -> Self {
        Self { inputs: vec![Input::default(); inputs], pending: None, done: restored_epoch }
    }

    /// Takes a barrier from an input.
    pub fn barrier(&mut self, input: usize, epoch: u64) -> Alignment {
        if epoch <= self.done || self.pending.is_some_and(|pending| epoch < pending) || input >= self.inputs.len() {
            return Alignment::Unchanged;
        }
        let abandoned = self.pending.filter(|pending| epoch > *pending);
        if abandoned.is_some() {
            self.inputs.iter_mut().for_each(|input| input.arrived = false);
        }
        self.pending = Some(epoch);
        self.inputs[input].arrived = true;
        match (self.settle(), abandoned) {
            (Some(epoch), _) => Alignment::Complete(epoch),
            (None, Some(abandoned)) => Alignment::Restart { abandoned },
            (None, None) => Alignment::Block,
        }
    }

    /// Takes the end of an input.
    pub fn end(&mut self, input: usize) -> Alignment {
        if let Some(input) = self.inputs.get_mut(input) {
            input.ended = true;
        }
        self.settle().map_or(Alignment::Unchanged, Alignment::Complete)
    }

    /// Gives an epoch up, as the coordinator says; true if it was being aligned and all inputs must be unblocked.
    pub fn abort(&mut self, epoch: u64) -> bool {
        self.done = self.done.max(epoch);
        let hit = self.pending.is_some_and(|pending| pending <= epoch);
        if hit {
            self.clear();
        }
        hit
    }

    /// Whether the input must not be read now.
    pub fn is_blocked(&self, input: usize) -> bool {
        self.pending.is_some() && self.inputs.get(input).is_some_and(|input| input.arrived && !input.ended)
    }

    /// The epoch being aligned.
    pub fn pending(&self) -> Option<u64> {
        self.pending
    }

    fn settle(&mut self) -> Option<u64> {
        let epoch = self.pending?;
        self.inputs.iter().all(|input| input.arrived || input.ended).then(|| {
            self.done = epoch;
            self.clear();
            epoch
        })
    }

    fn clear(&mut self) {
        self.pending = None;
        self.inputs.iter_mut().for_each(|input| input.arrived = false);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_inputs_must_deliver() {
        let mut a = Aligner::new(3, 0);
        assert_eq!(a.barrier(0, 1), Alignment::Block);
        assert!(a.is_blocked(0) && !a.is_blocked(1));
        assert_eq!(a.barrier(2, 1), Alignment::Block);
        assert_eq!(a.barrier(1, 1), Alignment::Complete(1));
        assert!(!a.is_blocked(0));
        assert_eq!(a.barrier(1, 1), Alignment::Unchanged, "old");
        assert_eq!(Aligner::new(1, 7).barrier(0, 7), Alignment::Unchanged, "restored");
        assert_eq!(Aligner::new(1, 7).barrier(0, 8), Alignment::Complete(8));
    }

    #[test]
    fn an_ended_input_is_aligned() {
        let mut a = Aligner::new(2, 0);
        a.barrier(0, 1);
        assert_eq!(a.end(1), Alignment::Complete(1));
        assert_eq!(a.barrier(0, 2), Alignment::Complete(2));
        assert_eq!(a.end(0), Alignment::Unchanged);
    }

    #[test]
    fn a_newer_epoch_supersedes() {
        let mut a = Aligner::new(3, 0);
        a.barrier(0, 1);
        a.barrier(1, 1);
        assert_eq!(a.barrier(2, 2), Alignment::Restart { abandoned: 1 });
        assert!(!a.is_blocked(0) && !a.is_blocked(1) && a.is_blocked(2));
        assert_eq!(a.barrier(0, 1), Alignment::Unchanged);
        a.barrier(0, 2);
        assert_eq!(a.barrier(1, 2), Alignment::Complete(2));
    }

    #[test]
    fn an_aborted_epoch_is_forgotten() {
        let mut a = Aligner::new(2, 0);
        a.barrier(0, 1);
        assert!(a.abort(1));
        assert!(!a.is_blocked(0));
        assert_eq!(a.barrier(1, 1), Alignment::Unchanged);
        assert!(!a.abort(1));
        assert_eq!(a.barrier(0, 2), Alignment::Block);
    }

    proptest! {
        /// Whatever the order in which inputs are read: every epoch that all of them carry completes, in order, and
        /// at completion each input stands exactly behind its barrier.
        #[test]
        fn alignment_does_not_depend_on_the_reading_order(
            lengths in prop::collection::vec(prop::collection::vec(0usize..4, 3), 1..5),
            ends in prop::collection::vec(any::<bool>(), 5),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 400),
        ) {
            // Each input: for every epoch e, some items tagged e, then barrier e; an ended one stops after epoch 2.
            #[derive(Clone, Copy)]
            enum Item { Row(u64), Barrier(u64), End }
            let mut inputs: Vec<VecDeque<Item>> = lengths.iter().zip(&ends).map(|(rows, end)| {
                let mut items = VecDeque::new();
                for (epoch, n) in (1u64..).zip(rows) {
                    items.extend(std::iter::repeat_n(Item::Row(epoch), *n));
                    if epoch == 3 && *end { items.push_back(Item::End); } else { items.push_back(Item::Barrier(epoch)); }
                }
                items
            }).collect();
            let mut aligner = Aligner::new(inputs.len(), 0);
            let mut epoch = 1;
            let mut completed = vec![];
            for pick in picks {
                let open: Vec<usize> = (0..inputs.len()).filter(|i| !aligner.is_blocked(*i) && !inputs[*i].is_empty()).collect();
                if open.is_empty() { break }
                let i = open[pick.index(open.len())];
                let step = match inputs[i].pop_front().unwrap() {
                    Item::Row(tag) => { prop_assert_eq!(tag, epoch); Alignment::Unchanged }
                    Item::Barrier(e) => aligner.barrier(i, e),
                    Item::End => aligner.end(i),
                };
                if let Alignment::Complete(e) = step { completed.push(e); epoch = e + 1; }
            }
            let all_ended = lengths.iter().zip(&ends).all(|(_, end)| *end);
            prop_assert_eq!(completed, if all_ended { vec![1, 2] } else { vec![1, 2, 3] });
        }
    }
}
