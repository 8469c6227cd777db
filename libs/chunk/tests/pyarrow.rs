//! A chunk as another Parquet reader sees it: pyarrow, brought from PyPI once and pinned by `pyarrow.txt` beside this file.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, reason = "a test says what it skips")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use types::SegmentId;

const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };
const ROWS: i64 = 70_000;
/// 2026-01-02 03:04:05 UTC.
const START: i64 = 1_767_323_045_000_000_000;

/// Prints a line for each row in the order of `_offset`, then what the footer says of the order of rows.
const SCRIPT: &str = r"
import sys, pyarrow as pa, pyarrow.parquet as pq
file = pq.ParquetFile(sys.argv[1])
table = file.read().sort_by('_offset')
for row in table.set_column(0, '_time', table['_time'].cast(pa.int64())).to_pylist():
    trace = row['trace_id'].hex() if row['trace_id'] is not None else ''
    print(row['_offset'], row['_time'], row['_msg'], row['service'], row['status'], trace)
for column in file.metadata.row_group(0).sorting_columns:
    print('by', file.schema.names[column.column_index])
found = pq.read_table(sys.argv[1], filters=[('service', '=', 'cart'), ('status', '>', 500)])
print('filtered', found.num_rows)
";

/// pyarrow's folder; without pip or PyPI the test says that it is skipped.
fn pyarrow() -> Option<PathBuf> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = env::var_os("LOGBOOM_TOOLS").map_or_else(|| room.join("../../.tools"), PathBuf::from);
    let (home, pins) = (tools.join("pyarrow"), room.join("tests/pyarrow.txt"));
    let wanted = fs::read_to_string(&pins).unwrap();
    if fs::read_to_string(home.join("pins")).is_ok_and(|there| there == wanted) {
        return Some(home);
    }
    // Beside its place, so that the last step is one rename and two runs at once do not meet.
    fs::create_dir_all(&tools).unwrap();
    let fresh = tempfile::tempdir_in(&tools).unwrap();
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        "--require-hashes",
    ]);
    let ended = pip.arg("--target").arg(fresh.path()).arg("-r").arg(&pins).output();
    let words = match ended {
        Ok(ended) if ended.status.success() => {
            fs::write(fresh.path().join("pins"), wanted).unwrap();
            if home.is_dir() {
                fs::remove_dir_all(&home).unwrap();
            }
            fs::rename(fresh.keep(), &home).unwrap();
            return Some(home);
        }
        Ok(ended) => String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    assert!(env::var_os("CI").is_none(), "pyarrow could not be had from PyPI: {words}");
    println!("SKIPPED pyarrow's view of a chunk: it could not be had from PyPI (python3 with pip): {words}");
    None
}

fn trace(n: i64) -> Option<String> {
    (n % 3 != 0).then(|| format!("{:032x}", u128::try_from(n / 4).unwrap() << 64 | 0xabcd))
}

#[test]
fn pyarrow_reads_a_chunk_as_it_is() {
    let Some(home) = pyarrow() else { return };
    let services = ["cart", "checkout", "search"];
    let service = |n: i64| services[usize::try_from(n % 3).unwrap()];
    let texts = |of: &dyn Fn(i64) -> Option<String>| Arc::new((0..ROWS).map(of).collect::<StringArray>()) as ArrayRef;
    let whole = |of: &dyn Fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..ROWS).map(of))) as ArrayRef;
    let rows = RecordBatch::try_from_iter([
        ("_time", Arc::new(TimestampNanosecondArray::from_iter_values((0..ROWS).map(|n| START + n * 7))) as ArrayRef),
        ("_msg", texts(&|n| Some(format!("r\u{e9}quest {n}")))),
        ("severity", texts(&|n| (n % 2 == 0).then(|| "error".to_owned()))),
        ("_segment", texts(&|_| Some(SEGMENT.to_string()))),
        ("_offset", whole(&|n| n)),
        ("service", texts(&|n| Some(service(n).to_owned()))),
        ("status", whole(&|n| 200 + n % 400)),
        ("trace_id", texts(&trace)),
    ]);
    let chunk = chunk::write(SEGMENT, 0, &[rows.unwrap()]).unwrap();
    assert_eq!(chunk.meta.order.as_deref(), Some("service"));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &chunk.bytes).unwrap();
    let ended = Command::new("python3").env("PYTHONPATH", home).args(["-c", SCRIPT]).arg(file.path()).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let said = String::from_utf8(ended.stdout).unwrap();
    let mut lines = said.lines();
    for n in 0..ROWS {
        let trace = trace(n).unwrap_or_default();
        let expected = format!("{n} {} r\u{e9}quest {n} {} {} {trace}", START + n * 7, service(n), 200 + n % 400);
        assert_eq!(lines.next(), Some(expected.as_str()));
    }
    let found = (0..ROWS).filter(|n| n % 3 == 0 && 200 + n % 400 > 500).count();
    assert_eq!(lines.collect::<Vec<_>>(), ["by service", "by _time", "by _offset", &format!("filtered {found}")]);
}
