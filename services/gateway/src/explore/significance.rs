//! How much two counts differ, and whether that may be chance. Pure.
//!
//! Source: the log-likelihood ratio of Dunning, "Accurate Methods for the Statistics of Surprise and Coincidence" (1993).
//! Unlike the chi-square it can be used where counts are small, which they are for what is new.

/// From here on a difference is hardly chance: one in a thousand, for one comparison.
pub(super) const MARKED: f64 = 10.83;

/// Twice the log-likelihood ratio of counts against what was expected of them.
fn ratio(cells: &[(f64, f64)]) -> f64 {
    let one = |(seen, expected): &(f64, f64)| if *seen > 0.0 { seen * (seen / expected).ln() } else { 0.0 };
    let sum = 2.0 * cells.iter().map(one).sum::<f64>();
    // What is equal may come out a little below.
    (sum.max(0.0) * 1e3).round() / 1e3
}

/// How surprising it is that of two groups of events so many have a property, if it has nothing to do with the group.
///
/// The statistic is distributed as a chi-square with one degree of freedom: above 3.84 is one in twenty, above [`MARKED`]
/// one in a thousand.
#[allow(clippy::cast_precision_loss, reason = "counts of events; a rounded one does not change what stands out")]
pub(super) fn of_shares((with_a, all_a): (u64, u64), (with_b, all_b): (u64, u64)) -> f64 {
    if all_a == 0 || all_b == 0 {
        return 0.0;
    }
    let (with, without) = (with_a + with_b, (all_a - with_a.min(all_a)) + (all_b - with_b.min(all_b)));
    let all = (all_a + all_b) as f64;
    let expected = |of: u64, group: u64| of as f64 * group as f64 / all;
    ratio(&[
        (with_a as f64, expected(with, all_a)),
        (with_b as f64, expected(with, all_b)),
        ((all_a - with_a.min(all_a)) as f64, expected(without, all_a)),
        ((all_b - with_b.min(all_b)) as f64, expected(without, all_b)),
    ])
}

/// How surprising it is that so many events came in two spans of time, if they come at one rate.
#[allow(clippy::cast_precision_loss, reason = "counts of events; a rounded one does not change what stands out")]
pub(super) fn of_rates((count_a, seconds_a): (u64, f64), (count_b, seconds_b): (u64, f64)) -> f64 {
    let (all, seconds) = ((count_a + count_b) as f64, seconds_a + seconds_b);
    if all == 0.0 || seconds_a <= 0.0 || seconds_b <= 0.0 {
        return 0.0;
    }
    ratio(&[(count_a as f64, all * seconds_a / seconds), (count_b as f64, all * seconds_b / seconds)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_figures() {
        // Worked out by hand: 2 * sum of seen * ln(seen / expected).
        for (a, b, expected) in [
            ((10, 100), (10, 100), 0.0),
            ((10, 100), (30, 100), 12.972),
            ((0, 100), (10, 100), 14.390),
            ((1, 10), (3, 10), 1.297),
            ((0, 0), (5, 10), 0.0),
            ((100, 100), (100, 100), 0.0),
        ] {
            assert!((of_shares(a, b) - expected).abs() < 0.01, "{a:?} {b:?}: {}", of_shares(a, b));
        }
        for (a, b, expected) in [
            ((10, 60.0), (10, 60.0), 0.0),
            ((10, 60.0), (30, 60.0), 10.465),
            ((10, 60.0), (20, 120.0), 0.0),
            ((0, 60.0), (8, 60.0), 11.090),
            ((0, 60.0), (0, 60.0), 0.0),
        ] {
            assert!((of_rates(a, b) - expected).abs() < 0.01, "{a:?} {b:?}: {}", of_rates(a, b));
        }
    }

    proptest! {
        /// It does not matter which comes first, equal shares are no surprise, and more of the same surprises more.
        #[test]
        fn it_is_a_measure(with_a in 0_u64..1_000, more_a in 1_u64..1_000, with_b in 0_u64..1_000, more_b in 1_u64..1_000) {
            let (a, b) = ((with_a, with_a + more_a), (with_b, with_b + more_b));
            let found = of_shares(a, b);
            prop_assert!(found >= 0.0 && found.is_finite());
            prop_assert!((found - of_shares(b, a)).abs() < 1e-6);
            prop_assert_eq!(of_shares(a, a), 0.0);
            let tenfold = |(with, all): (u64, u64)| (with * 10, all * 10);
            prop_assert!((of_shares(tenfold(a), tenfold(b)) - found * 10.0).abs() < 0.02);
            let rates = of_rates((with_a, 60.0), (with_b, 90.0));
            prop_assert!(rates >= 0.0 && rates.is_finite());
            prop_assert!((rates - of_rates((with_b, 90.0), (with_a, 60.0))).abs() < 1e-6);
        }
    }
}
