//! What an aggregate tells that is more than one number: texts and whole numbers, as one value.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StringArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, FieldRef, Fields, Int64Type},
};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err},
    error::Result,
};

/// Texts and numbers; the aggregate says what stands where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// The texts.
    pub texts: Vec<String>,
    /// The numbers.
    pub numbers: Vec<i64>,
}

fn list(of: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", of, false)))
}

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("texts", list(DataType::Utf8), false),
        Field::new("numbers", list(DataType::Int64), false),
    ])
}

impl Figures {
    /// Reads the value of such an aggregate.
    pub fn read(column: &ArrayRef, row: usize) -> Option<Self> {
        let value = column.as_struct_opt().filter(|value| value.num_columns() == 2 && row < value.len())?;
        let mut all = Self::parts(value.columns()).ok()?;
        (row < all.len()).then(|| all.swap_remove(row))
    }

    /// The type of the value.
    pub(crate) fn data_type() -> DataType {
        DataType::Struct(fields())
    }

    /// What parts of a query hand to one another.
    pub(crate) fn state_fields(name: &str) -> Vec<FieldRef> {
        let of = |part: &str, of| Arc::new(Field::new(format!("{name}[{part}]"), list(of), true));
        vec![of("texts", DataType::Utf8), of("numbers", DataType::Int64)]
    }

    /// What each part of a query has handed over.
    pub(crate) fn parts(columns: &[ArrayRef]) -> Result<Vec<Self>> {
        let wrong = || exec_datafusion_err!("the figures of a part are texts and numbers");
        let [texts, numbers] = columns else { return Err(wrong()) };
        let (texts, numbers) = texts.as_list_opt::<i32>().zip(numbers.as_list_opt::<i32>()).ok_or_else(wrong)?;
        let part = |(texts, numbers): (Option<ArrayRef>, Option<ArrayRef>)| {
            let (Some(texts), Some(numbers)) = (texts, numbers) else { return Ok(Self::default()) };
            let texts = texts.as_string_opt::<i32>().ok_or_else(wrong)?;
            let numbers = numbers.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
            let texts = texts.iter().map(|text| text.unwrap_or_default().to_owned()).collect();
            Ok(Self { texts, numbers: numbers.values().to_vec() })
        };
        texts.iter().zip(numbers.iter()).map(part).collect()
    }

    /// As parts of a query hand them to one another.
    pub(crate) fn state(&self) -> Result<Vec<ScalarValue>> {
        Ok(self.lists()?.into_iter().map(|list| ScalarValue::List(Arc::new(list))).collect())
    }

    /// As the value of the aggregate.
    pub(crate) fn value(&self) -> Result<ScalarValue> {
        let lists: Vec<ArrayRef> = self.lists()?.into_iter().map(|list| Arc::new(list) as ArrayRef).collect();
        Ok(ScalarValue::Struct(Arc::new(StructArray::try_new(fields(), lists, None)?)))
    }

    fn lists(&self) -> Result<Vec<ListArray>> {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(&self.texts));
        let numbers: ArrayRef = Arc::new(Int64Array::from(self.numbers.clone()));
        let list = |values: ArrayRef| {
            let item = Arc::new(Field::new("item", values.data_type().clone(), false));
            Ok(ListArray::try_new(item, OffsetBuffer::from_lengths([values.len()]), values, None)?)
        };
        [texts, numbers].into_iter().map(list).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_they_are_written() {
        for figures in
            [Figures::default(), Figures { texts: vec!["a".into(), String::new()], numbers: vec![i64::MIN, 0, 7] }]
        {
            let value = figures.value().unwrap();
            assert_eq!(value.data_type(), Figures::data_type());
            assert_eq!(Figures::read(&value.to_array().unwrap(), 0), Some(figures.clone()));
            assert_eq!(Figures::read(&value.to_array().unwrap(), 1), None);
            let state: Vec<ArrayRef> = figures.state().unwrap().iter().map(|v| v.to_array().unwrap()).collect();
            assert_eq!(Figures::parts(&state).unwrap(), [figures]);
        }
        let odd: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert_eq!(Figures::read(&odd, 0), None);
    }
}
