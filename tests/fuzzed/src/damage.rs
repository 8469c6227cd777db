//! Good bytes with a few of them changed: most damage to good data is found where random bytes never come.

/// `good` after the patches that `orders` asks for: each is a place (2 bytes), how many bytes go, how many come, and those.
pub(crate) fn damaged(good: &[u8], mut orders: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    while let [low, high, gone, come, rest @ ..] = orders {
        let (new, rest) = rest.split_at((*come as usize).min(rest.len()));
        let from = (usize::from(*low) | usize::from(*high) << 8).min(bytes.len());
        let to = (from + usize::from(*gone)).min(bytes.len());
        bytes.splice(from..to, new.iter().copied());
        orders = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_carried_out_as_far_as_they_go() {
        assert_eq!(damaged(b"abcd", b"\x01\x00\x02\x01x"), b"axd");
        assert_eq!(damaged(b"abcd", b"\xff\xff\x02\x09x"), b"abcdx");
        assert_eq!(damaged(b"abcd", b"\x00\x00"), b"abcd");
    }
}
