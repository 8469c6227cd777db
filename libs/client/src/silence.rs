//! Who has fallen silent, by nobody's clock but one's own.
//!
//! Clocks of other machines may be hours off, so the times that others write down are compared with nothing: they only have to
//! change. Somebody is silent when what he said last was the same for long, on the clock of whoever looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use types::Timestamp;

/// What each said last, and since when. Bounds: whoever is not there any more is forgotten with the next look.
#[derive(Debug)]
pub(crate) struct Silence<K>(BTreeMap<K, (Timestamp, Instant)>);

impl<K> Default for Silence<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Silence<K> {
    /// Looks at what each said last, and answers who has said nothing else for at least so long.
    pub(crate) fn look<'a>(
        &mut self,
        said: impl Iterator<Item = (&'a K, Timestamp)>,
        silent_after: Duration,
        now: Instant,
    ) -> BTreeSet<K>
    where
        K: 'a,
    {
        let mut before = std::mem::take(&mut self.0);
        let mut silent = BTreeSet::new();
        for (who, last) in said {
            let since = before.remove(who).filter(|(known, _)| *known == last).map_or(now, |(_, since)| since);
            if now.saturating_duration_since(since) >= silent_after {
                silent.insert(who.clone());
            }
            self.0.insert(who.clone(), (last, since));
        }
        silent
    }
}

/// What somebody says next who speaks at this time of his clock: never the same twice, also if the clock was set back.
pub(crate) fn said_after(last: Option<Timestamp>, now: Timestamp) -> Timestamp {
    last.map_or(now, |last| now.max(last + Duration::from_nanos(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_says_something_else_is_not_silent_whatever_his_clock_says() {
        let after = Duration::from_secs(30);
        let time = Timestamp::from_millis;
        let mut silence = Silence::default();
        let begun = Instant::now();
        // One clock is a day ahead, one a day behind, one is set back.
        let said = |ahead, back| [("ahead", time(86_400_000 + ahead)), ("dead", time(5)), ("back", time(back))];
        for second in 0..30u32 {
            let said = said(i64::from(second), -i64::from(second));
            let now = begun + Duration::from_secs(second.into());
            assert!(silence.look(said.iter().map(|(who, last)| (who, *last)), after, now).is_empty(), "{second}");
        }
        let last = said(29, -30);
        let silent = silence.look(last.iter().map(|(who, last)| (who, *last)), after, begun + after);
        assert_eq!(silent, ["dead"].into());
        // Who is gone and comes back begins anew.
        assert!(silence.look(std::iter::empty(), after, begun + after).is_empty());
        let again = silence.look(last.iter().map(|(who, last)| (who, *last)), after, begun + 9 * after);
        assert!(again.is_empty() && silence.0.len() == 3);
    }

    #[test]
    fn nobody_says_the_same_twice() {
        let (early, late) = (Timestamp::from_millis(1), Timestamp::from_millis(9));
        assert_eq!(said_after(None, early), early);
        assert_eq!(said_after(Some(early), late), late);
        assert!(said_after(Some(late), early) > late);
    }
}
