//! A table in a file of comma-separated values: what its cells are, of which types its columns are, and what is wrong where. Pure.

use std::{fmt, str::FromStr, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray},
    datatypes::{Field, Schema},
};
use types::IndexName;
use wire::{
    Problem,
    coordinator::{LookupColumn, LookupKind},
};

/// The largest file.
pub(crate) const BYTES_MAX: usize = 16 << 20;
/// Rows below the header.
pub(crate) const ROWS_MAX: usize = 200_000;
/// Columns.
pub(crate) const COLUMNS_MAX: usize = 64;
/// What a table takes in memory: 200,000 numbers in each of 64 columns are 102 MB.
const TABLE_BYTES_MAX: usize = 128 << 20;
/// The longest name of a column, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What is wrong with a table; the header is row 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct TableError {
    row: usize,
    column: Option<usize>,
    message: String,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            Some(column) => write!(f, "row {}, column {column}: {}", self.row, self.message),
            None => write!(f, "row {}: {}", self.row, self.message),
        }
    }
}

impl From<TableError> for Problem {
    fn from(error: TableError) -> Self {
        Self::bad_request("InvalidTable", error)
    }
}

fn wrong(row: usize, column: impl Into<Option<usize>>, message: impl Into<String>) -> TableError {
    TableError { row, column: column.into(), message: message.into() }
}

/// The cells of a file, row after row, without their quotes.
struct Cells {
    text: String,
    /// Where each cell ends, and in the lowest bit whether it stood in quotes. A file has less than 2^31 bytes.
    ends: Vec<u32>,
    width: usize,
}

impl Cells {
    fn get(&self, row: usize, column: usize) -> Option<&str> {
        let at = row * self.width + column;
        let end = |at: usize| self.ends.get(at).map_or(0, |end| usize::try_from(end >> 1).unwrap_or(usize::MAX));
        let begin = if at == 0 { 0 } else { end(at - 1) };
        let quoted = self.ends.get(at).is_some_and(|end| end & 1 == 1);
        let cell = &self.text[begin..end(at)];
        (quoted || !cell.is_empty()).then_some(cell)
    }

    fn rows(&self) -> usize {
        self.ends.len() / self.width.max(1)
    }

    fn close(&mut self, quoted: bool) {
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX >> 1);
        self.ends.push(end << 1 | u32::from(quoted));
    }
}

/// Refuses a table that takes more memory than a query can hold. `bytes` is what it takes.
pub(crate) fn fits(bytes: usize) -> Result<(), TableError> {
    if bytes <= TABLE_BYTES_MAX {
        return Ok(());
    }
    Err(wrong(1, None, format!("the table takes {bytes} bytes of memory, {TABLE_BYTES_MAX} are the most it may take")))
}

/// One walk over a file.
struct Walk<'a> {
    rest: &'a str,
    row: usize,
    column: usize,
}

impl Walk<'_> {
    /// Goes past a line end, if one stands here.
    fn line_end(&mut self) -> bool {
        let rest = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n'));
        rest.map(|rest| self.rest = rest).is_some()
    }

    /// One cell, and whether it stood in quotes.
    fn cell(&mut self, out: &mut String) -> Result<bool, TableError> {
        let Some(mut rest) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', '\n', '"']).unwrap_or(self.rest.len());
            if self.rest[end..].starts_with('"') {
                let message = "a quote stands inside a cell: put the whole cell in quotes, and write the quote twice";
                return Err(wrong(self.row, self.column, message));
            }
            let (cell, rest) = self.rest.split_at(end);
            let lined = rest.starts_with('\n');
            let cell = if lined { cell.strip_suffix('\r').unwrap_or(cell) } else { cell };
            out.push_str(cell);
            self.rest = rest;
            return Ok(false);
        };
        loop {
            let Some((before, after)) = rest.split_once('"') else {
                return Err(wrong(self.row, self.column, "the quote that begins the cell is never closed"));
            };
            out.push_str(before);
            match after.strip_prefix('"') {
                Some(after) => {
                    out.push('"');
                    rest = after;
                }
                None => {
                    self.rest = after;
                    break;
                }
            }
        }
        if self.rest.is_empty() || self.rest.starts_with([',', '\n']) || self.rest.starts_with("\r\n") {
            return Ok(true);
        }
        Err(wrong(self.row, self.column, "text follows the closing quote: write a quote inside a cell twice"))
    }

    /// One row, up to and past its line end.
    fn cells(&mut self, cells: &mut Cells) -> Result<usize, TableError> {
        self.column = 1;
        loop {
            let quoted = self.cell(&mut cells.text)?;
            cells.close(quoted);
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
                self.column += 1;
                if self.column > COLUMNS_MAX {
                    return Err(wrong(self.row, None, format!("a table has at most {COLUMNS_MAX} columns")));
                }
                continue;
            }
            self.line_end();
            return Ok(self.column);
        }
    }
}

