//! What came before and after an event, in the order of offsets, across chunks, the tail and the segments of other epochs.
//!
//! A segment is preceded by those that it follows and succeeded by those that follow it. Where these are several (a merge,
//! or the two halves of a split) their rows stand in the order in which they were received, those of each in the order of
//! their offsets.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Query},
};
use arrow::{
    array::AsArray,
    datatypes::{Int64Type, TimestampNanosecondType},
};
use engine::{ChunkPiece, Piece, TableSource};
use futures::StreamExt;
use query::{
    Comparison, Plan, Surroundings,
    plan::{Direction, Predicate, SortKey, Step, Value as Constant},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;
use types::{IndexName, Offset, Position, SegmentId};
use wire::{
    Code, Problem,
    coordinator::{SegmentNode, SegmentRange},
};

use crate::{api::Door, auth::Principal, error::HttpError, platform::all_segments, sql};

/// Rows on each side.
const ROWS_DEFAULT: u64 = 10;
const ROWS_MAX: u64 = 500;
/// Fields whose values shall be the same.
const SAME_MAX: usize = 8;
/// Rows of which it is looked whether their values are the same, on each side.
const LOOKED_MAX: u64 = 200_000;
/// Rows that are looked at first where values shall be the same; then eight times as many, until enough are found.
const LOOKED_FIRST: u64 = 512;
/// Segments that are read on each side.
const SEGMENTS_MAX: usize = 64;
/// How long the tail may let wait for an event that is known to be there: the take-over of a container.
const TAIL_WAIT: Duration = Duration::from_secs(15);
const OFFSET: &str = "_offset";

/// The query string.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    segment: SegmentId,
    offset: Offset,
    before: Option<u64>,
    after: Option<u64>,
    /// Names of fields between commas.
    same: Option<String>,
}

/// One row and its place.
#[derive(Debug, Clone, Serialize)]
struct Row {
    segment: SegmentId,
    offset: Offset,
    hit: bool,
    row: Map<String, Value>,
    #[serde(skip)]
    received: i64,
}

#[derive(Debug, Serialize)]
struct Answer {
    position: Position,
    same: BTreeMap<String, Option<String>>,
    rows: Vec<Row>,
    more_before: bool,
    more_after: bool,
    /// Rows that were looked at.
    scanned: u64,
}

/// `GET /api/v1/indexes/{index}/context?segment&offset&before&after&same`: the rows around one, in the order in which they came.
///
/// Bounds: 500 rows on each side, out of 64 segments and 200,000 rows where values shall be the same; `more_before` and
/// `more_after` say whether there may be further ones. Errors: NotFound `UnknownSegment`, `UnknownOffset`, `Truncated`.
pub(crate) async fn context(
    request: HttpRequest,
    door: Data<Door>,
    index: Path<IndexName>,
    options: Query<Options>,
) -> Result<HttpResponse, HttpError> {
    let (index, options) = (index.into_inner(), options.into_inner());
    let principal = door.auth.of(&request).await?;
    principal.may_read(&index)?;
    let count = |said: Option<u64>| match said.unwrap_or(ROWS_DEFAULT) {
        count @ ..=ROWS_MAX => Ok(count),
        _ => Err(Problem::bad_request("MalformedRequest", format_args!("before and after are at most {ROWS_MAX}"))),
    };
    let wanted = (count(options.before)?, count(options.after)?);
    let position = Position { segment: options.segment, offset: options.offset };
    let same: BTreeSet<String> = options.same.iter().flat_map(|same| same.split(',')).map(str::to_owned).collect();
    if same.len() > SAME_MAX {
        let message = format!("at most {SAME_MAX} fields may be the same");
        return Err(Problem::bad_request("MalformedRequest", message).into());
    }
    let looking = async {
        let mut found = around(&door, &principal, &index, position, &same, wanted).await;
        if matches!(&found, Err(error) if error.problem().kind == "ChunkUnreadable") {
            // Its chunk was replaced meanwhile; a new look tells by which.
            found = around(&door, &principal, &index, position, &same, wanted).await;
        }
        found
    };
    let allowed = door.config.query_timeout.0;
    let late = |_| Problem::new(Code::Deadline, "QueryTimeout", format_args!("the rows were not found in {allowed:?}"));
    Ok(HttpResponse::Ok().json(timeout(allowed, looking).await.map_err(late)??))
}

