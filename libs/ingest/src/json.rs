//! JSON objects: flattened straight into fields while they are read.

use std::{borrow::Cow, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

use crate::{
    Record, Value,
    fields::{Fallback, Fields},
    source::Context,
};

/// Reads one object; nothing if the text is anything else. Depth is limited by serde_json (128).
pub(crate) fn parse<'a>(text: &'a str, context: &mut Context) -> Option<Record<'a>> {
    let mut fields = Fields::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_map(Flatten { fields: &mut fields, name: Cow::Borrowed("") }).ok()?;
    reader.end().ok()?;
    Some(fields.finish(&Fallback { time: None, message: text }, context))
}

/// Puts a value under a name, or the members of an object under `name.member`.
struct Flatten<'f, 'a> {
    fields: &'f mut Fields<'a>,
    name: Cow<'a, str>,
}

impl<'a> Flatten<'_, 'a> {
    fn put(self, value: Value<'a>) {
        self.fields.insert(self.name, value);
    }
}

impl<'de> DeserializeSeed<'de> for Flatten<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flatten<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<(), E> {
        self.put(Value::Bool(flag));
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.put(Value::Int(number));
        Ok(())
    }

    /// Above the signed range a number stays text, so that an id keeps its digits.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        self.put(i64::try_from(number).map_or_else(|_| Value::Text(number.to_string().into()), Value::Int));
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.put(Value::Float(number));
        Ok(())
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<(), E> {
        self.put(Value::Text(text.into()));
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.put(Value::Text(text.to_owned().into()));
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        self.put(Value::Text(Json::Array(list).to_string().into()));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { fields, name: base } = self;
        while fields.flattens(&base) {
            let Some(key) = members.next_key_seed(Key)? else { return Ok(()) };
            let name = if base.is_empty() { key } else { Cow::Owned(format!("{base}.{key}")) };
            members.next_value_seed(Flatten { fields: &mut *fields, name })?;
        }
        // From here on each member would repeat the whole name.
        let mut whole = Map::new();
        while let Some((key, value)) = members.next_entry()? {
            whole.insert(key, value);
        }
        fields.keep_whole(base, whole);
        Ok(())
    }
}

/// A key, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: de::Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(key.into())
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(key.to_owned().into())
    }
}