/// Reads a file with a header line: the table and its columns.
///
/// A column is of whole numbers, numbers, truth values or instants (RFC 3339) where every cell of it is that, else of text. An empty
/// cell is null; `""` is an empty text. Empty lines are left out.
/// Bounds: [`BYTES_MAX`], [`ROWS_MAX`], [`COLUMNS_MAX`].
pub(crate) fn read(bytes: &[u8]) -> Result<(RecordBatch, Vec<LookupColumn>), TableError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let row = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        wrong(row, None, "the line is not UTF-8")
    })?;
    let mut walk = Walk { rest: text.strip_prefix('\u{feff}').unwrap_or(text), row: 1, column: 1 };
    while walk.line_end() {}
    if walk.rest.is_empty() {
        return Err(wrong(1, None, "the header line is missing: name the columns in the first line"));
    }
    let mut header = Cells { text: String::new(), ends: Vec::new(), width: COLUMNS_MAX };
    let width = walk.cells(&mut header)?;
    let names = names(&header, width)?;
    let mut cells = Cells { text: String::with_capacity(walk.rest.len()), ends: Vec::new(), width };
    loop {
        while walk.line_end() {}
        if walk.rest.is_empty() {
            break;
        }
        walk.row += 1;
        if walk.row > ROWS_MAX + 1 {
            return Err(wrong(walk.row, None, format!("a table has at most {ROWS_MAX} rows")));
        }
        let found = walk.cells(&mut cells)?;
        if found != width {
            let message = format!("it has {found} cells, the header has {width}");
            return Err(wrong(walk.row, None, message));
        }
    }
    Ok(table(&names, &cells))
}

