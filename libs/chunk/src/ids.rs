//! 128-bit ids, kept as sixteen bytes where every value of a column is one and all are written in one form.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, RecordBatch, StringBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use serde::{Deserialize, Serialize};

/// Bytes of an id.
pub(crate) const ID_BYTES: i32 = 16;

/// How ids are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// 32 hexadecimal digits with small letters.
    Hex,
    /// 32 hexadecimal digits with capitals.
    UpperHex,
    /// 8-4-4-4-12 hexadecimal digits with small letters.
    Uuid,
    /// 8-4-4-4-12 hexadecimal digits with capitals.
    UpperUuid,
}

/// The columns that lie as ids, by name.
pub(crate) type Forms = BTreeMap<String, Form>;

/// In the order in which a form is guessed: an id without letters has the first one of its length.
const FORMS: [Form; 4] = [Form::Hex, Form::Uuid, Form::UpperHex, Form::UpperUuid];

impl Form {
    /// The id of a text in this form.
    pub(crate) fn read(self, text: &str) -> Option<[u8; 16]> {
        let dashed = matches!(self, Self::Uuid | Self::UpperUuid);
        let capital = matches!(self, Self::UpperHex | Self::UpperUuid);
        if text.len() != if dashed { 36 } else { 32 } {
            return None;
        }
        let (mut id, mut digits) = ([0u8; 16], 0);
        for (at, byte) in text.bytes().enumerate() {
            if dashed && matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' if !capital => byte - b'a' + 10,
                b'A'..=b'F' if capital => byte - b'A' + 10,
                _ => return None,
            };
            id[digits / 2] |= if digits % 2 == 0 { digit << 4 } else { digit };
            digits += 1;
        }
        Some(id)
    }

    /// Appends the text of an id.
    fn write(self, id: &[u8], out: &mut String) {
        let dashed = matches!(self, Self::Uuid | Self::UpperUuid);
        let digits =
            if matches!(self, Self::UpperHex | Self::UpperUuid) { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
        for (at, byte) in id.iter().enumerate() {
            if dashed && matches!(at, 4 | 6 | 8 | 10) {
                out.push('-');
            }
            out.push(char::from(digits[usize::from(byte >> 4)]));
            out.push(char::from(digits[usize::from(byte & 15)]));
        }
    }
}

/// The form in which all values of a column are ids; `None` for other columns and for those without a value.
pub(crate) fn form_of<'a>(batches: impl Iterator<Item = &'a RecordBatch>, place: usize) -> Option<Form> {
    let mut left = FORMS.to_vec();
    let mut seen = false;
    for values in batches.filter_map(|batch| batch.column(place).as_string_opt::<i32>()) {
        for value in values.iter().flatten() {
            seen = true;
            left.retain(|form| form.read(value).is_some());
            if left.is_empty() {
                return None;
            }
        }
    }
    left.first().copied().filter(|_| seen)
}

/// The schema as it lies in the file.
pub(crate) fn stored_schema(schema: &Schema, forms: &Forms) -> SchemaRef {
    swap_types(schema, forms, DataType::FixedSizeBinary(ID_BYTES))
}

/// The schema as readers get it.
pub(crate) fn shown_schema(schema: &Schema, forms: &Forms) -> SchemaRef {
    swap_types(schema, forms, DataType::Utf8)
}

fn swap_types(schema: &Schema, forms: &Forms, to: DataType) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match forms.get(field.name()) {
        Some(_) => Arc::new(Field::new(field.name(), to.clone(), field.is_nullable())),
        None => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A column of texts as ids.
pub(crate) fn pack(column: &ArrayRef, form: Form) -> Result<ArrayRef, ArrowError> {
    let mut out = FixedSizeBinaryBuilder::with_capacity(column.len(), ID_BYTES);
    for value in column.as_string::<i32>() {
        match value.and_then(|text| form.read(text)) {
            Some(id) => out.append_value(id)?,
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// A column of ids as texts.
pub(crate) fn unpack(column: &FixedSizeBinaryArray, form: Form) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(column.len(), column.len() * 36);
    let mut text = String::new();
    for id in column {
        text.clear();
        if let Some(id) = id {
            form.write(id, &mut text);
        }
        out.append_option(id.map(|_| text.as_str()));
    }
    Arc::new(out.finish())
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn a_text_comes_back_in_its_form() {
        for (text, form) in [
            ("0af7651916cd43dd8448eb211c80319c", Form::Hex),
            ("0AF7651916CD43DD8448EB211C80319C", Form::UpperHex),
            ("0af76519-16cd-43dd-8448-eb211c80319c", Form::Uuid),
            ("0AF76519-16CD-43DD-8448-EB211C80319C", Form::UpperUuid),
            ("00000000000000000000000000000000", Form::Hex),
        ] {
            let column: ArrayRef = Arc::new(StringArray::from(vec![Some(text), None]));
            let batch = RecordBatch::try_from_iter([("id", Arc::clone(&column))]).unwrap();
            assert_eq!(form_of(std::iter::once(&batch), 0), Some(form), "{text}");
            let packed = pack(&column, form).unwrap();
            assert_eq!(&unpack(packed.as_fixed_size_binary(), form), &column);
        }
    }

    #[test]
    fn what_is_not_an_id_in_every_row_stays_text() {
        let hex = "0af7651916cd43dd8448eb211c80319c";
        for values in [
            vec![],
            vec![None],
            vec![Some("")],
            vec![Some(hex), Some("0AF7651916CD43DD8448EB211C80319C")],
            vec![Some(hex), Some("0af76519-16cd-43dd-8448-eb211c80319c")],
            vec![Some("0aF7651916cd43dd8448eb211c80319c")],
            vec![Some("0af7651916cd43dd8448eb211c80319")],
            vec![Some("0af7651916cd43dd8448eb211c8031\u{e9}")],
            vec![Some("0af76519-16cd-43dd-8448_eb211c80319c")],
        ] {
            let column: ArrayRef = Arc::new(StringArray::from(values.clone()));
            let batch = RecordBatch::try_from_iter([("id", column)]).unwrap();
            assert_eq!(form_of(std::iter::once(&batch), 0), None, "{values:?}");
        }
        // Ids without letters fit small and capital ones alike.
        let digits = "00000000000000000000000000000001";
        let column: ArrayRef = Arc::new(StringArray::from(vec![digits, "0AF7651916CD43DD8448EB211C80319C"]));
        let batch = RecordBatch::try_from_iter([("id", column)]).unwrap();
        assert_eq!(form_of(std::iter::once(&batch), 0), Some(Form::UpperHex));
    }
}
