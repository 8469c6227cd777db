//! 128-bit ids, kept as sixteen bytes where every value of a column is one and all are written in one form.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, FixedSizeBinaryArray, StringArray},
    buffer::OffsetBuffer,
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

/// What a byte is as a hexadecimal digit: its value, with a mark where it is a letter of one case; [`NO_DIGIT`] for others.
const DIGITS: [u8; 256] = digits();
const SMALL: u8 = 0x10;
const CAPITAL: u8 = 0x20;
const NO_DIGIT: u8 = 0x80;

const fn digits() -> [u8; 256] {
    let mut table = [NO_DIGIT; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => (byte - b'a' + 10) | SMALL,
            b'A'..=b'F' => (byte - b'A' + 10) | CAPITAL,
            _ => NO_DIGIT,
        };
        byte += 1;
    }
    table
}

/// The two digits of each byte.
const SMALL_PAIRS: [[u8; 2]; 256] = pairs(*b"0123456789abcdef");
const CAPITAL_PAIRS: [[u8; 2]; 256] = pairs(*b"0123456789ABCDEF");

const fn pairs(digits: [u8; 16]) -> [[u8; 2]; 256] {
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
}

impl Form {
    /// The id of a text in this form.
    pub(crate) fn read(self, text: &str) -> Option<[u8; 16]> {
        let other_case = if matches!(self, Self::UpperHex | Self::UpperUuid) { SMALL } else { CAPITAL };
        let mut id = [0u8; 16];
        let mut marks = 0;
        let mut put = |id: &mut [u8], digits: &[u8]| {
            for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
                let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
                marks |= high | low;
                *byte = high << 4 | low & 0xf;
            }
        };
        let text = text.as_bytes();
        if matches!(self, Self::Hex | Self::UpperHex) {
            put(&mut id, <&[u8; 32]>::try_from(text).ok()?);
        } else {
            let text = <&[u8; 36]>::try_from(text).ok()?;
            if [text[8], text[13], text[18], text[23]] != [b'-'; 4] {
                return None;
            }
            for (bytes, digits) in [(0..4, 0..8), (4..6, 9..13), (6..8, 14..18), (8..10, 19..23), (10..16, 24..36)] {
                put(&mut id[bytes], &text[digits]);
            }
        }
        (marks & (other_case | NO_DIGIT) == 0).then_some(id)
    }

    /// Appends the text of an id.
    fn write(self, id: &[u8], out: &mut Vec<u8>) {
        let pairs = if matches!(self, Self::UpperHex | Self::UpperUuid) { &CAPITAL_PAIRS } else { &SMALL_PAIRS };
        // So many bytes between dashes.
        let parts: &[usize] = if matches!(self, Self::Uuid | Self::UpperUuid) { &[4, 2, 2, 2, 6] } else { &[16] };
        let mut text = [b'-'; 36];
        let (mut bytes, mut at) = (id.iter(), 0);
        for part in parts {
            for byte in bytes.by_ref().take(*part) {
                text[at..at + 2].copy_from_slice(&pairs[usize::from(*byte)]);
                at += 2;
            }
            // The dash that stands there, or the end.
            at += 1;
        }
        out.extend_from_slice(&text[..at - 1]);
    }
}

/// Columns of texts as ids, if all values are ids in one form; `None` for others, and where there is no value.
pub(crate) fn pack(columns: &[&StringArray]) -> Option<(Form, Vec<ArrayRef>)> {
    let first = columns.iter().flat_map(|column| column.iter()).flatten().next()?;
    let guesses = FORMS.into_iter().filter(|form| form.read(first).is_some());
    guesses.into_iter().find_map(|form| {
        let packed: Option<Vec<_>> = columns.iter().map(|column| pack_one(column, form)).collect();
        Some((form, packed?))
    })
}

fn pack_one(column: &StringArray, form: Form) -> Option<ArrayRef> {
    let mut ids = Vec::with_capacity(column.len() * 16);
    for value in column {
        ids.extend_from_slice(&value.map_or(Some([0; 16]), |text| form.read(text))?);
    }
    let ids = FixedSizeBinaryArray::try_new(ID_BYTES, ids.into(), column.nulls().cloned());
    Some(Arc::new(ids.ok()?))
}

/// A column of ids as texts.
pub(crate) fn unpack(column: &FixedSizeBinaryArray, form: Form) -> Result<ArrayRef, ArrowError> {
    let mut texts = Vec::with_capacity(column.len() * 36);
    let lengths = column.iter().map(|id| {
        let before = texts.len();
        id.into_iter().for_each(|id| form.write(id, &mut texts));
        texts.len() - before
    });
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(StringArray::try_new(offsets, texts.into(), column.nulls().cloned())?))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    fn form_of(values: Vec<Option<&str>>) -> Option<Form> {
        pack(&[&StringArray::from(values)]).map(|(form, _)| form)
    }

    #[test]
    fn a_text_comes_back_in_its_form() {
        for (text, form) in [
            ("0af7651916cd43dd8448eb211c80319c", Form::Hex),
            ("0AF7651916CD43DD8448EB211C80319C", Form::UpperHex),
            ("0af76519-16cd-43dd-8448-eb211c80319c", Form::Uuid),
            ("0AF76519-16CD-43DD-8448-EB211C80319C", Form::UpperUuid),
            ("00000000000000000000000000000000", Form::Hex),
        ] {
            let column = StringArray::from(vec![Some(text), None]);
            let (found, packed) = pack(&[&StringArray::from(vec![None::<&str>]), &column]).unwrap();
            assert_eq!((found, packed[0].null_count()), (form, 1), "{text}");
            assert_eq!(unpack(packed[1].as_fixed_size_binary(), form).unwrap().as_string::<i32>(), &column);
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
            vec![Some("-0af7651-16cd-43dd-8448-eb211c80319c")],
            vec![Some("0000000000000000000000000000000g")],
        ] {
            assert_eq!(form_of(values.clone()), None, "{values:?}");
        }
        // Ids without letters fit small and capital ones alike.
        let digits = "00000000000000000000000000000001";
        assert_eq!(form_of(vec![Some(digits), Some("0AF7651916CD43DD8448EB211C80319C")]), Some(Form::UpperHex));
    }
}
