//! What must hold of a message before Arrow's reader sees it.

use std::collections::VecDeque;

use arrow::{
    datatypes::{DataType, Schema},
    ipc::{DateUnit, Field, IntervalUnit, Precision, RecordBatch, TimeUnit, Type},
};

/// The most rows in one frame: far more than make sense in 4 MiB, even of rows without any column.
const ROWS_MAX: i64 = 1 << 24;

/// How deep types nest: a map of lists of structs is four.
const DEPTH_MAX: usize = 16;

/// Checks that a batch has, for every column of the schema, the buffers that its rows need, within the body.
pub(super) fn batch(schema: &Schema, batch: RecordBatch<'_>, body_len: usize) -> Result<(), String> {
    let body_len = i64::try_from(body_len).map_err(|e| e.to_string())?;
    if !(0..=ROWS_MAX).contains(&batch.length()) {
        return Err(format!("a batch of {} rows", batch.length()));
    }
    if batch.compression().is_some() {
        return Err("a compressed batch, which no sender here writes".into());
    }
    let mut parts = Parts {
        body_len,
        nodes: batch.nodes().into_iter().flatten().map(|n| (n.length(), n.null_count())).collect(),
        buffers: batch.buffers().into_iter().flatten().map(|b| (b.offset(), b.length())).collect(),
        variadic: batch.variadicBufferCounts().into_iter().flatten().collect(),
    };
    for field in schema.fields() {
        parts.column(field.data_type(), Some(batch.length()))?;
    }
    if parts.nodes.is_empty() && parts.buffers.is_empty() && parts.variadic.is_empty() {
        return Ok(());
    }
    Err("a batch has more columns than its schema".into())
}

/// What a batch says about its body, taken from the front, column by column.
struct Parts {
    body_len: i64,
    nodes: VecDeque<(i64, i64)>,
    buffers: VecDeque<(i64, i64)>,
    variadic: VecDeque<i64>,
}

impl Parts {
    /// `rows` is what the column must have; none for the items of lists, whose number the offsets say.
    fn column(&mut self, kind: &DataType, rows: Option<i64>) -> Result<(), String> {
        let (length, nulls) = self.nodes.pop_front().ok_or("a column is missing")?;
        if !(0..=i64::from(i32::MAX)).contains(&length)
            || !(0..=length).contains(&nulls)
            || rows.is_some_and(|rows| rows != length)
        {
            return Err("a column has an impossible length".into());
        }
        if *kind == DataType::Null {
            return Ok(());
        }
        let validity = self.buffer()?;
        if nulls > 0 && validity < (length + 7) / 8 {
            return Err("a column has fewer validity bits than rows".into());
        }
        match kind {
            DataType::Boolean => self.values(1, (length + 7) / 8),
            DataType::Utf8 | DataType::Binary => self.offsets(4, length).and_then(|()| self.buffer().map(drop)),
            DataType::LargeUtf8 | DataType::LargeBinary => {
                self.offsets(8, length).and_then(|()| self.buffer().map(drop))
            }
            DataType::Utf8View | DataType::BinaryView => {
                self.values(16, length)?;
                let more = self.variadic.pop_front().ok_or("a view has no buffer count")?;
                if !(0..=self.buffers.len()).contains(&usize::try_from(more).unwrap_or(usize::MAX)) {
                    return Err("a view names more buffers than there are".into());
                }
                (0..more).try_for_each(|_| self.buffer().map(drop))
            }
            DataType::FixedSizeBinary(width) => self.values(i64::from(*width), length),
            DataType::List(item) => {
                self.offsets(4, length)?;
                self.column(item.data_type(), None)
            }
            DataType::LargeList(item) => {
                self.offsets(8, length)?;
                self.column(item.data_type(), None)
            }
            DataType::Struct(fields) => fields.iter().try_for_each(|f| self.column(f.data_type(), Some(length))),
            other => {
                let width = other.primitive_width().ok_or_else(|| format!("type {other} is not carried"))?;
                self.values(i64::try_from(width).unwrap_or(i64::MAX), length)
            }
        }
    }

