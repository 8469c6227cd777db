//! Plain JSON values at a place in the input: what is not plain is nothing here, and left to the full parser.

/// Eight bytes from a place on, the first one lowest.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The lowest high bit that is set is that of the first byte which is zero; those above it may be wrong.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

/// The same of bytes below a space.
fn controls(word: u64) -> u64 {
    word.wrapping_sub(ONES * 0x20) & !word & HIGH
}

/// Where a text ends whose opening quote stands at `at`: the place of the closing one. Nothing if there is an escape, a control
/// character or what is no UTF-8 in it.
pub(super) fn text(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let begin = at + 1;
    let (mut at, mut beyond_ascii) = (begin, 0);
    let end = loop {
        let word = word(bytes, at)?;
        let stops = zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c)) | controls(word);
        if stops == 0 {
            beyond_ascii |= word & HIGH;
            at += 8;
            continue;
        }
        let before = stops.trailing_zeros() / 8;
        beyond_ascii |= word & HIGH & ((1 << (before * 8)) - 1);
        break at + usize::try_from(before).ok()?;
    };
    if bytes[end] != b'"' || (beyond_ascii != 0 && std::str::from_utf8(&bytes[begin..end]).is_err()) {
        return None;
    }
    Some(end)
}

/// A whole number of at most 18 digits, and where it ends. Nothing if it goes on as a number of another kind.
pub(super) fn integer(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let negative = *bytes.get(at)? == b'-';
    let begin = at + usize::from(negative);
    let (mut at, mut value) = (begin, 0i64);
    loop {
        let digit = bytes.get(at)?.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        if at - begin == 18 {
            return None;
        }
        value = value * 10 + i64::from(digit);
        at += 1;
    }
    // JSON knows no leading zeros.
    let well = at > begin && (bytes[begin] != b'0' || at == begin + 1) && !matches!(bytes[at], b'.' | b'e' | b'E');
    well.then_some((if negative { -value } else { value }, at))
}

/// Where a number of any kind ends.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = |at: usize| bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = at + usize::from(*bytes.get(at)? == b'-');
    let whole = digits(at);
    if whole == 0 || (whole > 1 && bytes[at] == b'0') {
        return None;
    }
    at += whole;
    if bytes.get(at) == Some(&b'.') {
        let count = digits(at + 1);
        if count == 0 {
            return None;
        }
        at += 1 + count;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let count = bytes.get(at..).map_or(0, |_| digits(at));
        if count == 0 {
            return None;
        }
        at += count;
    }
    // At the end of the input it may go on.
    (at < bytes.len()).then_some(at)
}

/// A number as a float, rounded as the full parser does, and where it ends.
pub(super) fn float(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    let end = number(bytes, at)?;
    let text = std::str::from_utf8(&bytes[at..end]).ok()?;
    text.parse().ok().filter(|value: &f64| value.is_finite()).map(|value| (value, end))
}

/// A truth value, and where it ends.
pub(super) fn flag(bytes: &[u8], at: usize) -> Option<(bool, usize)> {
    let rest = bytes.get(at..)?;
    if rest.starts_with(b"true") {
        Some((true, at + 4))
    } else if rest.starts_with(b"false") {
        Some((false, at + 5))
    } else {
        None
    }
}

/// Where `null` ends.
pub(super) fn null(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.starts_with(b"null").then_some(at + 4)
}

/// Where a value ends that is no array and no object.
pub(super) fn end(bytes: &[u8], at: usize) -> Option<usize> {
    match *bytes.get(at)? {
        b'"' => text(bytes, at).map(|end| end + 1),
        b't' | b'f' => flag(bytes, at).map(|(_, end)| end),
        b'n' => null(bytes, at),
        _ => number(bytes, at),
    }
}
