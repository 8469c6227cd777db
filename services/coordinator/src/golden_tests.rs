//! What was ever written to the journal is read for ever, and gives a state that is.

use host::ControlState;
use testkit::Golden;

use crate::{Event, State};

#[test]
fn golden_journal_is_read_for_ever() {
    let mut golden = Golden::open("journal-coordinator");
    golden.check_journal::<Event, State>(State::apply);
    golden.covers::<crate::transactions::Event>("Event.Transactions");
    golden.covers::<crate::groups::Event>("Event.Groups");
    golden.covers::<crate::retention::Event>("Event.Retention");
    golden.covers::<crate::library::Event>("Event.Library");
    golden.close();
}