async fn around(
    door: &Door,
    principal: &Principal,
    index: &IndexName,
    position: Position,
    same: &BTreeSet<String>,
    (before, after): (u64, u64),
) -> Result<Answer, HttpError> {
    let _held = sql::admit(door, principal, std::slice::from_ref(index)).await?;
    let nodes = all_segments(&*door.platform, index).await?;
    let nodes: BTreeMap<SegmentId, SegmentNode> = nodes.into_iter().map(|node| (node.segment, node)).collect();
    let mut look = Look { door, index, nodes, same: BTreeMap::new(), scanned: 0 };
    let mut hit = look.hit(position).await?;
    let value = |field: &String| (field.clone(), hit.row.get(field).and_then(text_of));
    look.same = same.iter().map(value).collect();
    hit.hit = true;
    let at = position.offset;
    let (mut rows, more_before) = look.side(Side::Before, (position.segment, 0..at), before).await?;
    let (later, more_after) = look.side(Side::After, (position.segment, at + 1..Offset::MAX), after).await?;
    rows.push(hit);
    rows.extend(later);
    Ok(Answer { position, same: look.same, rows, more_before, more_after, scanned: look.scanned })
}

/// The text of a value by which rows are compared.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// On which side of an event is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// One look at the rows around an event.
struct Look<'d> {
    door: &'d Door,
    index: &'d IndexName,
    nodes: BTreeMap<SegmentId, SegmentNode>,
    /// Values that rows shall have; `None` for fields that they shall not have.
    same: BTreeMap<String, Option<String>>,
    scanned: u64,
}

/// Rows of one segment.
struct Part {
    /// In the order of their offsets.
    rows: Vec<Row>,
    /// Whether all of the segment on this side was looked at.
    is_whole: bool,
    /// Whether the segment gets no more rows on this side.
    is_over: bool,
}

