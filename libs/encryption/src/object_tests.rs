use data_encoding::HEXLOWER;
use proptest::{prelude::*, sample::Index};

use super::*;

const NAME: &str = "chunks/shop/1-0-0/a.parquet.sealed";
const SALT: [u8; SALT_BYTES] = [9; SALT_BYTES];

fn key() -> DataKey {
    DataKey::new(3, [7; 32])
}

fn plain(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn sealed(bytes: usize) -> Vec<u8> {
    seal(&key(), NAME, &SALT, &plain(bytes)).unwrap().to_vec()
}

/// As a reader does it that has nothing but the object, its name and its key.
fn open(sealed: &[u8], key: &DataKey, name: &str, range: Range<u64>) -> Result<Bytes, Error> {
    let trailer = Trailer::read(sealed, sealed.len() as u64)?;
    let part = sealed_range(&range);
    let part = &sealed[place(part.start).min(sealed.len())..place(part.end).min(sealed.len())];
    trailer.opener(key, name)?.open(range, part)
}

fn open_all(sealed: &[u8]) -> Result<Bytes, Error> {
    let size = sealed.len() as u64;
    open(sealed, &key(), NAME, 0..Trailer::read(sealed, size)?.plain_bytes())
}

const SIZES: [usize; 8] = [0, 1, 65_535, 65_536, 65_537, 131_072, 131_073, 200_000];

#[test]
fn an_object_opens_as_it_was_sealed() {
    for bytes in SIZES {
        let sealed = sealed(bytes);
        assert_eq!(sealed.len() as u64, sealed_size(bytes as u64));
        assert_eq!(plain_size(sealed.len() as u64), Some(bytes as u64));
        assert_eq!(open_all(&sealed).unwrap(), plain(bytes));
        let head = plain(16);
        assert!(bytes < 64 || sealed.windows(16).all(|window| window != head), "nothing lies open");
    }
}

#[test]
fn golden_objects_are_opened_for_ever() {
    let golden = concat!(
        "dd8c11f058f2c7598d0e7a61bef62103ccd6656c32",
        "0909090909090909090909090909090909090909090909090909090909090909",
        "050000000000000003000000010000004c425345414c4544"
    );
    let sealed = seal(&key(), NAME, &SALT, b"hello").unwrap();
    assert_eq!(HEXLOWER.encode(&sealed), golden);
    let golden = HEXLOWER.decode(golden.as_bytes()).unwrap();
    assert_eq!(open_all(&golden).unwrap(), b"hello".as_slice());
}

#[test]
fn an_object_is_cut_nowhere_and_nothing_is_added() {
    for bytes in SIZES {
        let whole = sealed(bytes);
        for cut in [1, 8, 16, 55, 56, 57, 72, 65_552, 65_608, 131_104] {
            let Some(left) = whole.len().checked_sub(cut) else { continue };
            assert!(open_all(&whole[..left]).is_err(), "{bytes} without the last {cut}");
            // Whoever cuts may keep the trailer.
            let trailer = &whole[whole.len() - 56..];
            let Some(body) = (whole.len() - 56).checked_sub(cut) else { continue };
            let cut_within = [&whole[..body], trailer].concat();
            assert!(open_all(&cut_within).is_err(), "{bytes} without {cut} before the trailer");
        }
        assert!(open_all(&[whole.as_slice(), b"x"].concat()).is_err());
        assert!(open_all(&[b"x", whole.as_slice()].concat()).is_err());
    }
    assert_eq!(open_all(b"PAR1"), Err(Error::Size { found: 4 }));
    assert_eq!(open_all(&[0; 100]), Err(Error::Foreign));
    let mut later = sealed(5);
    let at = later.len() - 12;
    later[at] = 2;
    assert_eq!(open_all(&later), Err(Error::Form(2)));
}

#[test]
fn a_block_opens_in_its_own_place_only() {
    let (block, whole) = (place(SEALED_BLOCK_BYTES), sealed(3 * 65_536));
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        let mut swapped = whole.clone();
        let (left, right) = swapped.split_at_mut(other * block);
        left[one * block..(one + 1) * block].swap_with_slice(&mut right[..block]);
        assert_eq!(open_all(&swapped), Err(Error::Block(one as u64)));
    }
    // Of another object of the same key, name and size: only its salt differs.
    let foreign = seal(&key(), NAME, &[8; SALT_BYTES], &plain(3 * 65_536)).unwrap();
    let mut mixed = whole.clone();
    mixed[block..2 * block].copy_from_slice(&foreign[block..2 * block]);
    assert_eq!(open_all(&mixed), Err(Error::Block(1)));
    // What is whole can still be read beside it.
    assert_eq!(open(&mixed, &key(), NAME, 0..65_536).unwrap(), plain(65_536));
}

