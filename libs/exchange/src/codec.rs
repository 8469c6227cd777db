//! Batches as frame bodies: an Arrow IPC stream per channel, cut into frames, the schema only once.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    buffer::Buffer,
    datatypes::{DataType, SchemaRef},
    error::ArrowError,
    ipc::{MessageHeader, reader::StreamDecoder, root_as_message, writer::StreamEncoder},
};
use flow::WINDOW_BYTES_MIN;

/// The size that batches are cut to: three quarters of the smallest window, so that metadata and padding fit too.
pub(crate) const PIECE_BYTES: usize = 48 << 10;

const _: () = assert!(PIECE_BYTES as u64 == WINDOW_BYTES_MIN * 3 / 4);

/// The most rows in one frame; far more than rows without any column in 4 MiB would make sense.
const ROWS_MAX: i64 = 1 << 24;

/// The bytes that a batch takes by itself, without what its buffers hold for other slices.
pub(crate) fn bytes_of(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(column_bytes).sum::<usize>().max(1)
}

fn column_bytes(array: &ArrayRef) -> usize {
    let long = match array.data_type() {
        DataType::Utf8View => array.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => array.as_binary_view().total_buffer_bytes_used(),
        // A dictionary travels once; only the keys are in every piece.
        DataType::Dictionary(..) => return array.len() * 8,
        _ => 0,
    };
    long + array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}

/// Cuts a batch into pieces of about [`PIECE_BYTES`]; no copy.
pub(crate) fn pieces(batch: &RecordBatch) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    let count = bytes_of(batch).div_ceil(PIECE_BYTES).clamp(1, rows.max(1));
    let edge = |i: usize| i * rows / count;
    match rows {
        0 => Vec::new(),
        _ if count == 1 => vec![batch.clone()],
        _ => (0..count).map(|i| batch.slice(edge(i), edge(i + 1) - edge(i))).collect(),
    }
}

/// Halves a piece that turned out too large; `None` if it is a single row.
pub(crate) fn halves(piece: &RecordBatch) -> Option<[RecordBatch; 2]> {
    let middle = piece.num_rows() / 2;
    (middle > 0).then(|| [piece.slice(0, middle), piece.slice(middle, piece.num_rows() - middle)])
}

/// A view keeps the buffers of its whole parent alive, and all of them would be written.
fn without_foreign_bytes(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|array| -> ArrayRef {
        match array.data_type() {
            DataType::Utf8View => std::sync::Arc::new(array.as_string_view().gc()),
            DataType::BinaryView => std::sync::Arc::new(array.as_binary_view().gc()),
            _ => ArrayRef::clone(array),
        }
    });
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options)
}

/// The sending end.
#[derive(Default)]
pub(crate) struct Encoder(Option<(SchemaRef, StreamEncoder)>);

/// One body, in parts that share the batch's memory.
pub(crate) struct Body {
    pub(crate) new_schema: bool,
    pub(crate) parts: Vec<Buffer>,
    pub(crate) len: usize,
}

impl Encoder {
    pub(crate) fn encode(&mut self, piece: &RecordBatch) -> Result<Body, ArrowError> {
        let schema = piece.schema();
        let known = self.0.as_ref().is_some_and(|(old, _)| *old == schema);
        if !known {
            self.0 = Some((SchemaRef::clone(&schema), StreamEncoder::try_new(&schema)?));
        }
        let Some((_, encoder)) = &mut self.0 else { return Err(ArrowError::IpcError("no encoder".into())) };
        let parts = encoder.encode(&without_foreign_bytes(piece)?)?;
        let len = parts.iter().map(Buffer::len).sum();
        Ok(Body { new_schema: !known, parts, len })
    }

    /// Forgets the stream, so that the next body carries its schema again: the last one was thrown away.
    pub(crate) fn restart(&mut self) {
        self.0 = None;
    }
}

/// The receiving end.
#[derive(Default)]
pub(crate) struct Decoder(StreamDecoder);

impl Decoder {
    pub(crate) fn decode(&mut self, new_schema: bool, body: Buffer) -> Result<RecordBatch, String> {
        check(&body)?;
        if new_schema {
            self.0 = StreamDecoder::new();
        }
        let mut rest = body;
        let batch = self.0.decode(&mut rest).map_err(|e| e.to_string())?.ok_or("a frame holds no batch")?;
        if rest.is_empty() { Ok(batch) } else { Err("a frame holds more than one batch".into()) }
    }
}

