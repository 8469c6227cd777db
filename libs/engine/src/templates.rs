//! `templates(text)`: what the lines of a group have in common, as an aggregate of SQL.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StringArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, FieldRef, Fields, Int64Type},
};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err},
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};
use ingest::template::{BRANCHES, Dictionary, PatternId, Template, TemplateId, WHOLE};

/// What a template is as a row: of how many lines, its text, one of the lines, and its id.
static ROW: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("lines", DataType::Int64, false),
        Field::new("template", DataType::Utf8, false),
        Field::new("example", DataType::Utf8, false),
        Field::new("id", DataType::Utf8, false),
    ])
});

/// What one part of a query hands to another: a line of each signature, and how many there are; no line for what is not
/// mined.
static PART: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![Field::new("lines", DataType::Int64, false), Field::new("example", DataType::Utf8, true)])
});

/// The text of the template of lines that are one variable.
const VARIABLE: &str = "<*>";

fn list_of(fields: &Fields) -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(fields.clone()), false))
}

/// The aggregate `templates(text)`: a list of `{lines, template, example, id}`, most lines first; nulls count for nothing.
///
/// Bounds: those of [`Dictionary`]: what finds no room, or is too long to be mined, counts for the template `<*>`. Its
/// memory is the query's.
pub(crate) fn templates() -> AggregateUDF {
    AggregateUDF::from(Templates { signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Templates {
    signature: Signature,
}

impl AggregateUDFImpl for Templates {
    fn name(&self) -> &'static str {
        "templates"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(list_of(&ROW)))
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::<Mining>::default())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[parts]", args.name), DataType::List(list_of(&PART)), true))])
    }
}

#[derive(Debug, Default)]
struct Mining {
    dictionary: Dictionary,
}

impl Accumulator for Mining {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let texts = values.first().and_then(|column| column.as_string_opt::<i32>());
        for text in texts.ok_or_else(|| exec_datafusion_err!("templates() takes texts"))?.iter().flatten() {
            self.dictionary.learn(text);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let rows = self.rows();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.lines).collect::<Int64Array>()),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.template))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.example))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.id))),
        ];
        list(&ROW, columns)
    }

    fn size(&self) -> usize {
        self.dictionary.bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let known = self.dictionary.signatures().iter();
        let mut parts: Vec<_> = known.map(|entry| (count(entry.count), Some(self.example(entry.pattern)))).collect();
        if self.dictionary.unmined() > 0 {
            parts.push((count(self.dictionary.unmined()), None));
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(parts.iter().map(|part| part.0).collect::<Int64Array>()),
            Arc::new(parts.iter().map(|part| part.1).collect::<StringArray>()),
        ];
        Ok(vec![list(&PART, columns)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states.first().and_then(|column| column.as_list_opt::<i32>());
        for part in lists.ok_or_else(|| exec_datafusion_err!("a part of templates() is a list"))?.iter().flatten() {
            let part = part.as_struct();
            let (lines, examples) = (part.column(0).as_primitive::<Int64Type>(), part.column(1).as_string::<i32>());
            for (lines, example) in lines.values().iter().zip(examples) {
                let lines = u64::try_from(*lines).unwrap_or_default();
                match example {
                    Some(example) => drop(self.dictionary.learn_times(example, lines)),
                    None => self.dictionary.count_unmined(lines),
                }
            }
        }
        Ok(())
    }
}

struct Row<'d> {
    lines: i64,
    template: String,
    example: &'d str,
    id: String,
}

impl Mining {
    fn example(&self, pattern: PatternId) -> &str {
        self.dictionary.pattern(pattern).map_or("", |pattern| pattern.example())
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let mut templates = self.dictionary.templates(BRANCHES);
        let unmined = self.dictionary.unmined();
        if unmined > 0 {
            // A line that is one value has this template too.
            match templates.iter_mut().find(|template| template.text == VARIABLE) {
                Some(template) => template.count = template.count.saturating_add(unmined),
                None => templates.push(Template {
                    id: TemplateId::of(VARIABLE),
                    text: VARIABLE.to_owned(),
                    signatures: Vec::new(),
                    count: unmined,
                }),
            }
            templates.sort_by_key(|template| Reverse(template.count));
        }
        let first: HashMap<u64, PatternId> =
            self.dictionary.signatures().iter().map(|entry| (entry.signature, entry.pattern)).collect();
        let example = |signatures: &[u64]| {
            signatures.iter().filter_map(|signature| first.get(signature)).min().copied().unwrap_or(WHOLE)
        };
        let row = |template: Template| Row {
            lines: count(template.count),
            example: self.example(example(&template.signatures)),
            id: template.id.to_string(),
            template: template.text,
        };
        templates.into_iter().map(row).collect()
    }
}

fn count(lines: u64) -> i64 {
    i64::try_from(lines).unwrap_or(i64::MAX)
}

/// One value: a list of these columns' rows.
fn list(fields: &Fields, columns: Vec<ArrayRef>) -> Result<ScalarValue> {
    let rows = StructArray::try_new(fields.clone(), columns, None)?;
    let offsets = OffsetBuffer::from_lengths([rows.len()]);
    Ok(ScalarValue::List(Arc::new(ListArray::try_new(list_of(fields), offsets, Arc::new(rows), None)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[String]) -> Vec<ArrayRef> {
        vec![Arc::new(StringArray::from_iter_values(lines))]
    }

    /// The templates of lines that some parts of a query have seen.
    fn of(parts: &[&[String]]) -> Vec<(i64, String)> {
        let mut whole = Mining::default();
        for lines in parts {
            let mut part = Mining::default();
            part.update_batch(&texts(lines)).unwrap();
            let state: Vec<_> = part.state().unwrap().iter().map(|value| value.to_array().unwrap()).collect();
            whole.merge_batch(&state).unwrap();
        }
        let mut rows: Vec<_> = whole.rows().into_iter().map(|row| (row.lines, row.template)).collect();
        rows.sort();
        rows
    }

    #[test]
    fn lines_without_a_template_are_counted() {
        let long = "x ".repeat(ingest::template::LINE_BYTES_MAX);
        let lines = ["17".to_owned(), long.clone(), "order 5 paid".to_owned(), long];
        let (first, second) = lines.split_at(2);
        assert_eq!(of(&[first, second]), [(1, "order <*> paid".to_owned()), (3, VARIABLE.to_owned())]);
        assert_eq!(of(&[second, &[]]), [(1, VARIABLE.to_owned()), (1, "order <*> paid".to_owned())]);
    }

    /// However the rows are spread over the parts of a query, the answer is one and counts every line.
    #[test]
    fn parts_are_the_whole() {
        let names = ["ann", "bob", "cy", "dan", "eve", "fay", "7"];
        let lines: Vec<_> =
            (0..30).map(|n| format!("{} {} is in {n}", ["user", "disk"][n % 2], names[n * 5 % names.len()])).collect();
        let whole = of(&[&lines]);
        assert_eq!(whole.iter().map(|row| row.0).sum::<i64>(), 30);
        assert!(whole.len() < names.len(), "{whole:?}");
        for cut in 0..lines.len() {
            let (first, second) = lines.split_at(cut);
            assert_eq!(of(&[second, first]), whole, "cut at {cut}");
        }
    }
}