#[test]
fn an_object_belongs_to_its_name_and_its_key() {
    let sealed = sealed(100);
    assert!(open(&sealed, &key(), NAME, 0..100).is_ok());
    assert_eq!(open(&sealed, &key(), "chunks/shop/1-0-0/b.parquet.sealed", 0..100), Err(Error::Block(0)));
    assert_eq!(open(&sealed, &DataKey::new(3, [8; 32]), NAME, 0..100), Err(Error::Block(0)));
    let later = open(&sealed, &DataKey::new(4, [7; 32]), NAME, 0..100);
    assert_eq!(later, Err(Error::KeyVersion { needed: 3, given: 4 }));
    assert_eq!(open(&sealed, &key(), NAME, 90..101), Err(Error::Range { from: 90, to: 101, bytes: 100 }));
    let opener = Trailer::read(&sealed, sealed.len() as u64).unwrap().opener(&key(), NAME).unwrap();
    assert!(matches!(opener.open(0..100, &sealed[..50]), Err(Error::Range { .. })));
    assert!(!format!("{:?}", key()).contains('7'), "a key is not shown");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_range_is_that_of_the_plain_bytes(bytes in 0_usize..200_000, from in any::<Index>(), length in any::<Index>()) {
        let from = from.index(bytes + 1);
        let to = from + length.index(bytes - from + 1);
        let opened = open(&sealed(bytes), &key(), NAME, from as u64..to as u64).unwrap();
        prop_assert_eq!(&opened[..], &plain(bytes)[from..to]);
    }

    #[test]
    fn every_flipped_bit_is_found(bytes in 0_usize..140_000, at in any::<Index>(), bit in 0_u8..8, end in any::<bool>()) {
        let mut sealed = sealed(bytes);
        // Half of them in the trailer, which is small.
        let at = if end { sealed.len() - 1 - at.index(56) } else { at.index(sealed.len()) };
        sealed[at] ^= 1 << bit;
        prop_assert!(open_all(&sealed).is_err(), "byte {} of {}", at, sealed.len());
    }

    #[test]
    fn sizes_tell_each_other(size in 0_u64..10_000_000) {
        prop_assert_eq!(plain_size(sealed_size(size)), Some(size));
        prop_assert!(plain_size(size).is_none_or(|plain| sealed_size(plain) == size));
    }

    #[test]
    fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in any::<u64>(), from in any::<u64>()) {
        let mut ended = bytes.clone();
        ended.extend_from_slice(&1_u32.to_le_bytes());
        ended.extend_from_slice(MAGIC);
        for end in [bytes, ended] {
            if let Ok(trailer) = Trailer::read(&end, size) {
                let opener = trailer.opener(&DataKey::new(trailer.key_version(), [1; 32]), "x").unwrap();
                prop_assert!(opener.open(from..trailer.plain_bytes(), &end).is_err() || trailer.plain_bytes() == from);
            }
        }
        prop_assert!(sealed_range(&(from..from)).start <= from.saturating_add(from / 4096 + 16));
    }
}
