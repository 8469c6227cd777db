//! Batches as frame bodies: an Arrow IPC stream per channel, cut into frames, the schema only once.

mod check;

use std::collections::HashMap;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    buffer::Buffer,
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    ipc::{
        Message, MessageHeader, convert::fb_to_schema, reader::read_record_batch, root_as_message,
        writer::StreamEncoder,
    },
};
use flow::WINDOW_BYTES_MIN;

/// The size that batches are cut to: three quarters of the smallest window, so that metadata and padding fit too.
pub(crate) const PIECE_BYTES: usize = 48 << 10;

/// The size that batches are cut to where the window is wide: each frame costs a wake-up at both ends, whatever its size.
pub(crate) const PIECE_BYTES_MAX: usize = 192 << 10;

/// The size to cut to where that many bytes may be sent: a quarter of them.
pub(crate) fn piece_bytes(room: u64) -> usize {
    usize::try_from(room / 4).unwrap_or(usize::MAX).clamp(PIECE_BYTES, PIECE_BYTES_MAX)
}

const _: () = assert!(PIECE_BYTES as u64 == WINDOW_BYTES_MIN * 3 / 4);

/// The bytes that a batch takes by itself, without what its buffers hold for other slices.
pub(crate) fn bytes_of(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(column_bytes).sum::<usize>().max(1)
}

fn column_bytes(array: &ArrayRef) -> usize {
    let long = match array.data_type() {
        DataType::Utf8View => array.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => array.as_binary_view().total_buffer_bytes_used(),
        _ => 0,
    };
    long + array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}

/// Cuts a batch into pieces of about that size; no copy, but that dictionary columns become plain ones.
///
/// Whether an end is in this process or another must not change what arrives, and a dictionary would have to travel
/// again with every batch that has another one.
pub(crate) fn pieces(batch: &RecordBatch, size: usize) -> Result<Vec<RecordBatch>, ArrowError> {
    let batch = &plain(batch)?;
    let rows = batch.num_rows();
    let count = bytes_of(batch).div_ceil(size).clamp(1, rows.max(1));
    let edge = |i: usize| i * rows / count;
    Ok(match rows {
        0 => Vec::new(),
        _ if count == 1 => vec![batch.clone()],
        _ => (0..count).map(|i| batch.slice(edge(i), edge(i + 1) - edge(i))).collect(),
    })
}

fn plain(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    if let Some(field) = schema.fields().iter().find(|f| !carried(f.data_type())) {
        let (name, kind) = (field.name(), field.data_type());
        return Err(ArrowError::SchemaError(format!("column {name:?} is {kind}, which does not travel: cast it")));
    }
    if !schema.fields().iter().any(|f| matches!(f.data_type(), DataType::Dictionary(..))) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        let DataType::Dictionary(_, values) = field.data_type() else {
            fields.push(field.as_ref().clone());
            columns.push(ArrayRef::clone(array));
            continue;
        };
        fields.push(Field::new(field.name(), values.as_ref().clone(), field.is_nullable()));
        columns.push(cast(array, values)?);
    }
    RecordBatch::try_new(SchemaRef::new(Schema::new_with_metadata(fields, schema.metadata().clone())), columns)
}

