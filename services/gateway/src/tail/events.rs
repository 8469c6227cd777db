//! A tail as server-sent events.

use actix_web::web::Bytes;
use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde_json::json;
use types::{IndexName, Offset, Position, SegmentId, StreamCut};
use wire::Problem;

use super::{Form, Rate};

/// The events of an index.
pub(super) struct Events(pub(super) IndexName);

#[async_trait(?Send)]
impl Form for Events {
    type Part = Bytes;

    fn opened(&mut self) -> Option<Bytes> {
        Some(format!(": tail of {}\n\n", self.0).into())
    }

    /// One event for each row; the last one carries the id.
    async fn rows(&mut self, rows: &RecordBatch, after: &StreamCut) -> Result<Option<Bytes>, Problem> {
        let lines = engine::json_rows(rows).map_err(Problem::internal)?;
        let mut text = String::new();
        for (i, line) in lines.iter().enumerate() {
            if i + 1 == lines.len() {
                text.push_str(&format!("id: {}\n", write_id(after)));
            }
            text.push_str("event: row\ndata: ");
            text.push_str(&String::from_utf8_lossy(line));
            text.push_str("\n\n");
        }
        Ok(Some(text.into()))
    }

    fn rate(&mut self, rate: &Rate, after: &StreamCut) -> Option<Bytes> {
        let position = write_id(after);
        let mut data = serde_json::to_value(rate).ok()?;
        data["position"] = position.as_str().into();
        Some(format!("id: {position}\nevent: rate\ndata: {data}\n\n").into())
    }

    fn truncated(&mut self, from: Position, start: Option<Offset>, after: &StreamCut) -> Bytes {
        let data = json!({ "segment": from.segment, "from": from.offset, "start": start });
        format!("id: {}\nevent: truncated\ndata: {data}\n\n", write_id(after)).into()
    }

    fn ended(&mut self, kind: &str, message: &str) -> Bytes {
        let said = json!({ "kind": kind, "message": message });
        format!("event: end\ndata: {said}\n\n").into()
    }

    fn quiet(&mut self) -> Bytes {
        Bytes::from_static(b": still here\n\n")
    }
}

/// Positions as an event id: `<segment>:<offset>` separated by commas.
fn write_id(cut: &StreamCut) -> String {
    cut.0.iter().map(|(segment, offset)| format!("{segment}:{offset}")).collect::<Vec<_>>().join(",")
}

pub(super) fn read_id(id: &str) -> Result<StreamCut, Problem> {
    let one = |part: &str| {
        let (segment, offset) = part.split_once(':')?;
        Some((segment.parse::<SegmentId>().ok()?, offset.parse::<u64>().ok()?))
    };
    let cut = id.split(',').map(one).collect::<Option<_>>().map(StreamCut);
    cut.ok_or_else(|| {
        Problem::bad_request("BadPosition", "from is `latest`, `earliest` or the id of an event of a tail")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_write() {
        for id in ["1-0-0:17", "1-0-0:17,1-0-1:0"] {
            assert_eq!(write_id(&read_id(id).unwrap()), id);
        }
        for bad in ["", "x", "1-0-0", "1-0-0:x", "1-0-0:1,"] {
            assert!(read_id(bad).is_err(), "{bad}");
        }
    }
}
