//! Sums of floating-point numbers without rounding, so that their order cannot matter.

/// The bit that the lowest place of digit 0 stands for: 2^-1074, the smallest number there is.
const LOWEST: i32 = -1074;
const DIGIT: u32 = 32;
const MASK: u64 = (1 << DIGIT) - 1;

/// Additions before digits are carried: each adds less than 2^32 to a digit of 63 bits.
const PENDING_MAX: u32 = 1 << 30;

/// The exact sum of any number of `f64`, whatever their order.
///
/// A number is an integer multiple of 2^-1074; the sum is kept as base-2^32 digits in 64-bit places, from the lowest
/// to the highest place in use. That is two to four digits where values are of similar size, 67 at most.
/// Source: the long accumulator of Kulisch; places wider than digits, so that carries can wait.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ExactSum {
    low: usize,
    digits: Vec<i64>,
    pending: u32,
    special: u8,
}

const NAN: u8 = 1;
const UP: u8 = 2;
const DOWN: u8 = 4;

impl ExactSum {
    pub(crate) fn add(&mut self, x: f64) {
        if !x.is_finite() {
            self.special |= if x.is_nan() {
                NAN
            } else if x > 0.0 {
                UP
            } else {
                DOWN
            };
            return;
        }
        let bits = x.abs().to_bits();
        let (exponent, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
        // Subnormal numbers have the exponent of the smallest normal ones, and no hidden bit.
        let (mantissa, place) = if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
        if mantissa == 0 {
            return;
        }
        let digit = usize::try_from(place / u64::from(DIGIT)).unwrap_or(0);
        let shift = place % u64::from(DIGIT);
        let wide = u128::from(mantissa) << shift;
        let at = self.reach(digit, 3);
        for i in 0..3 {
            let part = i64::try_from((wide >> (32 * i)) & u128::from(MASK)).unwrap_or(0);
            self.digits[at + i] += if x > 0.0 { part } else { -part };
        }
        self.pending += 1;
        if self.pending == PENDING_MAX {
            self.settle();
        }
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.special |= other.special;
        let mut other = other.clone();
        other.settle();
        if other.digits.is_empty() {
            return;
        }
        let at = self.reach(other.low, other.digits.len());
        self.digits[at..].iter_mut().zip(&other.digits).for_each(|(mine, digit)| *mine += digit);
        self.pending += 1;
        if self.pending == PENDING_MAX {
            self.settle();
        }
    }

    /// Makes `count` digits from `digit` on available and returns the place of the first.
    fn reach(&mut self, digit: usize, count: usize) -> usize {
        if self.digits.is_empty() {
            self.low = digit;
        }
        if digit < self.low {
            self.digits.splice(0..0, std::iter::repeat_n(0, self.low - digit));
            self.low = digit;
        }
        let at = digit - self.low;
        if self.digits.len() < at + count {
            self.digits.resize(at + count, 0);
        }
        at
    }

    /// Carries, so that the form depends on the sum alone: all digits have its sign, no zeros at either end.
    pub(crate) fn settle(&mut self) {
        self.pending = 0;
        if self.carry() < 0 {
            self.digits.iter_mut().for_each(|d| *d = -*d);
            self.carry();
            self.digits.iter_mut().for_each(|d| *d = -*d);
        }
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        let zeros = self.digits.iter().take_while(|d| **d == 0).count();
        self.digits.drain(..zeros);
        self.low = if self.digits.is_empty() { 0 } else { self.low + zeros };
    }

    /// Brings every digit into 0..2^32 and returns the sign: if negative, the top digit is.
    fn carry(&mut self) -> i64 {
        let mut carry = 0i64;
        for digit in &mut self.digits {
            let sum = *digit + carry;
            carry = sum >> DIGIT;
            *digit = sum - (carry << DIGIT);
        }
        if carry != 0 {
            self.digits.push(carry);
        }
        carry
    }

    /// The sum, rounded once to the nearest `f64`.
    pub(crate) fn value(&self) -> f64 {
        match self.special {
            0 => {}
            UP => return f64::INFINITY,
            DOWN => return f64::NEG_INFINITY,
            _ => return f64::NAN,
        }
        let mut sum = self.clone();
        sum.settle();
        let Some(top) = sum.digits.last() else { return 0.0 };
        let negative = *top < 0;
        let skipped = sum.digits.len().saturating_sub(4);
        let mut head = sum.digits[skipped..]
            .iter()
            .rev()
            .fold(0u128, |head, digit| head << DIGIT | u128::from(digit.unsigned_abs()));
        // Four digits are at least 97 bits; what lies below them can only break a tie, and one bit does that.
        if sum.digits[..skipped].iter().any(|d| *d != 0) {
            head |= 1;
        }
        let place = i32::try_from((sum.low + skipped) * 32).unwrap_or(i32::MAX) + LOWEST;
        // Two steps, since one power of two may lie outside the range where the product does not.
        let value = head as f64 * power(place / 2) * power(place - place / 2);
        if negative { -value } else { value }
    }

    /// The settled form as bytes: flags, sign, lowest place, digits; little-endian.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut sum = self.clone();
        sum.settle();
        let negative = sum.digits.last().is_some_and(|d| *d < 0);
        let mut out = vec![sum.special, u8::from(negative), u8::try_from(sum.low).unwrap_or(u8::MAX)];
        for digit in &sum.digits {
            out.extend(u32::try_from(digit.unsigned_abs()).unwrap_or(u32::MAX).to_le_bytes());
        }
        out
    }