fn carried(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => check::carried(values),
        other => check::carried(other),
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

/// The receiving end: reads what [`Encoder`] writes, and answers anything else with an error.
///
/// Arrow's own reader asserts that ranges and types make sense; a peer must not be able to stop the process, so they
/// are checked before it is called.
#[derive(Default)]
pub(crate) struct Decoder(Option<SchemaRef>);

impl Decoder {
    pub(crate) fn decode(&mut self, new_schema: bool, body: Buffer) -> Result<RecordBatch, String> {
        if new_schema {
            *self = Self::default();
        }
        let mut batch = None;
        let mut at = 0;
        while at < body.len() {
            if batch.is_some() {
                return Err("a frame holds more than one batch".into());
            }
            let (prefix, after) = body[at..].split_first_chunk::<8>().ok_or("a message prefix is cut off")?;
            let [0xff, 0xff, 0xff, 0xff, size @ ..] = *prefix else { return Err("a message lacks its marker".into()) };
            let size = usize::try_from(u32::from_le_bytes(size)).unwrap_or(usize::MAX);
            let (head, after) = after.split_at_checked(size).ok_or("a message is cut off")?;
            let message = root_as_message(head).map_err(|e| e.to_string())?;
            let length = usize::try_from(message.bodyLength()).map_err(|e| e.to_string())?;
            if length > after.len() {
                return Err("a message body is cut off".into());
            }
            let start = at + 8 + size;
            batch = self.message(&message, &body.slice_with_length(start, length))?;
            at = start + length;
        }
        batch.ok_or_else(|| "a frame holds no batch".into())
    }

    fn message(&mut self, message: &Message<'_>, body: &Buffer) -> Result<Option<RecordBatch>, String> {
        let version = message.version();
        match message.header_type() {
            MessageHeader::Schema if self.0.is_none() => {
                let schema = message.header_as_schema().ok_or("a schema is empty")?;
                let fields = schema.fields().ok_or("a schema has no fields")?;
                fields.iter().try_for_each(|field| check::field(field, 0))?;
                self.0 = Some(SchemaRef::new(fb_to_schema(schema)));
                Ok(None)
            }
            MessageHeader::RecordBatch => {
                let schema = self.0.as_ref().ok_or("a batch comes before its schema")?;
                let batch = message.header_as_record_batch().ok_or("a batch is empty")?;
                check::batch(schema, batch, body.len())?;
                let none = HashMap::new();
                let batch = read_record_batch(body, batch, SchemaRef::clone(schema), &none, None, &version);
                batch.map(Some).map_err(|e| e.to_string())
            }
            other => Err(format!("message kind {other:?} has no place here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, ListArray, StringArray, StringViewArray, StructArray};
    use arrow::buffer::NullBuffer;
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
        let dictionary: DictionaryArray<Int32Type> =
            (0..rows).map(|i| if i % 2 == 0 { "even" } else { "odd" }).collect();
        let inner: ArrayRef = Arc::new((0..rows).map(|i| (i % 5 != 0).then_some(i)).collect::<Int64Array>());
        let nulls = NullBuffer::from_iter((0..rows).map(|i| i % 2 == 0));
        let fields = vec![Field::new("inner", DataType::Int64, true)];
        let nested = StructArray::new(fields.into(), vec![inner], Some(nulls));
        let lists = (0..rows).map(|i| Some(vec![Some(i), None]));
        RecordBatch::try_from_iter([
            ("i", Arc::new((0..rows).collect::<Int64Array>()) as ArrayRef),
            ("s", Arc::new((0..rows).map(text).collect::<StringArray>())),
            ("v", Arc::new((0..rows).map(text).collect::<StringViewArray>())),
            ("d", Arc::new(dictionary)),
            ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
            ("o", Arc::new(nested)),
        ])
        .unwrap()
    }

    #[test]
    fn pieces_are_small_and_whole() {
        let whole = plain(&batch(10_000)).unwrap();
        assert_eq!(whole.column_by_name("d").unwrap().data_type(), &DataType::Utf8);
        assert_eq!([0, 400 << 10, 4 << 20].map(piece_bytes), [48 << 10, 100 << 10, 192 << 10]);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let pieces = pieces(&whole, piece_bytes(0)).unwrap();
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
        let batch = |rows| plain(&super::tests::batch(rows)).unwrap();
        let narrow = batch(3).project(&[0]).unwrap();
        let none = batch(3).project(&[]).unwrap();
        for b in [&batch(3), &narrow, &none, &batch(5)] {
            let (new_schema, bytes) = wire(&mut encoder, b);
            assert!(new_schema);
            let back = decoder.decode(new_schema, Buffer::from(bytes)).unwrap();
            assert_eq!((back.num_rows(), back.num_columns()), (b.num_rows(), b.num_columns()));
        }
        assert!(super::pieces(&batch(0), PIECE_BYTES).unwrap().is_empty());
        assert!(halves(&batch(1)).is_none());
    }

    #[test]
    fn a_type_that_does_not_travel_is_named() {
        let nested: DictionaryArray<Int32Type> = vec!["a"].into_iter().collect();
        let fields = vec![Field::new("inner", nested.data_type().clone(), true)];
        let column: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![Arc::new(nested)], None));
        let found =
            pieces(&RecordBatch::try_from_iter([("outer", column)]).unwrap(), PIECE_BYTES).unwrap_err().to_string();
        assert!(found.contains("\"outer\"") && found.contains("cast it"), "{found}");
    }

    /// No single damaged byte may panic; what still decodes is well-formed.
    #[test]
    fn damage_is_an_error() {
        let (_, good) = wire(&mut Encoder::default(), &plain(&batch(20)).unwrap());
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