fn names(header: &Cells, width: usize) -> Result<Vec<String>, TableError> {
    let mut names: Vec<String> = Vec::with_capacity(width);
    for column in 0..width {
        let name = header.get(0, column).unwrap_or_default().trim();
        let refuse = |message: String| Err(wrong(1, column + 1, message));
        if name.is_empty() {
            return refuse("the name of the column is empty".to_owned());
        }
        if name.len() > NAME_BYTES_MAX {
            return refuse(format!("the name of a column has at most {NAME_BYTES_MAX} bytes"));
        }
        if let Some(other) = names.iter().position(|other| other == name) {
            return refuse(format!("{name} is the name of column {} already", other + 1));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn table(names: &[String], cells: &Cells) -> (RecordBatch, Vec<LookupColumn>) {
    let (mut fields, mut arrays, mut columns) = (Vec::new(), Vec::new(), Vec::new());
    for (place, name) in names.iter().enumerate() {
        let (kind, array) = column(cells, place);
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
        columns.push(LookupColumn { name: name.clone(), kind });
    }
    let schema = Arc::new(Schema::new(fields));
    let table = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap_or_else(|_| RecordBatch::new_empty(schema));
    (table, columns)
}

fn column(cells: &Cells, place: usize) -> (LookupKind, ArrayRef) {
    let all = || (0..cells.rows()).map(|row| cells.get(row, place));
    let text = || (LookupKind::Text, Arc::new(all().collect::<StringArray>()) as ArrayRef);
    if all().flatten().next().is_none() {
        return text();
    }
    if let Some(whole) = parsed(all(), integer) {
        return (LookupKind::Integer, Arc::new(Int64Array::from(whole)));
    }
    if let Some(numbers) = parsed(all(), number) {
        return (LookupKind::Number, Arc::new(Float64Array::from(numbers)));
    }
    if let Some(truths) = parsed(all(), truth) {
        return (LookupKind::Boolean, Arc::new(BooleanArray::from(truths)));
    }
    match parsed(all(), instant) {
        Some(instants) => (LookupKind::Timestamp, Arc::new(TimestampNanosecondArray::from(instants))),
        None => text(),
    }
}

/// Each cell as something, if all of them are that.
fn parsed<'c, T>(cells: impl Iterator<Item = Option<&'c str>>, parse: fn(&str) -> Option<T>) -> Option<Vec<Option<T>>> {
    cells.map(|cell| cell.map_or(Some(None), |cell| parse(cell).map(Some))).collect()
}

/// A whole number as it would be written again: `007` is a name, not a number.
fn integer(cell: &str) -> Option<i64> {
    let number: i64 = cell.parse().ok()?;
    (number.to_string() == cell).then_some(number)
}

fn number(cell: &str) -> Option<f64> {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let odd = digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit());
    let plain = digits.starts_with(|c: char| c.is_ascii_digit()) && !odd;
    cell.parse().ok().filter(|number: &f64| plain && number.is_finite())
}

fn truth(cell: &str) -> Option<bool> {
    match cell.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn instant(cell: &str) -> Option<i64> {
    let at = jiff::Timestamp::from_str(cell).ok()?;
    i64::try_from(at.as_nanosecond()).ok()
}

/// A name for a table that none of these indexes has.
pub(crate) fn free_name(taken: &[IndexName]) -> Option<IndexName> {
    let names = (1..=taken.len() + 1).map(|n| format!("lookup-{n}").parse());
    names.flatten().find(|name| !taken.contains(name))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};
    use proptest::prelude::*;

    use super::*;

    /// What a column of this type is called.
    fn data_type(kind: LookupKind) -> DataType {
        match kind {
            LookupKind::Text => DataType::Utf8,
            LookupKind::Integer => DataType::Int64,
            LookupKind::Number => DataType::Float64,
            LookupKind::Boolean => DataType::Boolean,
            LookupKind::Timestamp => DataType::Timestamp(TimeUnit::Nanosecond, None),
        }
    }

    fn shown(csv: &str) -> Result<String, String> {
        let (table, columns) = read(csv.as_bytes()).map_err(|error| error.to_string())?;
        let kinds: Vec<String> = columns.iter().map(|column| format!("{}:{:?}", column.name, column.kind)).collect();
        let types = table.schema().fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        assert_eq!(types, columns.iter().map(|column| data_type(column.kind)).collect::<Vec<_>>());
        let lines = engine::json_rows(&table).unwrap().into_iter().map(|line| String::from_utf8(line).unwrap());
        Ok(format!("{} | {}", kinds.join(" "), lines.collect::<Vec<_>>().join(" ")))
    }

    #[test]
    fn columns_have_the_type_of_all_their_cells() {
        for (csv, expected) in [
            ("host,n\na,1\nb,-2\n", r#"host:Text n:Integer | {"host":"a","n":1} {"host":"b","n":-2}"#),
            ("n\n1\n2.5\n", r#"n:Number | {"n":1.0} {"n":2.5}"#),
            ("n\n007\n1\n", r#"n:Text | {"n":"007"} {"n":"1"}"#),
            ("a,b\n,\"\"\nTrue,x\n", r#"a:Boolean b:Text | {"b":""} {"a":true,"b":"x"}"#),
            ("t\n2026-01-02T03:04:05Z\n", r#"t:Timestamp | {"t":"2026-01-02T03:04:05Z"}"#),
            (
                "\u{feff}a,b\r\n\"x,\"\"y\"\"\",\"1\n2\"\r\n\r\nz,w",
                r#"a:Text b:Text | {"a":"x,\"y\"","b":"1\n2"} {"a":"z","b":"w"}"#,
            ),
            ("a,b\n", "a:Text b:Text | "),
            (" a , b\n1,\n", r#"a:Integer b:Text | {"a":1}"#),
            ("n\n1e400\nNaN\n", r#"n:Text | {"n":"1e400"} {"n":"NaN"}"#),
        ] {
            assert_eq!(shown(csv).as_deref(), Ok(expected), "{csv:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let wide = (0..=COLUMNS_MAX).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",");
        let long = "x\n".repeat(ROWS_MAX + 2);
        for (csv, expected) in [
            ("", "row 1: the header line is missing"),
            ("\n\n", "row 1: the header line is missing"),
            ("a,,c\n", "row 1, column 2: the name of the column is empty"),
            ("a,b,a\n", "row 1, column 3: a is the name of column 1 already"),
            ("a,b\n1,2\n1,2,3\n", "row 3: it has 3 cells, the header has 2"),
            ("a,b\n1\n", "row 2: it has 1 cells, the header has 2"),
            ("a,b\n1,\"2\n", "row 2, column 2: the quote that begins the cell is never closed"),
            ("a,b\n1,\"2\"x\n", "row 2, column 2: text follows the closing quote"),
            ("a,b\n1,2\"x\n", "row 2, column 2: a quote stands inside a cell"),
            (&wide, "row 1: a table has at most 64 columns"),
            (&long, "row 200002: a table has at most 200000 rows"),
        ] {
            let found = shown(csv).unwrap_err();
            assert!(found.starts_with(expected), "{found}");
        }
        assert_eq!(read(b"a\n1\n\xff\n").unwrap_err().to_string(), "row 3: the line is not UTF-8");
    }

    #[test]
    fn a_table_takes_no_more_memory_than_it_may() {
        assert_eq!(fits(TABLE_BYTES_MAX), Ok(()));
        assert!(fits(TABLE_BYTES_MAX + 1).unwrap_err().to_string().contains("134217729 bytes of memory"));
    }

    #[test]
    fn a_name_is_free_that_no_index_has() {
        let index = |name: &str| name.parse::<IndexName>().unwrap();
        assert_eq!(free_name(&[]), Some(index("lookup-1")));
        assert_eq!(free_name(&[index("lookup-1"), index("shop")]), Some(index("lookup-2")));
    }

    proptest! {
        /// Whatever texts a table holds, written in quotes they are read again.
        #[test]
        fn cells_in_quotes_come_back(rows in proptest::collection::vec(("\\PC{0,6}|[a\",\n\r]{0,6}", "[a-z\",\n]{0,6}"), 0..20)) {
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let mut csv = "a,b\r\n".to_owned();
            rows.iter().for_each(|(a, b)| csv.push_str(&format!("{},{}\r\n", quoted(&format!("x{a}")), quoted(&format!("x{b}")))));
            let (table, _) = read(csv.as_bytes()).unwrap();
            prop_assert_eq!(table.num_rows(), rows.len());
            let texts = |column: usize| {
                let texts = table.column(column).as_any().downcast_ref::<StringArray>().unwrap();
                texts.iter().map(|text| text.unwrap_or_default()[1..].to_owned()).collect::<Vec<_>>()
            };
            prop_assert_eq!(texts(0), rows.iter().map(|row| row.0.clone()).collect::<Vec<_>>());
            prop_assert_eq!(texts(1), rows.iter().map(|row| row.1.clone()).collect::<Vec<_>>());
        }

        /// Whatever comes is a table or has a place where it is none.
        #[test]
        fn no_file_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), csv in "[ab,\"\n\r]{0,60}") {
            let _neither = (read(&bytes).is_ok(), read(csv.as_bytes()).is_ok());
        }
    }
}
