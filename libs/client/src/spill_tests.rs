//! What is written comes back, after a crash too, whole or not at all.

use types::{ContainerId, KeyRange, SegmentId, Timestamp};

use super::*;

const ALL: KeyRange = KeyRange { first: 0, last: u64::MAX };

fn place(number: u32, range: KeyRange) -> SegmentRange {
    SegmentRange { segment: SegmentId { stream: 1, epoch: 0, number }, container: ContainerId(3), range }
}

fn label(order: u64, count: u32) -> Label {
    Label { order, place: place(0, ALL), first: None, count, bytes: 100 }
}

/// A block of events whose keys are spread over the whole key space.
fn contents(count: u64, bytes: usize) -> Contents {
    let (mut block, mut hashes) = (BlockBuilder::new(), Vec::new());
    for n in 0..count {
        let payload = [n.to_le_bytes().to_vec(), vec![7; bytes]].concat();
        assert!(block.push(Timestamp::from_millis(5), 0, &payload));
        hashes.extend_from_slice(&(u64::MAX / count * n).to_le_bytes());
    }
    Contents { block: block.finish(), hashes: Bytes::from(hashes) }
}

fn open(dir: &Path) -> (Spill, Vec<Left>) {
    let options = SpillOptions { dir: dir.to_owned(), bytes_max: 1 << 30 };
    Spill::open(&options, &"shop".parse().unwrap(), &"w".parse().unwrap()).unwrap()
}

fn files(spill: &Spill) -> usize {
    let names = fs::read_dir(&spill.dir).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| number_of(path).is_some()).count()
}

fn keys(left: &[Left]) -> Vec<u64> {
    left.iter().map(|left| left.key).collect()
}

#[test]
fn blocks_come_back_and_files_go_when_they_are_drained() {
    let dir = tempfile::tempdir().unwrap();
    let (spill, left) = open(dir.path());
    assert!(left.is_empty());
    let all: Vec<_> = (0..40).map(|n| contents(n + 1, 500_000 / (usize::try_from(n).unwrap() + 1))).collect();
    for (key, one) in (0..).zip(&all) {
        spill.write(key, &label(key, 1), one).unwrap();
    }
    assert_eq!(files(&spill), 3, "20 MB in files of 8 MiB");
    for (key, one) in (0..).zip(&all) {
        assert_eq!(spill.numbered(key, key + 1).unwrap(), *one);
    }
    (0..20).for_each(|key| spill.release(key));
    assert_eq!(files(&spill), 2);
    (20..40).for_each(|key| spill.release(key));
    assert_eq!(files(&spill), 0);
    assert_eq!(spill.numbered(39, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    spill.write(99, &label(99, 1), &all[0]).unwrap();
    assert_eq!(spill.numbered(99, 1).unwrap(), all[0]);
}

#[test]
fn whoever_opens_again_knows_what_is_left_and_under_which_number_it_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (spill, _) = open(dir.path());
    // The newest left memory first; that is not the order in which they are to go.
    for (key, order) in [(1, 30), (2, 20), (3, 10), (4, 5)] {
        spill.write(key, &label(order, 3), &contents(3, 10)).unwrap();
    }
    spill.write(5, &Label { first: Some(7), ..label(40, 3) }, &contents(3, 10)).unwrap();
    spill.numbered(4, 90).unwrap();
    spill.numbered(4, 10).unwrap();
    spill.release(2);
    drop(spill);
    let (spill, left) = open(dir.path());
    assert_eq!(keys(&left), [5, 4, 3, 1], "what was sent, by number, then the rest in order");
    assert_eq!([left[0].label.first, left[1].label.first, left[2].label.first], [Some(7), Some(10), None]);
    assert_eq!(spill.numbered(1, 1).unwrap(), contents(3, 10));
    // Nothing of it is forgotten by being looked at.
    drop(spill);
    assert_eq!(keys(&open(dir.path()).1).len(), 4);
}

#[test]
fn a_block_is_divided_at_once_and_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (spill, _) = open(dir.path());
    spill.write(1, &label(1, 9), &contents(9, 10)).unwrap();
    spill.write(2, &label(2, 9), &contents(9, 10)).unwrap();
    let ranges = KeyRange::split_evenly(4);
    let among: Vec<_> = (10..).zip(&ranges[..3]).map(|(n, range)| place(n, *range)).collect();
    // The last part's keys have no segment here; in a stream there always is one.
    let parts = spill.divide(1, &among, 100).unwrap();
    assert_eq!(
        parts.iter().map(|part| (part.key, part.label.order)).collect::<Vec<_>>(),
        [(100, 101), (102, 103), (104, 105)]
    );
    let events: Vec<u32> = parts.iter().flat_map(|part| part.places.clone()).collect();
    assert_eq!(events, (0..u32::try_from(events.len()).unwrap()).collect::<Vec<_>>());
    assert!(spill.numbered(1, 1).is_err());
    drop(spill);
    let (spill, left) = open(dir.path());
    assert_eq!(keys(&left), [2, 100, 102, 104]);
    for part in parts {
        let read = spill.numbered(part.key, 1).unwrap();
        let block = Block::open(read.block.clone()).unwrap();
        let numbers: Vec<u64> = block.iter().map(|e| u64::from_le_bytes(e.payload[..8].try_into().unwrap())).collect();
        assert_eq!(numbers, part.places.iter().map(|at| u64::from(*at)).collect::<Vec<_>>());
        assert!((0..block.len()).all(|at| part.label.place.range.contains(read.hash(at).unwrap())));
        assert_eq!(block.iter().next().unwrap().received, Timestamp::from_millis(5));
        spill.release(part.key);
    }
    spill.release(2);
    assert_eq!(files(&spill), 0);
}

