//! Rows as messages of NATS JetStream, a JSON object each.
//!
//! Every message has an id of the writer's name and the row's number, so that the stream drops what a new attempt repeats, for as long as
//! its duplicate window remembers (two minutes unless the stream says otherwise). What was published longer ago than that when an attempt
//! repeats it comes twice: checkpoints closer together than the window, and restarts within it, keep rows exactly once.

use arrow::{
    array::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use bus::Bus;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};

use super::numbered::{Given, Numbered};
use crate::{
    error::TaskError,
    metrics::{SINK_REPEATS, rows},
    part::Part,
    retry::persist,
    run::{Begin, RowSink},
    task::Context,
};

/// Messages on their way to be acknowledged. Those of one subject keep their order unless one must be sent again.
const IN_FLIGHT_MAX: usize = 256;
/// The longest subject that is made of a row.
const SUBJECT_BYTES_MAX: usize = 1_024;

/// The sink of one subtask.
#[derive(Debug)]
pub(super) struct JetStreamSink {
    bus: Bus,
    task: String,
    subject: Subject,
    numbers: Numbered,
}

/// A subject with holes for columns: text, then the column behind it and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    text: String,
    holes: Vec<(String, String)>,
}

impl JetStreamSink {
    pub(super) fn open(context: &Context, subject: &str, ordered: bool, begin: Begin<'_>) -> Result<Self, TaskError> {
        let bus = context.shared.jetstream(subject)?.clone();
        let subject =
            Subject::parse(subject).map_err(|problem| TaskError::Plan(format!("subject {subject:?} {problem}")))?;
        let numbers = Numbered::open(context, begin, ordered)?;
        Ok(Self { bus, task: context.label.clone(), subject, numbers })
    }

    async fn take(&mut self, split: Option<u64>, batch: &RecordBatch) -> Result<(), TaskError> {
        let subjects = self.subject.of_rows(batch)?;
        let bodies = engine::json_rows(batch)?;
        let Given { writer, first } = self.numbers.give(split, rows(bodies.len()));
        let Self { bus, task, .. } = self;
        let publish = |((subject, body), number): ((String, Vec<u8>), u64)| {
            let (id, body) = (format!("{writer}-{number}"), Bytes::from(body));
            let (bus, task) = (&*bus, task.as_str());
            async move {
                persist("publishing a row", || async {
                    let published = bus.publish_record(&subject, &id, body.clone()).await;
                    published.map(drop).inspect_err(|_| SINK_REPEATS.with(task).inc())
                })
                .await
            }
        };
        let all = subjects.into_iter().zip(bodies).zip(first..);
        stream::iter(all).map(publish).buffered(IN_FLIGHT_MAX).try_collect::<()>().await
    }
}

impl Subject {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut found, mut rest) = (Self { text: String::new(), holes: Vec::new() }, text);
        while let Some((before, behind)) = rest.split_once('{') {
            let (column, after) = behind.split_once('}').ok_or("has a '{' without its '}'")?;
            let next = after.split('{').next().unwrap_or_default();
            if found.holes.is_empty() {
                found.text = before.to_owned();
            }
            found.holes.push((column.to_owned(), next.to_owned()));
            rest = &after[next.len()..];
        }
        if found.holes.is_empty() {
            found.text = text.to_owned();
        }
        // With a token in each hole it must be a subject to publish on.
        let sample: String = found.holes.iter().fold(found.text.clone(), |all, (_, text)| all + "x" + text);
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | '>' | '{' | '}');
        if sample.is_empty() || !sample.chars().all(plain) || sample.split('.').any(str::is_empty) {
            return Err("is none: write tokens between dots, without spaces, '*' and '>'".to_owned());
        }
        if sample.starts_with('$') || sample.starts_with("_INBOX") {
            return Err("belongs to the server".to_owned());
        }
        Ok(found)
    }

    fn of_rows(&self, batch: &RecordBatch) -> Result<Vec<String>, TaskError> {
        let mut subjects = vec![self.text.clone(); batch.num_rows()];
        let options = FormatOptions::default();
        for (name, text) in &self.holes {
            let column = batch.column_by_name(name);
            let column =
                column.ok_or_else(|| TaskError::Plan(format!("the subject names {name:?}, which rows have not")))?;
            let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
            for (row, subject) in subjects.iter_mut().enumerate() {
                let value = if column.is_null(row) { String::new() } else { formatter.value(row).to_string() };
                let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                if value.is_empty() || !value.chars().all(token) || subject.len() + value.len() > SUBJECT_BYTES_MAX {
                    let shown: String = value.chars().take(64).collect();
                    let problem = format!(
                        "{name:?} is {shown:?}, which cannot be part of a subject: letters, digits, '-' and '_' can; make it so in the query"
                    );
                    return Err(TaskError::Source { what: "jetstream sink".to_owned(), problem });
                }
                subject.push_str(&value);
                subject.push_str(text);
            }
        }
        Ok(subjects)
    }
}

impl RowSink for JetStreamSink {
    fn rows(&mut self, split: Option<u64>, batch: &RecordBatch) -> BoxFuture<'_, Result<(), TaskError>> {
        let batch = batch.clone();
        Box::pin(async move { self.take(split, &batch).await })
    }

    fn barrier<'a>(&'a mut self, _: u64, part: &'a mut Part) -> BoxFuture<'a, Result<(), TaskError>> {
        // Everything that was published is acknowledged.
        self.numbers.note(part);
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    #[test]
    fn subjects_are_made_of_rows() {
        let keys = Arc::new(StringArray::from(vec![Some("a"), Some("b-2"), None, Some("c.d"), Some("*")])) as ArrayRef;
        let batch = RecordBatch::try_from_iter_with_nullable([("k", keys, true)]).unwrap();
        let of = |text: &str, from: usize, count: usize| {
            Subject::parse(text).unwrap().of_rows(&batch.slice(from, count)).map_err(|error| error.to_string())
        };
        assert_eq!(of("out", 0, 2).unwrap(), ["out", "out"]);
        assert_eq!(of("out.{k}.x{k}", 0, 2).unwrap(), ["out.a.xa", "out.b-2.xb-2"]);
        assert_eq!(of("{k}", 1, 1).unwrap(), ["b-2"]);
        for row in 2..5 {
            assert!(of("out.{k}", row, 1).unwrap_err().contains("part of a subject"), "{row}");
        }
        assert!(of("out.{other}", 0, 1).unwrap_err().contains("\"other\""));
        for wrong in ["", "a..b", "a.*", "a.>", "a b", ".a", "a.", "a.{k", "$JS.API.x", "_INBOX.x", "a.}"] {
            assert!(Subject::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