impl Look<'_> {
    async fn hit(&mut self, position: Position) -> Result<Row, HttpError> {
        let Position { segment, offset } = position;
        let gone = |kind: &str, message: String| HttpError::from(Problem::not_found(kind, message));
        let unknown = || gone("UnknownSegment", format!("log index {} has no segment {segment}", self.index));
        let range = self.nodes.get(&segment).ok_or_else(unknown)?.segment_range();
        let info = self.door.platform.describe(range).await?;
        if offset < info.start {
            return Err(gone("Truncated", format!("offset {offset} was truncated: the first is {}", info.start)));
        }
        let row =
            if offset < info.end { self.read(range, offset..offset + 1, (Side::After, 1)).await?.pop() } else { None };
        row.ok_or_else(|| gone("UnknownOffset", format!("segment {segment} has no offset {offset}")))
    }

    /// The nearest rows on one side, in the order in which they came, and whether there may be more.
    async fn side(
        &mut self,
        side: Side,
        begin: (SegmentId, Range<Offset>),
        count: u64,
    ) -> Result<(Vec<Row>, bool), HttpError> {
        // One more shows whether there are more.
        let wanted = usize::try_from(count).unwrap_or(usize::MAX).saturating_add(1);
        let (mut layer, mut found, mut is_cut, mut read) = (vec![begin], Vec::new(), false, BTreeSet::new());
        let looked_max = self.scanned.saturating_add(LOOKED_MAX);
        while found.len() < wanted && !layer.is_empty() && !is_cut {
            let (mut parts, mut next) = (Vec::new(), BTreeSet::new());
            for (segment, offsets) in std::mem::take(&mut layer) {
                read.insert(segment);
                let part = self.part(side, (segment, offsets), wanted - found.len(), looked_max).await?;
                is_cut |= !part.is_whole && part.rows.len() < wanted - found.len();
                if part.is_whole && part.is_over {
                    next.extend(self.beside(side, segment));
                }
                parts.push(part.rows);
            }
            let mut rows = merged(parts);
            match side {
                Side::Before => {
                    rows.drain(..rows.len().saturating_sub(wanted - found.len()));
                    rows.append(&mut found);
                    found = rows;
                }
                Side::After => {
                    rows.truncate(wanted - found.len());
                    found.append(&mut rows);
                }
            }
            next.retain(|segment| !read.contains(segment));
            is_cut |= found.len() < wanted && read.len() + next.len() > SEGMENTS_MAX;
            layer = next.into_iter().map(|segment| (segment, 0..Offset::MAX)).collect();
        }
        let is_more = found.len() >= wanted;
        if is_more {
            match side {
                Side::Before => drop(found.remove(0)),
                Side::After => drop(found.pop()),
            }
        }
        Ok((found, is_more || is_cut))
    }

    /// The segments next to one.
    fn beside(&self, side: Side, segment: SegmentId) -> Vec<SegmentId> {
        let node = self.nodes.get(&segment);
        let all = node.map(|node| match side {
            Side::Before => &node.predecessors,
            Side::After => &node.successors,
        });
        all.into_iter().flatten().copied().filter(|segment| self.nodes.contains_key(segment)).collect()
    }

    /// The nearest rows of one segment on one side of these offsets.
    async fn part(
        &mut self,
        side: Side,
        (segment, offsets): (SegmentId, Range<Offset>),
        wanted: usize,
        looked_max: u64,
    ) -> Result<Part, HttpError> {
        let empty = Part { rows: Vec::new(), is_whole: true, is_over: true };
        let Some(range) = self.nodes.get(&segment).map(SegmentNode::segment_range) else { return Ok(empty) };
        let info = match self.door.platform.describe(range).await {
            Ok(info) => info,
            // It was truncated as a whole meanwhile.
            Err(problem) if problem.kind == "UnknownSegment" => return Ok(empty),
            Err(problem) => return Err(problem.into()),
        };
        let mut left = offsets.start.max(info.start)..offsets.end.min(info.end);
        // Without conditions every row counts, so that the nearest are known.
        let mut step = if self.same.is_empty() { to_u64(wanted) } else { LOOKED_FIRST.max(to_u64(wanted) * 4) };
        let mut rows: Vec<Row> = Vec::new();
        while rows.len() < wanted && left.start < left.end && self.scanned < looked_max {
            let size = step.min(left.end - left.start);
            let window = match side {
                Side::Before => left.end - size..left.end,
                Side::After => left.start..left.start + size,
            };
            left = match side {
                Side::Before => left.start..window.start,
                Side::After => window.end..left.end,
            };
            let mut found = self.read(range, window, (side, wanted - rows.len())).await?;
            match side {
                Side::Before => {
                    found.append(&mut rows);
                    rows = found;
                }
                Side::After => rows.append(&mut found),
            }
            step = step.saturating_mul(8).min(LOOKED_MAX);
        }
        let is_whole = left.start >= left.end && rows.len() < wanted;
        // What lies before the first row of a truncated segment is gone.
        let is_over = match side {
            Side::Before => info.start == 0,
            Side::After => info.sealed,
        };
        Ok(Part { rows, is_whole, is_over })
    }

    /// The rows of a window of offsets that have the same values, so many of those that are nearest, in their order.
    async fn read(
        &mut self,
        range: SegmentRange,
        window: Range<Offset>,
        (side, count): (Side, usize),
    ) -> Result<Vec<Row>, HttpError> {
        self.scanned += window.end - window.start;
        let table = Arc::new(Window(self.pieces(range, &window).await?));
        let lower = |around: &Surroundings| {
            let known: Vec<&str> = around.columns.values().flatten().map(|column| column.name.as_str()).collect();
            let plan = self.plan(&known, &window, side, count);
            query::lower(&plan, "", &Surroundings { rows_max: count, ..around.clone() })
        };
        let result = sql::answer_source(self.door, self.index, table, "", &lower).await?;
        let mut rows = Vec::with_capacity(result.row_count());
        for batch in &result.batches {
            let lines = engine::json_rows(batch).map_err(Problem::internal)?;
            let offsets = batch.column_by_name(OFFSET).and_then(|c| c.as_primitive_opt::<Int64Type>().cloned());
            let offsets = offsets.ok_or_else(|| Problem::internal("rows without offsets"))?;
            let received =
                batch.column_by_name("_received").and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>());
            for (i, line) in lines.iter().enumerate() {
                let row = serde_json::from_slice(line).map_err(Problem::internal)?;
                let offset = u64::try_from(offsets.value(i)).unwrap_or_default();
                let received = received.map_or(0, |received| received.value(i));
                rows.push(Row { segment: range.segment, offset, hit: false, row, received });
            }
        }
        rows.sort_by_key(|row| row.offset);
        Ok(rows)
    }

    /// What is read of the window.
    fn plan(&self, known: &[&str], window: &Range<Offset>, side: Side, count: usize) -> Plan {
        let offset = |op, at: Offset| Predicate::Compare {
            field: OFFSET.to_owned(),
            op,
            value: Constant::Integer(i64::try_from(at).unwrap_or(i64::MAX)),
        };
        let mut tests = vec![offset(Comparison::AtLeast, window.start), offset(Comparison::Below, window.end)];
        for (field, value) in &self.same {
            let field = field.clone();
            match (value, known.contains(&field.as_str())) {
                (Some(value), true) => {
                    let value = Constant::Text(value.clone());
                    tests.push(Predicate::Compare { field, op: Comparison::Equal, value });
                }
                (None, true) => tests.push(Predicate::Exists(field).negated()),
                // None of these rows has the field.
                (Some(_), false) => tests.push(offset(Comparison::Below, 0)),
                (None, false) => {}
            }
        }
        let direction = if side == Side::Before { Direction::Descending } else { Direction::Ascending };
        let key = SortKey { field: OFFSET.to_owned(), direction };
        Plan {
            indexes: vec![self.index.clone()],
            search: Predicate::all(tests),
            steps: vec![Step::Sort(vec![key]), Step::Head(to_u64(count))],
            ..Plan::default()
        }
    }

    /// What holds the rows of a window: chunks, and the tail behind them.
    async fn pieces(&self, range: SegmentRange, window: &Range<Offset>) -> Result<Vec<Piece>, Problem> {
        let platform = &self.door.platform;
        let info = platform.describe(range).await?;
        let touches = |from: Offset, to: Offset| from < window.end && to > window.start;
        let chunks = info.chunks.into_iter().filter(|chunk| touches(chunk.from, chunk.to)).map(|chunk| {
            let from = window.start.max(chunk.from).max(info.start);
            Piece::Chunk(ChunkPiece { chunks: platform.chunks().clone(), segment: range.segment, chunk, from })
        });
        let mut pieces: Vec<Piece> = chunks.collect();
        let (mut at, end) = (window.start.max(info.tail_from), window.end.min(info.end));
        let mut rows = platform.follow(range, at);
        while at < end {
            let late = |_| Problem::unavailable("TailUnreadable", "the tail of a segment did not answer in time");
            let Some(batch) = timeout(TAIL_WAIT, rows.next()).await.map_err(late)? else { break };
            let batch = batch?;
            at += to_u64(batch.num_rows());
            pieces.push(Piece::Rows(batch));
        }
        Ok(pieces)
    }
}