    /// The length of the next buffer, which lies within the body.
    fn buffer(&mut self) -> Result<i64, String> {
        let (offset, length) = self.buffers.pop_front().ok_or("a buffer is missing")?;
        let end = offset.checked_add(length);
        if offset < 0 || length < 0 || end.is_none_or(|end| end > self.body_len) {
            return Err("a buffer lies outside its body".into());
        }
        Ok(length)
    }

    /// A buffer of whole values of that width, enough for that many.
    fn values(&mut self, width: i64, count: i64) -> Result<(), String> {
        let length = self.buffer()?;
        if length % width != 0 || length / width < count {
            return Err("a column has fewer values than rows".into());
        }
        Ok(())
    }

    /// The offsets of a column: one more than rows, or none at all where there are no rows.
    fn offsets(&mut self, width: i64, rows: i64) -> Result<(), String> {
        self.values(width, if rows == 0 { 0 } else { rows + 1 })
    }
}

/// Whether columns of that type travel between workers.
pub(super) fn carried(kind: &DataType) -> bool {
    use DataType as T;
    match kind {
        T::Null | T::Boolean | T::FixedSizeBinary(1..) => true,
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Binary | T::LargeBinary | T::BinaryView => true,
        T::Decimal32(..) | T::Decimal64(..) | T::Decimal256(..) => false,
        T::List(item) | T::LargeList(item) => carried(item.data_type()),
        T::Struct(fields) => fields.iter().all(|f| carried(f.data_type())),
        other => other.is_primitive(),
    }
}

/// Checks that a type is one that Arrow's conversion knows; for the others it panics.
pub(super) fn field(field: Field<'_>, depth: usize) -> Result<(), String> {
    let name = field.name().unwrap_or_default();
    let wrong = || Err(format!("column {name:?} has a type that is not known here"));
    if depth > DEPTH_MAX {
        return Err(format!("column {name:?} nests deeper than {DEPTH_MAX}"));
    }
    let whole = |width: i32| matches!(width, 8 | 16 | 32 | 64);
    if field.dictionary().is_some() {
        return wrong();
    }
    let children = field.children().map_or(0, |children| children.len());
    let known = match field.type_type() {
        Type::Null | Type::Bool | Type::Struct_ => true,
        Type::Utf8 | Type::LargeUtf8 | Type::Utf8View => true,
        Type::Binary | Type::LargeBinary | Type::BinaryView => true,
        Type::Int => field.type_as_int().is_some_and(|t| whole(t.bitWidth())),
        Type::FloatingPoint => field
            .type_as_floating_point()
            .is_some_and(|t| matches!(t.precision(), Precision::HALF | Precision::SINGLE | Precision::DOUBLE)),
        Type::FixedSizeBinary => field.type_as_fixed_size_binary().is_some_and(|t| t.byteWidth() > 0),
        Type::Date => field.type_as_date().is_some_and(|t| matches!(t.unit(), DateUnit::DAY | DateUnit::MILLISECOND)),
        Type::Time => field.type_as_time().is_some_and(|t| {
            matches!(
                (t.bitWidth(), t.unit()),
                (32, TimeUnit::SECOND | TimeUnit::MILLISECOND) | (64, TimeUnit::MICROSECOND | TimeUnit::NANOSECOND)
            )
        }),
        Type::Timestamp => field.type_as_timestamp().is_some_and(|t| unit(t.unit())),
        Type::Duration => field.type_as_duration().is_some_and(|t| unit(t.unit())),
        Type::Interval => field.type_as_interval().is_some_and(|t| {
            matches!(t.unit(), IntervalUnit::YEAR_MONTH | IntervalUnit::DAY_TIME | IntervalUnit::MONTH_DAY_NANO)
        }),
        Type::Decimal => field.type_as_decimal().is_some_and(|t| {
            t.bitWidth() == 128 && (1..=38).contains(&t.precision()) && i8::try_from(t.scale()).is_ok()
        }),
        Type::List | Type::LargeList => children == 1,
        _ => false,
    };
    if !known {
        return wrong();
    }
    field.children().into_iter().flatten().try_for_each(|child| self::field(child, depth + 1))
}

fn unit(unit: TimeUnit) -> bool {
    matches!(unit, TimeUnit::SECOND | TimeUnit::MILLISECOND | TimeUnit::MICROSECOND | TimeUnit::NANOSECOND)
}