#[test]
fn a_torn_tail_is_cut_off_wherever_the_crash_was() {
    let dir = tempfile::tempdir().unwrap();
    let (spill, _) = open(dir.path());
    spill.write(1, &label(1, 3), &contents(3, 10)).unwrap();
    let whole = fs::metadata(spill.path(1)).unwrap().len();
    spill.write(2, &label(2, 3), &contents(3, 10)).unwrap();
    let (path, good) = (spill.path(1), fs::read(spill.path(1)).unwrap());
    drop(spill);
    let begin = usize::try_from(whole).unwrap();
    for end in 0..good.len() {
        fs::write(&path, &good[..end]).unwrap();
        let (spill, left) = open(dir.path());
        let expected: &[u64] = if end < begin { &[] } else { &[1] };
        assert_eq!(keys(&left), expected, "cut at {end}");
        if end >= begin {
            assert_eq!(fs::metadata(&path).unwrap().len(), whole);
            // Where it was cut off it goes on.
            spill.numbered(1, 4).unwrap();
            drop(spill);
            assert_eq!(open(dir.path()).1[0].label.first, Some(4));
        }
    }
    // The last frame was never written, or not all of it, though the file had grown.
    for tail in [vec![0; 64], [&good[begin..good.len() - 9], &[0; 9]].concat()] {
        fs::write(&path, [&good[..begin], &tail[..]].concat()).unwrap();
        assert_eq!(keys(&open(dir.path()).1), [1]);
    }
}

#[test]
fn damage_is_told_and_never_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (spill, _) = open(dir.path());
    spill.write(1, &label(1, 3), &contents(3, 10)).unwrap();
    let end = fs::metadata(spill.path(1)).unwrap().len();
    spill.write(2, &label(2, 3), &contents(3, 10)).unwrap();
    let (path, good) = (spill.path(1), fs::read(spill.path(1)).unwrap());
    let damage = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
    };
    // While it runs; the length may name more than there is.
    for at in MAGIC.len()..usize::try_from(end).unwrap() {
        damage(at);
        assert!(spill.numbered(1, 1).is_err(), "byte {at}");
    }
    drop(spill);
    // And when it is opened again: what follows is whole, so no crash has done that.
    let options = SpillOptions { dir: dir.path().to_owned(), bytes_max: 1 << 30 };
    for at in [0, MAGIC.len() + 5, MAGIC.len() + 20, usize::try_from(end).unwrap() - 1] {
        damage(at);
        let error = Spill::open(&options, &"shop".parse().unwrap(), &"w".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}: {error}");
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(open(dir.path()).1.len(), 2);
}

#[test]
fn a_directory_has_one_writer_and_each_index_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (spill, _) = open(dir.path());
    spill.write(1, &label(1, 3), &contents(3, 10)).unwrap();
    let options = SpillOptions { dir: dir.path().to_owned(), bytes_max: 1 << 30 };
    let again = |index: &str| Spill::open(&options, &index.parse().unwrap(), &"w".parse().unwrap());
    let error = again("shop").unwrap_err();
    assert!(error.kind() == io::ErrorKind::WouldBlock && error.to_string().contains("in use"), "{error}");
    assert!(again("other").unwrap().1.is_empty());
    drop(spill);
    assert_eq!(again("shop").unwrap().1.len(), 1);
}