/// A part of a segment as a table.
#[derive(Debug)]
struct Window(Vec<Piece>);

impl TableSource for Window {
    fn pieces(&self) -> Vec<Piece> {
        self.0.clone()
    }
}

/// Rows of segments side by side in the order in which they were received, each segment's in its own order.
fn merged(parts: Vec<Vec<Row>>) -> Vec<Row> {
    let mut parts: Vec<std::iter::Peekable<std::vec::IntoIter<Row>>> =
        parts.into_iter().map(|rows| rows.into_iter().peekable()).collect();
    let mut all = Vec::new();
    loop {
        let heads = parts.iter_mut().enumerate().filter_map(|(i, rows)| rows.peek().map(|row| (row.received, i)));
        let Some((_, first)) = heads.min() else { return all };
        all.extend(parts[first].next());
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_segments_side_by_side_are_merged_as_they_were_received() {
        let rows = |number: u32, received: &[i64]| -> Vec<Row> {
            let segment = SegmentId { stream: 1, epoch: 0, number };
            let one = |(offset, received)| Row { segment, offset, hit: false, row: Map::new(), received };
            (0..).zip(received.iter().copied()).map(one).collect()
        };
        // A clock that was set back does not turn the rows of a segment.
        let all = merged(vec![rows(0, &[1, 5, 3, 9]), rows(1, &[2, 4, 9]), rows(2, &[])]);
        let told: Vec<(u32, u64)> = all.iter().map(|row| (row.segment.number, row.offset)).collect();
        assert_eq!(told, [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 3), (1, 2)]);
    }

    #[test]
    fn values_are_compared_as_texts() {
        for (value, text) in [
            (Value::Null, None),
            (Value::from("a"), Some("a")),
            (Value::from(17), Some("17")),
            (Value::from(true), Some("true")),
        ] {
            assert_eq!(text_of(&value).as_deref(), text);
        }
    }
}
