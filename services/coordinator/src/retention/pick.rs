//! Which cut becomes the head of a stream.

use types::{StreamCut, Timestamp};
use wire::coordinator::RetentionPolicy;

use super::Recorded;
use crate::graph::Graph;

/// What has to be known to pick a cut.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What goes first.
    pub policy: RetentionPolicy,
    /// Remembered tail cuts, oldest first; each is at or after the one before.
    pub cuts: &'a [Recorded],
    /// Payload bytes from the first event ever to the tail.
    pub bytes: u64,
    /// How many of them are truncated, as far as known.
    pub truncated_bytes: u64,
    /// The present instant.
    pub now: Timestamp,
    /// Up to where all subscribers have consumed; `None` without subscribers.
    pub consumed: Option<&'a StreamCut>,
    /// Tells which of two cuts is further.
    pub graph: &'a Graph,
}

/// How two cuts lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// For some key earlier, for none later.
    Before,
    /// For no key earlier.
    AtOrAfter,
    /// For some keys earlier, for others later.
    Overlaps,
}

impl Situation<'_> {
    /// Picks the cut at which the stream shall begin; `None` leaves it as it is.
    ///
    /// Without subscribers the policy alone decides. With subscribers it is what they all have consumed, unless that would leave less
    /// than the least or more than the most that the policy keeps; then it is a remembered cut.
    /// Source: Pravega, "Stream Retention", and its `StreamMetadataTasks`.
    pub fn pick(&self) -> Option<StreamCut> {
        match self.policy {
            RetentionPolicy::TimeAndSize { ms, bytes } => {
                // The older a cut, the more lies behind it: those that either limit gives up are the first ones.
                let too_much = |cut: &Recorded| self.age_ms(cut) >= ms || self.bytes_behind(cut) >= bytes;
                self.cuts[..self.cuts.partition_point(too_much)].last().map(Recorded::cut)
            }
            RetentionPolicy::Time { min_ms, max_ms } => {
                let (least, most) = self.limits(|cut| self.age_ms(cut), min_ms, max_ms);
                match self.consumed {
                    None => least.map(Recorded::cut),
                    Some(consumed) => self.by_time(consumed, (least?, most?), max_ms),
                }
            }
            RetentionPolicy::Size { min_bytes, max_bytes } => {
                let (least, most) = self.limits(|cut| self.bytes_behind(cut), min_bytes, max_bytes);
                let Some(consumed) = self.consumed else {
                    let kept = self.bytes.saturating_sub(self.truncated_bytes);
                    let cut = if max_bytes.is_some_and(|max| kept > max) { most } else { least };
                    return cut.map(Recorded::cut);
                };
                self.by_size(consumed, (least, most), min_bytes, max_bytes)
            }
        }
    }

    /// The age of the youngest event that goes when the stream begins at a remembered cut.
    fn age_ms(&self, cut: &Recorded) -> u64 {
        u64::try_from(self.now.since(cut.at).as_millis()).unwrap_or(u64::MAX)
    }

    /// How much stays when the stream begins at a remembered cut.
    fn bytes_behind(&self, cut: &Recorded) -> u64 {
        self.bytes.saturating_sub(cut.bytes)
    }

    /// The youngest cut that leaves at least the minimum, and the oldest of those that leave no more than the maximum. Where none
    /// leaves so little, the second is the first.
    fn limits(
        &self,
        kept: impl Fn(&Recorded) -> u64,
        min: u64,
        max: Option<u64>,
    ) -> (Option<&Recorded>, Option<&Recorded>) {
        let enough = &self.cuts[..self.cuts.partition_point(|cut| kept(cut) >= min)];
        let most = enough.iter().find(|cut| max.is_none_or(|max| kept(cut) <= max));
        (enough.last(), most.or(enough.last()))
    }

    fn by_time(
        &self,
        consumed: &StreamCut,
        (least, most): (&Recorded, &Recorded),
        max_ms: Option<u64>,
    ) -> Option<StreamCut> {
        match self.order(&least.cut(), consumed) {
            // The subscribers are ahead of what has to stay.
            Order::Before => Some(least.cut()),
            Order::Overlaps => self.before(consumed).map(Recorded::cut),
            Order::AtOrAfter => {
                let too_old = self.cuts.partition_point(|cut| max_ms.is_some_and(|max| self.age_ms(cut) >= max));
                let Some(too_old) = self.cuts[..too_old].last() else { return Some(consumed.clone()) };
                Some(match self.order(consumed, &too_old.cut()) {
                    Order::AtOrAfter => consumed.clone(),
                    Order::Before => most.cut(),
                    // All that is too old goes, and nothing else that somebody still wants.
                    Order::Overlaps => too_old.cut(),
                })
            }
        }
    }

    /// How many bytes lie behind the subscribers is known only to lie between what remembered cuts leave. So the least is kept for
    /// sure, and what they still want goes for the sake of the most only if it is surely too much.
    fn by_size(
        &self,
        consumed: &StreamCut,
        (least, most): (Option<&Recorded>, Option<&Recorded>),
        min_bytes: u64,
        max_bytes: Option<u64>,
    ) -> Option<StreamCut> {
        let kept = self.after(consumed).map_or(0, |cut| self.bytes_behind(cut));
        if kept < min_bytes {
            let least = least?.cut();
            return match self.order(&least, consumed) {
                Order::Before => Some(least),
                Order::AtOrAfter | Order::Overlaps => self.before(consumed).map(Recorded::cut),
            };
        }
        if max_bytes.is_some_and(|max| kept > max) {
            return Some(
                most.filter(|most| self.bytes_behind(most) < kept).map_or_else(|| consumed.clone(), Recorded::cut),
            );
        }
        Some(consumed.clone())
    }

    /// The youngest remembered cut that is not after the given one for any key.
    fn before(&self, cut: &StreamCut) -> Option<&Recorded> {
        self.cuts[..self.cuts.partition_point(|known| self.order(cut, &known.cut()) == Order::AtOrAfter)].last()
    }

    /// The oldest remembered cut that is not before the given one for any key.
    fn after(&self, cut: &StreamCut) -> Option<&Recorded> {
        self.cuts.get(self.cuts.partition_point(|known| self.order(&known.cut(), cut) != Order::AtOrAfter))
    }

    fn order(&self, one: &StreamCut, other: &StreamCut) -> Order {
        // What cannot be compared counts as overlapping: then neither is taken for being past the other.
        if self.graph.is_at_or_after(one, other).unwrap_or(false) {
            Order::AtOrAfter
        } else if self.graph.is_at_or_after(other, one).unwrap_or(false) {
            Order::Before
        } else {
            Order::Overlaps
        }
    }
}
