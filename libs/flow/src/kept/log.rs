//! Rows that had their turn, in their order, from which they are dropped when nothing can need them any more.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt64Array, new_null_array},
    buffer::ScalarBuffer,
    compute::{concat_batches, filter, filter_record_batch, interleave},
    datatypes::DataType,
};

use super::{
    BATCH_ROWS, Form, Stamps,
    form::{Keys, hashes, times},
    joins,
    pending::bytes_of,
};
use crate::Error;

/// Rows are rewritten without those that are marked when these are more than the others, and more than this.
const MARKED_MIN: usize = 4_096;
/// Bytes of a row beside its columns and its key: number, mark, and place of the key.
const ROW_BYTES: usize = 17;

/// Rows in order, each under a number that it keeps and a mark that its owner gives it.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pieces: VecDeque<Piece>,
    next: u64,
    rows: usize,
    marked: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Piece {
    batch: RecordBatch,
    times: ScalarBuffer<i64>,
    hashes: ScalarBuffer<u64>,
    keys: Keys,
    seqs: ScalarBuffer<u64>,
    marks: Arc<Vec<bool>>,
    stamp: u64,
    bytes: usize,
}

/// Where a row lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    piece: usize,
    row: usize,
}

impl Piece {
    fn new(
        form: &Form,
        batch: RecordBatch,
        seqs: ScalarBuffer<u64>,
        marks: Vec<bool>,
        stamp: u64,
    ) -> Result<Self, Error> {
        let (times, hashes, keys) = (times(&batch)?, hashes(&batch)?, form.keys(&batch)?);
        let bytes = bytes_of(&batch) + keys.rows.size() + seqs.len() * ROW_BYTES;
        Ok(Self { batch, times, hashes, keys, seqs, marks: Arc::new(marks), stamp, bytes })
    }

    fn last(&self) -> u64 {
        self.seqs.last().copied().unwrap_or(0)
    }
}

