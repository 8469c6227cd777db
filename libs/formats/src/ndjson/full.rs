//! One line by a parser that takes all of JSON.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    FaultKind, Layout,
    columns::{Columns, Raw},
};

/// Pushes the row of a line; else what is wrong with it, and what was pushed has to be taken back.
pub(super) fn read(line: &[u8], columns: &mut Columns) -> Result<(), (FaultKind, String)> {
    let corrupt = |problem: &dyn fmt::Display| (FaultKind::Corrupt, problem.to_string());
    let text = std::str::from_utf8(line).map_err(|_| corrupt(&"it is not text in UTF-8"))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader.deserialize_map(Members { layout: &columns.layout }).map_err(|e| corrupt(&e))?;
    reader.end().map_err(|e| corrupt(&e))?;
    for (column, raw) in members.into_iter().enumerate() {
        let kind = if columns.is_time(column) { FaultKind::Undated } else { FaultKind::Corrupt };
        let value = value(raw).map_err(|e| corrupt(&e))?;
        columns.push(column, &value).map_err(|problem| (kind, problem))?;
    }
    Ok(())
}

fn value(raw: Option<&RawValue>) -> Result<Raw<'_>, serde_json::Error> {
    let Some(raw) = raw.map(RawValue::get) else { return Ok(Raw::Null) };
    match raw.as_bytes().first() {
        Some(b'"') => Ok(Raw::Text(serde_json::from_str::<Text<'_>>(raw)?.0)),
        Some(b'n') => Ok(Raw::Null),
        _ => Ok(Raw::Written(raw)),
    }
}

/// A text that is borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object that are columns, the last one of each name.
struct Members<'l> {
    layout: &'l Layout,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let columns = &self.layout.columns;
        let mut found = vec![None; columns.len()];
        while let Some(Text(name)) = members.next_key()? {
            match columns.iter().position(|column| column.name == name) {
                Some(column) => found[column] = Some(members.next_value()?),
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}
