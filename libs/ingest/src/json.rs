//! JSON objects: flattened straight into fields while they are read.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use types::{LogRecord, Timestamp, Value};

use crate::fields::{Fallback, Fields};

/// Reads one object; nothing if the text is anything else. Depth is limited by serde_json (128).
pub(crate) fn parse(text: &str, received: Timestamp) -> Option<LogRecord> {
    let mut fields = Fields::default();
    let mut path = String::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let flatten = Flatten { fields: &mut fields, path: &mut path };
    reader.deserialize_map(flatten).ok()?;
    reader.end().ok()?;
    Some(fields.finish(&Fallback { time: None, received, message: text }))
}

/// Puts a value under `path`, or the members of an object under `path.member`.
struct Flatten<'a> {
    fields: &'a mut Fields,
    path: &'a mut String,
}

impl<'de> DeserializeSeed<'de> for Flatten<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flatten<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<(), E> {
        self.fields.insert(self.path, Value::Bool(flag));
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.fields.insert(self.path, Value::Int(number));
        Ok(())
    }

    /// Above the signed range a number stays text, so that an id keeps its digits.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        let value = i64::try_from(number).map_or_else(|_| Value::Text(number.to_string()), Value::Int);
        self.fields.insert(self.path, value);
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.fields.insert(self.path, Value::Float(number));
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.fields.insert(self.path, Value::Text(text.to_owned()));
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut list = Vec::<serde_json::Value>::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        self.fields.insert(self.path, Value::Text(serde_json::Value::Array(list).to_string()));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let base = self.path.len();
        while members.next_key_seed(Key { path: self.path })?.is_some() {
            members.next_value_seed(Flatten { fields: self.fields, path: self.path })?;
            self.path.truncate(base);
        }
        Ok(())
    }
}

/// Appends a key to the path.
struct Key<'a> {
    path: &'a mut String,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
        Ok(())
    }
}
