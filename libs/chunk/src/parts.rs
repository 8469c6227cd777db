//! Pieces of a chunk that were fetched apart.

use std::{ops::Range, sync::Arc};

use bytes::{Buf, Bytes, buf::Reader};
use parquet::{
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

use crate::Error;

/// The bytes of a range out of pieces that hold it one after the other; without a copy where one of them does.
pub(crate) fn gather(parts: &[(u64, Bytes)], range: &Range<u64>) -> Result<Bytes, Error> {
    let piece = |from: u64| {
        let missing = Error::Missing { from, to: range.end };
        let found = parts.iter().find_map(|(place, bytes)| {
            let at = usize::try_from(from.checked_sub(*place)?).ok().filter(|at| *at < bytes.len())?;
            let left = usize::try_from(range.end - from).unwrap_or(usize::MAX);
            Some(bytes.slice(at..at.saturating_add(left).min(bytes.len())))
        });
        found.ok_or(missing)
    };
    let first = piece(range.start)?;
    if range.start + first.len() as u64 == range.end {
        return Ok(first);
    }
    let mut whole = first.to_vec();
    while range.start + (whole.len() as u64) < range.end {
        whole.extend_from_slice(&piece(range.start + whole.len() as u64)?);
    }
    Ok(whole.into())
}

/// Columns of a chunk, read as if all of it were there.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) columns: Arc<[(u64, Bytes)]>,
    pub(crate) bytes: u64,
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Parts {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let within = self.columns.iter().find_map(|(place, bytes)| {
            let at = usize::try_from(start.checked_sub(*place)?).ok()?;
            (at < bytes.len()).then(|| bytes.slice(at..).reader())
        });
        within.ok_or_else(|| ParquetError::External(Box::new(Error::Missing { from: start, to: start + 1 })))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let range = start..start.saturating_add(length as u64);
        gather(&self.columns, &range).map_err(|error| ParquetError::External(Box::new(error)))
    }
}
