//! What is written at once: many frames in one system call, large parts as they lie in memory.

use std::{io::IoSlice, ops::Range};

use arrow::buffer::Buffer;
use tokio::io::{self, AsyncWrite, AsyncWriteExt};

/// What is gathered before it is written although more waits.
const WRITE_BYTES: usize = 256 << 10;

/// The most parts of one system call; the kernel takes 1 024.
const PARTS_MAX: usize = 512;

/// Smaller parts are copied together: one more part costs the kernel about as much.
const COPIED_MAX: usize = 2 << 10;

/// Gathers bytes for a writer. Holds at most [`WRITE_BYTES`] and one frame.
pub(crate) struct Outflow<W> {
    to: W,
    parts: Vec<Part>,
    copied: Vec<u8>,
    bytes: usize,
}

enum Part {
    /// A range of the copied bytes.
    Copied(Range<usize>),
    Shared(Buffer),
}

impl<W: AsyncWrite + Unpin> Outflow<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, parts: Vec::new(), copied: Vec::new(), bytes: 0 }
    }

    /// Copies bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = self.copied.len();
        self.copied.extend_from_slice(bytes);
        let end = self.copied.len();
        self.bytes += bytes.len();
        match self.parts.last_mut() {
            Some(Part::Copied(range)) => range.end = end,
            _ => self.parts.push(Part::Copied(start..end)),
        }
    }

    /// Takes a buffer, without a copy where it is large.
    pub(crate) fn share(&mut self, buffer: Buffer) {
        if buffer.len() < COPIED_MAX {
            return self.put(&buffer);
        }
        self.bytes += buffer.len();
        self.parts.push(Part::Shared(buffer));
    }

    /// Whether it is time to write although more waits.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= WRITE_BYTES || self.parts.len() >= PARTS_MAX
    }

    /// Writes everything.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let Self { to, parts, copied, .. } = self;
        let bytes = parts.iter().map(|part| match part {
            Part::Copied(range) => copied.get(range.clone()).unwrap_or_default(),
            Part::Shared(buffer) => buffer.as_slice(),
        });
        let mut slices: Vec<IoSlice<'_>> = bytes.map(IoSlice::new).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match to.write_vectored(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut rest, written),
            }
        }
        to.flush().await?;
        self.parts.clear();
        self.copied.clear();
        self.bytes = 0;
        Ok(())
    }

    /// Writes everything and closes this direction.
    pub(crate) async fn finish(mut self) -> io::Result<()> {
        self.flush().await?;
        self.to.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    proptest! {
        /// Whatever is put in, by copy or not, comes out in order through a pipe that takes little at a time.
        #[test]
        fn all_bytes_in_their_order(parts in prop::collection::vec((0usize..6_000, any::<u8>(), any::<bool>(), 0u8..8), 0..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let wanted: Vec<u8> = parts.iter().flat_map(|&(len, byte, ..)| vec![byte; len]).collect();
            let found = runtime.block_on(async {
                let (to, mut from) = tokio::io::duplex(777);
                let mut found = Vec::new();
                let writing = async {
                    let mut out = Outflow::new(to);
                    for (len, byte, copy, flush) in parts {
                        match copy {
                            true => out.put(&vec![byte; len]),
                            false => out.share(Buffer::from(vec![byte; len])),
                        }
                        if flush == 0 || out.is_full() {
                            out.flush().await.unwrap();
                        }
                    }
                    out.finish().await.unwrap();
                };
                tokio::join!(writing, from.read_to_end(&mut found)).1.unwrap();
                found
            });
            prop_assert_eq!(found, wanted);
        }
    }
}
