//! In which order things were wanted of an instance, as the broker counts them: what comes late is not carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use types::{InstanceId, Timestamp};

/// How long the order of an instance is remembered: much longer than a replica stands still that does not know that it leads no
/// more, and not so long that a broker whose journal was set back could do nothing for a day.
pub(crate) const ORDER_AGE: Duration = Duration::from_secs(3_600);

/// Instances whose order is remembered, those that are gone among them; the one that was wanted first goes first.
pub(crate) const ORDERS_MAX: usize = 10_000;

/// The last order of each instance of which something was wanted not long ago.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Orders {
    last: BTreeMap<InstanceId, (u64, Timestamp)>,
    first: BTreeSet<(u64, InstanceId)>,
}

impl Orders {
    /// The greatest order that is known of an instance and still counts.
    pub(super) fn of(&self, instance: &InstanceId, now: Timestamp) -> Option<u64> {
        self.last.get(instance).filter(|(_, at)| now.since(*at) < ORDER_AGE).map(|(order, _)| *order)
    }

    pub(super) fn note(&mut self, instance: &InstanceId, order: u64, at: Timestamp) {
        if let Some((former, _)) = self.last.insert(instance.clone(), (order, at)) {
            self.first.remove(&(former, instance.clone()));
        }
        self.first.insert((order, instance.clone()));
        while self.first.len() > ORDERS_MAX
            && let Some((_, oldest)) = self.first.pop_first()
        {
            self.last.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_an_instance_is_forgotten_with_age_and_when_there_are_too_many() {
        let (mut orders, at) = (Orders::default(), Timestamp::from_millis);
        let id = |number: u64| -> InstanceId { format!("i{number}").parse().unwrap() };
        orders.note(&id(0), 3, at(0));
        orders.note(&id(0), 7, at(1));
        assert_eq!(orders.of(&id(0), at(2)), Some(7));
        let age = i64::try_from(ORDER_AGE.as_millis()).unwrap();
        assert_eq!((orders.of(&id(0), at(age)), orders.of(&id(0), at(age + 1))), (Some(7), None));
        for number in 1..=u64::try_from(ORDERS_MAX).unwrap() {
            orders.note(&id(number), 10 + number, at(2));
        }
        assert_eq!((orders.of(&id(0), at(2)), orders.of(&id(1), at(2))), (None, Some(11)));
        assert_eq!((orders.last.len(), orders.first.len()), (ORDERS_MAX, ORDERS_MAX));
    }
}
