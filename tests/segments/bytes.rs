//! A stream of one segment as what a byte stream is used for: a long run of bytes, in order, read back equal.

use client::WriterOptions;
use data_encoding::HEXLOWER;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use tokio::time::timeout;
use types::StreamCut;

use crate::{
    numbered::{LONG, key, read},
    shared::Stage,
};

/// Blocks of half a MiB: 16 MiB in all, which pass the tail, Tier 2 and every buffer on the way several times.
const BLOCKS: usize = 32;
const BLOCK_BYTES: usize = 512 << 10;

/// Text that nothing makes shorter by much, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> String {
    let mut bytes = vec![0; length / 2];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    HEXLOWER.encode(&bytes)
}

#[tokio::test]
async fn s19_a_long_run_of_bytes_is_read_back_equal_also_behind_a_truncation() {
    let stage = Stage::new("bytes", 1).await;
    let index = &stage.streams.index;
    let blocks: Vec<String> = (0..BLOCKS as u64).map(|seed| noise(seed, BLOCK_BYTES)).collect();
    let writer = stage.client.event_writer(index.clone(), WriterOptions::new("bytes".parse().unwrap())).await.unwrap();
    for block in &blocks {
        drop(writer.write(Some(&key("bytes")), block.clone().into()).await.unwrap());
    }
    timeout(LONG, writer.flush()).await.expect("written within a minute").unwrap();
    let bytes = async |count: usize| {
        let mut reader = stage.client.stream_reader(index, None, None).await.unwrap();
        let seen = read(&mut reader, count as u64).await;
        seen.into_iter().map(|one| one.text).collect::<String>()
    };
    // No `assert_eq`: it would print what differs.
    assert!(bytes(BLOCKS).await == blocks.concat(), "what is read is not what was written");
    let segment = stage.streams.describe().await.unwrap().segments[0].segment;
    for cut in [1, 20, BLOCKS - 1] {
        stage.streams.truncate(StreamCut([(segment, cut as u64)].into())).await.unwrap();
        assert!(bytes(BLOCKS - cut).await == blocks[cut..].concat(), "behind block {cut}");
    }
}
