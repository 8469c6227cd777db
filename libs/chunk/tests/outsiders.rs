//! A chunk as other readers of Parquet see it: pyarrow and DuckDB, brought from PyPI once and pinned by `outsiders.txt` beside
//! this file.

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
/// 2026-01-02 03:04:05 UTC.
const START: i64 = 1_767_323_045_000_000_000;

/// Says for each reader a line for each row in the order of `_offset`, then how many a filter leaves; and what the footer says
/// of the order of rows.
const SCRIPT: &str = r#"
import sys, duckdb, pyarrow as pa, pyarrow.parquet as pq

def tell(rows):
    for offset, time, message, service, status, trace in rows:
        print(offset, time, message, service, status, trace.hex() if trace is not None else '')

for path in sys.argv[1:]:
    file = pq.ParquetFile(path)
    table = file.read().sort_by('_offset').select(['_offset', '_time', '_msg', 'service', 'status', 'trace_id'])
    nanos = table['_time'].cast(pa.timestamp('ns')).cast(pa.int64())
    tell(zip(*(column.to_pylist() for column in table.set_column(1, '_time', nanos).columns)))
    print('filtered', pq.read_table(path, filters=[('service', '=', 'cart'), ('status', '>', 500)]).num_rows)
    columns = '_offset, epoch_ns(_time), _msg, service, status, trace_id'
    tell(duckdb.sql(f"select {columns} from '{path}' order by _offset").fetchall())
    count = f"select count(*) from '{path}' where service = 'cart' and status > 500"
    print('filtered', duckdb.sql(count).fetchall()[0][0])
    for column in file.metadata.row_group(0).sorting_columns:
        print('by', file.schema.names[column.column_index])
    print(file.schema_arrow.field('_time').type)
"#;

/// Their folder; without pip or PyPI the test says that it is skipped.
fn readers() -> Option<PathBuf> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = env::var_os("LOGBOOM_TOOLS").map_or_else(|| room.join("../../.tools"), PathBuf::from);
    let (home, pins) = (tools.join("parquet-readers"), room.join("tests/outsiders.txt"));
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
    assert!(env::var_os("CI").is_none(), "pyarrow and DuckDB could not be had from PyPI: {words}");
    println!(
        "SKIPPED others' view of a chunk: pyarrow and DuckDB could not be had from PyPI (python3 with pip): {words}"
    );
    None
}

fn trace(n: i64) -> Option<String> {
    (n % 3 != 0).then(|| format!("{:032x}", u128::try_from(n / 4).unwrap() << 64 | 0xabcd))
}

/// Writes a chunk of rows whose times differ by 7 of a unit; the unit in nanoseconds.
fn write(rows: i64, unit: i64) -> tempfile::NamedTempFile {
    let texts = |of: &dyn Fn(i64) -> Option<String>| Arc::new((0..rows).map(of).collect::<StringArray>()) as ArrayRef;
    let whole = |of: &dyn Fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..rows).map(of))) as ArrayRef;
    let times = TimestampNanosecondArray::from_iter_values((0..rows).map(|n| START + n * 7 * unit));
    let batch = RecordBatch::try_from_iter([
        ("_time", Arc::new(times) as ArrayRef),
        ("_msg", texts(&|n| Some(format!("r\u{e9}quest {n}")))),
        ("severity", texts(&|n| (n % 2 == 0).then(|| "error".to_owned()))),
        ("_segment", texts(&|_| Some(SEGMENT.to_string()))),
        ("_offset", whole(&|n| n)),
        ("service", texts(&|n| Some(service(n).to_owned()))),
        ("status", whole(&|n| 200 + n % 400)),
        ("trace_id", texts(&trace)),
    ]);
    let chunk = chunk::write(SEGMENT, 0, &[batch.unwrap()]).unwrap();
    assert_eq!(chunk.meta.order.as_deref(), Some("service"));
    let file = tempfile::Builder::new().suffix(".parquet").tempfile().unwrap();
    fs::write(file.path(), &chunk.bytes).unwrap();
    file
}

fn service(n: i64) -> &'static str {
    ["cart", "checkout", "search"][usize::try_from(n % 3).unwrap()]
}

#[test]
fn pyarrow_and_duckdb_read_the_rows_that_were_written() {
    let Some(home) = readers() else { return };
    let cases = [(70_000, 1, "timestamp[ns]"), (900, 1_000, "timestamp[us]"), (900, 1_000_000, "timestamp[ms]")];
    let files = cases.map(|(rows, unit, _)| write(rows, unit));
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", home).args(["-c", SCRIPT]).args(files.iter().map(tempfile::NamedTempFile::path));
    let ended = python.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let said = String::from_utf8(ended.stdout).unwrap();
    let mut lines = said.lines();
    for (rows, unit, of) in cases {
        for reader in ["pyarrow", "DuckDB"] {
            for n in 0..rows {
                let (time, trace) = (START + n * 7 * unit, trace(n).unwrap_or_default());
                let expected = format!("{n} {time} r\u{e9}quest {n} {} {} {trace}", service(n), 200 + n % 400);
                assert_eq!(lines.next(), Some(expected.as_str()), "{reader}, {of}");
            }
            let found = (0..rows).filter(|n| n % 3 == 0 && 200 + n % 400 > 500).count();
            assert_eq!(lines.next(), Some(format!("filtered {found}").as_str()), "{reader}, {of}");
        }
        for expected in ["by service", "by _time", "by _offset", of] {
            assert_eq!(lines.next(), Some(expected));
        }
    }
    assert_eq!(lines.next(), None);
}