    /// Reads what [`ExactSum::to_bytes`] wrote.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[special, negative, low], rest) = bytes.split_first_chunk()?;
        let (digits, []) = rest.as_chunks::<4>() else { return None };
        if special > 7 || negative > 1 || digits.len() > 70 || low > 70 {
            return None;
        }
        let sign = if negative == 1 { -1 } else { 1 };
        let digits = digits.iter().map(|d| i64::from(u32::from_le_bytes(*d)) * sign).collect();
        Some(Self { low: usize::from(low), digits, pending: 0, special })
    }
}

/// 2 to that power, within the normal range.
fn power(exponent: i32) -> f64 {
    f64::from_bits(u64::try_from(exponent.clamp(-1022, 1023) + 1023).unwrap_or(0) << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        values.iter().for_each(|x| sum.add(*x));
        sum
    }

    #[test]
    fn sums_are_exact() {
        let tiny = f64::from_bits(1);
        let cases: &[(&[f64], f64)] = &[
            (&[], 0.0),
            (&[0.1; 10], 1.0), // ten times the double next to 0.1 rounds to 1
            (&[1e308, 1e308, -1e308, -1e308, 3.5], 3.5),
            (&[1e16, 1.0, -1e16], 1.0),
            (&[f64::MAX, f64::MAX], f64::INFINITY),
            (&[f64::MAX, -f64::MAX, -tiny], -tiny),
            (&[tiny, tiny, tiny], tiny * 3.0),
            (&[f64::MIN_POSITIVE, -tiny], f64::MIN_POSITIVE - tiny),
            (&[1.0, f64::EPSILON / 2.0], 1.0), // a tie goes to the even one
            (&[1.0, f64::EPSILON / 2.0, tiny], 1.0 + f64::EPSILON), // and is broken by anything at all
            (&[-1.0, -f64::EPSILON / 2.0, -tiny], -1.0 - f64::EPSILON),
            (&[f64::INFINITY, 1.0], f64::INFINITY),
            (&[-0.0], 0.0),
        ];
        for (values, wanted) in cases {
            assert_eq!(sum(values).value().to_bits(), wanted.to_bits(), "{values:?}");
        }
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).value().is_nan());
        assert!(sum(&[f64::NAN, f64::INFINITY]).value().is_nan());
    }

    proptest! {
        #[test]
        fn one_number_is_itself(x in any::<f64>().prop_filter("finite", |x| x.is_finite())) {
            prop_assert_eq!(sum(&[x]).value(), x);
            prop_assert_eq!(sum(&[x, -x]).value(), 0.0);
        }

        #[test]
        fn order_does_not_matter_and_bytes_keep_everything(
            values in prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 0..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = sum(&values);
            let mut other = values.clone();
            other.sort_by(f64::total_cmp);
            let other = sum(&other);
            prop_assert_eq!(whole.to_bytes(), other.to_bytes());
            prop_assert_eq!(whole.value().to_bits(), other.value().to_bits());
            let cut = cut.index(values.len() + 1);
            let mut resumed = ExactSum::from_bytes(&sum(&values[..cut]).to_bytes()).unwrap();
            values[cut..].iter().for_each(|x| resumed.add(*x));
            prop_assert_eq!(resumed.to_bytes(), whole.to_bytes());
        }

        #[test]
        fn parts_add_up_to_the_whole(
            parts in prop::collection::vec(prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 0..9), 0..6),
        ) {
            let mut merged = ExactSum::default();
            parts.iter().for_each(|part| merged.merge(&sum(part)));
            prop_assert_eq!(merged.to_bytes(), sum(&parts.concat()).to_bytes());
        }

        #[test]
        fn integers_add_up(values in prop::collection::vec(-(1i64 << 52)..(1i64 << 52), 0..50)) {
            let exact: i64 = values.iter().sum();
            let floats: Vec<f64> = values.iter().map(|v| *v as f64).collect();
            prop_assert_eq!(sum(&floats).value(), exact as f64);
        }

        #[test]
        fn carrying_in_between_changes_nothing(values in prop::collection::vec(-1e9..1e9, 0..50)) {
            let mut often = ExactSum::default();
            for x in &values { often.add(*x); often.settle(); }
            prop_assert_eq!(often.to_bytes(), sum(&values).to_bytes());
        }
    }
}
