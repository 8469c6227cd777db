use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::*;
use crate::{Column, Kind, Unit};

fn reader(header: bool) -> Csv {
    let columns = vec![Column::new("k", Kind::Integer), Column::new("name", Kind::Text)];
    Csv::new(Layout::new(columns, None, Unit::Millis).unwrap(), ',', header).unwrap()
}

/// A row.
type Found = (Option<i64>, Option<String>);

/// All rows and faults of a text that is given in pieces of that size.
fn read(reader: &mut Csv, text: &[u8], piece: usize) -> Result<(Vec<Found>, Vec<Fault>), Error> {
    let (mut rows, mut faults, mut from, mut to) = (Vec::new(), Vec::new(), 0, 0);
    loop {
        let taken = reader.read(&text[from..to], to == text.len(), 3)?;
        let (numbers, names) =
            (taken.rows.batch.column(0).as_primitive::<Int64Type>(), taken.rows.batch.column(1).as_string::<i32>());
        rows.extend(numbers.iter().zip(names.iter().map(|name| name.map(str::to_owned))));
        faults.extend(taken.rows.faults);
        from += taken.bytes;
        if taken.bytes == 0 {
            if to == text.len() {
                assert_eq!(reader.position(), text.len() as u64);
                return Ok((rows, faults));
            }
            to = (to + piece).min(text.len());
        }
    }
}

#[test]
fn values_and_faults_are_told_apart_however_the_text_is_cut() {
    let text = "name,unused,k\na,,1\r\n\"b,\"\"c\"\"\nd\",x,2\n\n\"\",x,3\n,,\ne,4\nf,x,many\n\"g\"h,x,5\ni,x,6";
    let text = text.as_bytes();
    let name = |text: &str| Some(text.to_owned());
    for piece in 1..text.len() + 1 {
        let (rows, faults) = read(&mut reader(true), text, piece).unwrap();
        let wanted = [
            (Some(1), name("a")),
            (Some(2), name("b,\"c\"\nd")),
            (Some(3), name("")),
            (None, None),
            (Some(6), name("i")),
        ];
        assert_eq!(rows, wanted, "{piece}");
        let problems: Vec<&str> = faults.iter().map(|fault| fault.problem.as_str()).collect();
        let wanted =
            ["it has 2 values, not 3", "\"k\" is many, not a whole number of 64 bits", "a quote closes inside a value"];
        assert_eq!(problems, wanted, "{piece}");
        assert_eq!(&text[usize::try_from(faults[1].offset).unwrap()..][..3], b"f,x");
    }
}

#[test]
fn a_name_that_is_missing_is_named_and_without_names_the_order_counts() {
    let error = read(&mut reader(true), b"k,nome\n1,a\n", 64).unwrap_err();
    assert_eq!(error.to_string(), "columns: \"name\" is not among the names k,nome");
    assert_eq!(read(&mut reader(false), b"1,a\n", 64).unwrap().0, [(Some(1), Some("a".to_owned()))]);
    let layout = Layout::new(vec![Column::new("k", Kind::Text)], None, Unit::Millis).unwrap();
    assert!(Csv::new(layout, '"', true).is_err());
}

#[test]
fn a_quote_that_never_closes_ends_with_its_line_or_the_file() {
    let mut text = b"1,a\n2,\"".to_vec();
    text.resize(LINE_BYTES_MAX + 4_096, b'x');
    text.extend_from_slice(b"\n3,c\n4,\"d");
    let (rows, faults) = read(&mut reader(false), &text, 300_000).unwrap();
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [Some(1), Some(3)]);
    assert_eq!(faults.iter().map(|f| f.kind).collect::<Vec<_>>(), [FaultKind::TooLong, FaultKind::Corrupt]);
    assert_eq!(faults[0].offset, 4);
}