/// Checks that every range that the decoder will slice lies within the body, for it asserts rather than answers.
fn check(body: &[u8]) -> Result<(), String> {
    let mut rest = body;
    while !rest.is_empty() {
        let (prefix, after) = rest.split_first_chunk::<8>().ok_or("a message prefix is cut off")?;
        let [0xff, 0xff, 0xff, 0xff, size @ ..] = *prefix else { return Err("a message lacks its marker".into()) };
        let size = usize::try_from(u32::from_le_bytes(size)).unwrap_or(usize::MAX);
        let (head, after) = after.split_at_checked(size).ok_or("a message is cut off")?;
        let message = root_as_message(head).map_err(|e| e.to_string())?;
        let length = usize::try_from(message.bodyLength()).map_err(|e| e.to_string())?;
        let after = after.get(length..).ok_or("a message body is cut off")?;
        match message.header_type() {
            MessageHeader::Schema => {
                message.header_as_schema().ok_or("a schema is empty")?;
            }
            MessageHeader::RecordBatch => {
                ranges(message.header_as_record_batch().ok_or("a batch is empty")?, length)?;
            }
            MessageHeader::DictionaryBatch => {
                let dictionary = message.header_as_dictionary_batch().ok_or("a dictionary is empty")?;
                ranges(dictionary.data().ok_or("a dictionary is empty")?, length)?;
            }
            other => return Err(format!("message kind {other:?} has no place in a channel")),
        }
        rest = after;
    }
    Ok(())
}

fn ranges(batch: arrow::ipc::RecordBatch<'_>, length: usize) -> Result<(), String> {
    let length = i64::try_from(length).map_err(|e| e.to_string())?;
    if !(0..=ROWS_MAX).contains(&batch.length()) {
        return Err(format!("a batch of {} rows", batch.length()));
    }
    for node in batch.nodes().into_iter().flatten() {
        if !(0..=i64::from(i32::MAX)).contains(&node.length()) || !(0..=node.length()).contains(&node.null_count()) {
            return Err("a column has an impossible length".into());
        }
    }
    for buffer in batch.buffers().into_iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length());
        if buffer.offset() < 0 || buffer.length() < 0 || end.is_none_or(|end| end > length) {
            return Err("a buffer lies outside its body".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::{Int32Type, Int64Type};

    use super::*;

    fn wire(encoder: &mut Encoder, batch: &RecordBatch) -> (bool, Vec<u8>) {
        let body = encoder.encode(batch).unwrap();
        let bytes = body.parts.iter().flat_map(|p| p.as_slice().to_vec()).collect::<Vec<u8>>();
        assert_eq!(bytes.len(), body.len);
        (body.new_schema, bytes)
    }

    fn batch(rows: i64) -> RecordBatch {
        let text = |i: i64| (i % 3 != 0).then(|| format!("a text longer than twelve bytes {i}"));
        let dictionary: DictionaryArray<Int32Type> = (0..rows).map(|i| if i % 2 == 0 { "even" } else { "odd" }).collect();
        let lists = (0..rows).map(|i| Some(vec![Some(i), None]));
        RecordBatch::try_from_iter([
            ("i", Arc::new((0..rows).collect::<Int64Array>()) as ArrayRef),
            ("s", Arc::new((0..rows).map(text).collect::<StringArray>())),
            ("v", Arc::new((0..rows).map(text).collect::<StringViewArray>())),
            ("d", Arc::new(dictionary)),
            ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
        ])
        .unwrap()
    }

    #[test]
    fn pieces_are_small_and_whole() {
        let whole = batch(10_000);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let pieces = pieces(&whole);
        assert!(pieces.len() > 10);
        let mut back = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            let (new_schema, bytes) = wire(&mut encoder, piece);
            assert_eq!(new_schema, i == 0, "the schema goes once");
            assert!(bytes.len() < 64 << 10, "{}", bytes.len());
            back.push(decoder.decode(new_schema, Buffer::from(bytes)).unwrap());
        }
        assert_eq!(arrow::compute::concat_batches(&whole.schema(), &back).unwrap(), whole);
    }

    #[test]
    fn another_schema_and_no_columns_are_fine() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let narrow = batch(3).project(&[0]).unwrap();
        let none = batch(3).project(&[]).unwrap();
        for b in [&batch(3), &narrow, &none, &batch(5)] {
            let (new_schema, bytes) = wire(&mut encoder, b);
            assert!(new_schema);
            let back = decoder.decode(new_schema, Buffer::from(bytes)).unwrap();
            assert_eq!((back.num_rows(), back.num_columns()), (b.num_rows(), b.num_columns()));
        }
        assert!(super::pieces(&batch(0)).is_empty());
        assert!(halves(&batch(1)).is_none());
    }

    /// No single damaged byte may panic; what still decodes is well-formed.
    #[test]
    fn damage_is_an_error() {
        let (_, good) = wire(&mut Encoder::default(), &batch(20));
        let mut refused = 0;
        for i in 0..good.len() {
            for value in [0x00, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[i] = value;
                refused += u32::from(Decoder::default().decode(true, Buffer::from(bad)).is_err());
            }
        }
        assert!(refused > 100, "{refused}");
        for cut in 0..good.len() {
            assert!(Decoder::default().decode(true, Buffer::from(good[..cut].to_vec())).is_err(), "{cut}");
        }
    }
}