impl Log {
    /// Adds rows in their order, which come behind all others; answers their numbers.
    pub(crate) fn push(
        &mut self,
        form: &Form,
        batch: &RecordBatch,
        marks: Option<&[bool]>,
        stamps: &mut Stamps,
    ) -> Result<Range<u64>, Error> {
        let first = self.next;
        for start in (0..batch.num_rows()).step_by(BATCH_ROWS) {
            let batch = batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start));
            let rows = batch.num_rows();
            let end = self.next + u64::try_from(rows).unwrap_or(u64::MAX);
            let marks = marks.map_or_else(|| vec![false; rows], |marks| marks[start..start + rows].to_vec());
            self.rows += rows;
            self.marked += marks.iter().filter(|mark| **mark).count();
            let piece = Piece::new(form, batch, (self.next..end).collect(), marks, stamps.next())?;
            self.next = end;
            self.join(form, piece)?;
        }
        Ok(first..self.next)
    }

    fn join(&mut self, form: &Form, mut piece: Piece) -> Result<(), Error> {
        while self.pieces.back().is_some_and(|before| joins(before.seqs.len(), piece.seqs.len())) {
            let Some(before) = self.pieces.pop_back() else { break };
            self.bytes -= before.bytes;
            let batch = concat_batches(&before.batch.schema(), [&before.batch, &piece.batch])?;
            let seqs = before.seqs.iter().chain(piece.seqs.iter()).copied().collect();
            let marks = before.marks.iter().chain(piece.marks.iter()).copied().collect();
            piece = Piece::new(form, batch, seqs, marks, piece.stamp)?;
        }
        self.bytes += piece.bytes;
        self.pieces.push_back(piece);
        Ok(())
    }

    /// Where a row lies: its number is one that was given out, and it was not dropped.
    pub(crate) fn place(&self, seq: u64) -> Place {
        let piece = self.pieces.partition_point(|piece| piece.last() < seq);
        let seqs = &self.pieces[piece].seqs;
        let dense = usize::try_from(seq.saturating_sub(seqs[0])).unwrap_or(usize::MAX);
        let row = match seqs.get(dense) {
            Some(found) if *found == seq => dense,
            _ => seqs.partition_point(|other| *other < seq),
        };
        Place { piece, row }
    }

    pub(crate) fn time(&self, place: Place) -> i64 {
        self.pieces[place.piece].times[place.row]
    }

    pub(crate) fn hash(&self, place: Place) -> u64 {
        self.pieces[place.piece].hashes[place.row]
    }

    /// The key, comparable with those of every log of a form with these types.
    pub(crate) fn key(&self, place: Place) -> &[u8] {
        self.pieces[place.piece].keys.rows.row(place.row).data()
    }

    /// Whether the key has a null in it.
    pub(crate) fn null_key(&self, place: Place) -> bool {
        self.pieces[place.piece].keys.nulls.as_ref().is_some_and(|nulls| nulls.is_null(place.row))
    }

    pub(crate) fn marked(&self, place: Place) -> bool {
        self.pieces[place.piece].marks[place.row]
    }

    /// Marks a row; answers whether it was not yet.
    pub(crate) fn mark(&mut self, place: Place, stamps: &mut Stamps) -> bool {
        let piece = &mut self.pieces[place.piece];
        if piece.marks[place.row] {
            return false;
        }
        Arc::make_mut(&mut piece.marks)[place.row] = true;
        piece.stamp = stamps.next();
        self.marked += 1;
        true
    }

    /// A column of a row's batch, and the row in it.
    pub(crate) fn column(&self, place: Place, name: &str) -> Option<(&ArrayRef, usize)> {
        self.pieces[place.piece].batch.column_by_name(name).map(|array| (array, place.row))
    }

    /// The number of the first row at or behind that instant.
    pub(crate) fn first_at(&self, time: i64) -> u64 {
        let piece = self.pieces.partition_point(|piece| piece.times.last().is_some_and(|last| *last < time));
        let Some(found) = self.pieces.get(piece) else { return self.next };
        found.seqs.get(found.times.partition_point(|other| *other < time)).copied().unwrap_or(self.next)
    }

    /// The number of the first row, or of the next one to come.
    pub(crate) fn first(&self) -> u64 {
        self.pieces.front().and_then(|piece| piece.seqs.first()).copied().unwrap_or(self.next)
    }

    /// The number of the next row to come.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Drops the pieces all of whose rows come before that one, and tells of each dropped row its hash and number.
    pub(crate) fn drop_before(&mut self, seq: u64, mut dropped: impl FnMut(u64, u64)) {
        while self.pieces.front().is_some_and(|piece| piece.last() < seq) {
            let Some(piece) = self.pieces.pop_front() else { break };
            self.forget(&piece);
            piece.hashes.iter().zip(piece.seqs.iter()).for_each(|(hash, seq)| dropped(*hash, *seq));
        }
    }

    fn forget(&mut self, piece: &Piece) {
        self.bytes -= piece.bytes;
        self.rows -= piece.seqs.len();
        self.marked -= piece.marks.iter().filter(|mark| **mark).count();
    }

    /// Drops marked rows, when there are many.
    pub(crate) fn sweep(&mut self, form: &Form, stamps: &mut Stamps) -> Result<(), Error> {
        if self.marked < MARKED_MIN.max(self.rows - self.marked) {
            return Ok(());
        }
        for piece in std::mem::take(&mut self.pieces) {
            self.forget(&piece);
            let keep: BooleanArray = piece.marks.iter().map(|mark| Some(!mark)).collect();
            let batch = filter_record_batch(&piece.batch, &keep)?;
            if batch.num_rows() == 0 {
                continue;
            }
            self.rows += batch.num_rows();
            let seqs = filter(&UInt64Array::new(piece.seqs, None), &keep)?;
            let seqs = arrow::array::AsArray::as_primitive::<arrow::datatypes::UInt64Type>(&seqs).values().clone();
            let marks = vec![false; batch.num_rows()];
            self.join(form, Piece::new(form, batch, seqs, marks, stamps.next())?)?;
        }
        Ok(())
    }

    /// A column of these rows; null where there is none.
    pub(crate) fn gather(&self, name: &str, rows: &[Option<Place>], kind: &DataType) -> Result<ArrayRef, Error> {
        let column = |piece: &Piece| piece.batch.column_by_name(name).cloned();
        let mut arrays: Vec<ArrayRef> = self.pieces.iter().filter_map(column).collect();
        if arrays.len() < self.pieces.len() || rows.iter().all(Option::is_none) {
            return Ok(new_null_array(kind, rows.len()));
        }
        let absent = arrays.len();
        if rows.iter().any(Option::is_none) {
            arrays.push(new_null_array(kind, 1));
        }
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        let places: Vec<(usize, usize)> =
            rows.iter().map(|row| row.map_or((absent, 0), |place| (place.piece, place.row))).collect();
        Ok(interleave(&arrays, &places)?)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batches with the marks of their rows, each with its stamp.
    pub(crate) fn batches(&self) -> impl Iterator<Item = (&RecordBatch, &Arc<Vec<bool>>, u64)> {
        self.pieces.iter().map(|piece| (&piece.batch, &piece.marks, piece.stamp))
    }
}
