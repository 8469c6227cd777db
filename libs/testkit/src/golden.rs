//! What was ever written, as bytes beside what they mean: this release must read it too.
//!
//! A file is `tests/golden/<name>.txt`. A row is `name <tab> value as JSON <tab> bytes as hex`; rows are added and never changed.
//! Every row must decode, and nothing that it says may be lost; the last row of a name must also be what is written now.
//! Where something new is to be written, a row is added with its value alone, and `UPDATE=1` fills in the bytes.

use std::{env, fs, path::PathBuf};

use data_encoding::HEXLOWER;
use serde::{
    Deserializer, Serialize,
    de::{DeserializeOwned, Error as _, Visitor, value::Error as Caught},
    forward_to_deserialize_any,
};
use serde_json::Value;
use types::Timestamp;

/// What to do about a row that is not written as it was.
const CHANGED: &str = "this message's bytes changed: old data would not decode. Add a new version; or, if all that was done is to add \
    a field with a serde default, add a row with the field's value below the last one and run it with UPDATE=1";

/// When the events of golden journals happened, one a second: 2026-11-22, 10:00 UTC, in seconds.
const JOURNAL_BEGAN: i64 = 1_795_341_600;

/// One file of golden bytes, and what was found wrong with it.
#[must_use = "`close` says what is wrong"]
pub struct Golden {
    path: PathBuf,
    head: String,
    rows: Vec<Row>,
    wrong: Vec<String>,
    filling: bool,
    changed: bool,
}

struct Row {
    name: String,
    value: Value,
    bytes: Option<Vec<u8>>,
    asked: bool,
}

impl Row {
    fn read(line: &str) -> Result<Self, String> {
        let mut cells = line.split('\t');
        let (name, value) = (cells.next().unwrap_or_default().to_owned(), cells.next().unwrap_or_default());
        let value = serde_json::from_str(value).map_err(|error| format!("{name}: its value is no JSON: {error}"))?;
        let hex = cells.next().unwrap_or_default().trim();
        let bytes =
            HEXLOWER.decode(hex.as_bytes()).map_err(|error| format!("{name}: its bytes are no hex: {error}"))?;
        Ok(Self { name, value, bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), asked: false })
    }

    fn write(&self) -> String {
        format!("{}\t{}\t{}\n", self.name, self.value, self.bytes.as_deref().map_or_else(String::new, hex))
    }

    /// Whether it is about this type, or about one variant of it.
    fn is_of(&self, name: &str) -> bool {
        self.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

impl Golden {
    /// The file `tests/golden/<name>.txt`.
    ///
    /// # Panics
    /// If it is not there or cannot be read: this is for tests.
    #[allow(
        clippy::disallowed_methods,
        reason = "whoever runs the tests says through the environment that files be written"
    )]
    pub fn open(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(format!("{name}.txt"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (head, rows): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
        let (mut wrong, mut read) = (Vec::new(), Vec::new());
        for row in rows {
            Row::read(row).map_or_else(|error| wrong.push(error), |row| read.push(row));
        }
        let head = head.iter().map(|line| format!("{line}\n")).collect();
        Self { path, head, rows: read, wrong, filling: env::var_os("UPDATE").is_some(), changed: false }
    }

    /// Checks the rows of a type that travels as every body does, see [`wire::encode`].
    pub fn check<T: Serialize + DeserializeOwned>(&mut self, name: &str) {
        let encode = |value: &Value| read::<T>(value).map(|value| wire::encode(&value));
        let decode = |bytes: &[u8]| {
            let value: T = wire::decode(bytes).map_err(|problem| problem.message)?;
            serde_json::to_value(&value).map_err(|error| error.to_string())
        };
        self.check_as(name, encode, decode);
    }

    /// Checks the rows of a type that is written in a form of its own.
    pub fn check_as(
        &mut self,
        name: &str,
        encode: impl Fn(&Value) -> Result<Vec<u8>, String>,
        decode: impl Fn(&[u8]) -> Result<Value, String>,
    ) {
        let of: Vec<usize> = (0..self.rows.len()).filter(|at| self.rows[*at].is_of(name)).collect();
        if of.is_empty() {
            self.wrong.push(format!("{name} has no row: add one with its name and value, and run it with UPDATE=1"));
        }
        for at in of {
            self.rows[at].asked = true;
            let last = !self.rows[at + 1..].iter().any(|later| later.name == self.rows[at].name);
            if let Err(wrong) = self.check_row(at, last, &encode, &decode) {
                self.wrong.push(format!("{}, row {}: {wrong}", self.rows[at].name, at + 1));
            }
        }
    }

    fn check_row(
        &mut self,
        at: usize,
        last: bool,
        encode: &dyn Fn(&Value) -> Result<Vec<u8>, String>,
        decode: &dyn Fn(&[u8]) -> Result<Value, String>,
    ) -> Result<(), String> {
        let row = &mut self.rows[at];
        if row.bytes.is_none() && self.filling {
            let bytes = encode(&row.value)?;
            row.value = decode(&bytes)?;
            row.bytes = Some(bytes);
            self.changed = true;
        }
        let bytes = row.bytes.as_deref().ok_or("it has no bytes yet: run it with UPDATE=1")?;
        let read = decode(bytes).map_err(|error| format!("it is not read any more: {error}"))?;
        if let Some(path) = lost(&row.value, &read) {
            return Err(format!("{path} is lost: {read} is read where {} was written", row.value));
        }
        let written = encode(&read)?;
        if last && (written != bytes || read != row.value) {
            return Err(format!("{CHANGED}.\n  was {}\n  is  {}\n      {read}", hex(bytes), hex(&written)));
        }
        Ok(())
    }

    /// Checks that every variant of an enum has a row `<name>.<variant>` which is of that variant.
    pub fn covers<E: DeserializeOwned>(&mut self, name: &str) {
        for variant in variants_of::<E>() {
            let name = format!("{name}.{variant}");
            let mut of = self.rows.iter().filter(|row| row.is_of(&name)).peekable();
            if of.peek().is_none() {
                self.wrong
                    .push(format!("{name} has no row: add one with its name and value, and run it with UPDATE=1"));
            }
            // Behind the type's own name stand the variants, from the outermost inwards.
            let path: Vec<&str> = name.split('.').skip(1).collect();
            let other =
                of.filter(|row| !is_variant(&row.value, &path)).map(|row| format!("{name} is not {}", row.value));
            let other: Vec<String> = other.collect();
            self.wrong.extend(other);
        }
    }

    /// Checks a journal: the rows `Event.<variant>`, each variant of them, and the row `State`, which comes of applying them all.
    pub fn check_journal<E, S>(&mut self, apply: impl Fn(&mut S, &E, Timestamp))
    where
        E: Serialize + DeserializeOwned,
        S: Serialize + DeserializeOwned + Default,
    {
        self.check::<E>("Event");
        self.covers::<E>("Event");
        let mut state = S::default();
        for (second, event) in (JOURNAL_BEGAN..).zip(self.values::<E>("Event")) {
            apply(&mut state, &event, Timestamp::from_nanos(second * 1_000_000_000));
        }
        self.check_made("State", &state);
    }

    /// Every value of a type, in the order of the rows.
    fn values<T: DeserializeOwned>(&self, name: &str) -> Vec<T> {
        let rows = self.rows.iter().filter(|row| row.is_of(name));
        rows.filter_map(|row| match &row.bytes {
            Some(bytes) => wire::decode(bytes).ok(),
            None => read(&row.value).ok(),
        })
        .collect()
    }

    /// Checks the rows of something that is made of other rows: what comes of them now is the last row.
    fn check_made<T: Serialize + DeserializeOwned>(&mut self, name: &str, made: &T) {
        let bytes = wire::encode(made);
        let last = self.rows.iter().rfind(|row| row.name == name).and_then(|row| row.bytes.as_deref());
        if last != Some(&bytes[..]) {
            match (self.filling, serde_json::to_value(made)) {
                (_, Err(error)) => self.wrong.push(format!("{name} is no JSON: {error}")),
                (true, Ok(value)) => {
                    self.rows.push(Row { name: name.to_owned(), value, bytes: Some(bytes), asked: false });
                    self.changed = true;
                }
                (false, Ok(value)) => self.wrong.push(format!(
                    "{name}: the same rows make something else now. If that is meant, run it with UPDATE=1, which adds a row.\n  \
                     is  {value}"
                )),
            }
        }
        self.check::<T>(name);
    }

    /// Ends the check.
    ///
    /// # Panics
    /// If anything is wrong, or a row is about something that nobody asked for.
    pub fn close(mut self) {
        let idle = self.rows.iter().filter(|row| !row.asked);
        let idle = idle.map(|row| format!("{}: nothing of this name is read any more", row.name));
        let mut wrong: Vec<String> = idle.collect();
        wrong.append(&mut self.wrong);
        assert!(wrong.is_empty(), "{}:\n{}", self.path.display(), wrong.join("\n"));
        if self.changed {
            let text = self.rows.iter().fold(self.head, |text, row| text + &row.write());
            fs::write(&self.path, text).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        }
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    T::deserialize(value).map_err(|error| format!("its value is none of it: {error}"))
}

/// Where something that was written is not read; what was added meanwhile is no loss.
fn lost(written: &Value, read: &Value) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written.iter().find_map(|(key, written)| {
            let found = lost(written, read.get(key).unwrap_or(&Value::Null))?;
            Some(format!(".{key}{found}"))
        }),
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            let mut pairs = written.iter().zip(read).enumerate();
            pairs.find_map(|(at, (written, read))| Some(format!("[{at}]{}", lost(written, read)?)))
        }
        (written, read) => (written != read).then(String::new),
    }
}

fn is_variant(value: &Value, path: &[&str]) -> bool {
    match (value, path) {
        (_, []) => true,
        (Value::String(text), [only]) => text == only,
        (Value::Object(map), [first, rest @ ..]) => {
            map.len() == 1 && map.get(*first).is_some_and(|inner| is_variant(inner, rest))
        }
        _ => false,
    }
}

/// The names of an enum's variants, as they are written.
fn variants_of<E: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It fails in any case: it is only asked which variants it would take.
    E::deserialize(Names(&mut names)).err();
    names
}

struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Caught;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Caught> {
        Err(Caught::custom("it is no enum"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Caught> {
        *self.0 = variants;
        Err(Caught::custom("its variants are known"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Old {
        name: String,
    }

    #[derive(Serialize, Deserialize)]
    struct Added {
        name: String,
        #[serde(default)]
        more: u8,
    }

    #[derive(Serialize, Deserialize)]
    struct Renamed {
        #[serde(default)]
        title: String,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
        Two(u8),
    }

    fn row(name: &str, value: Value, bytes: Option<Vec<u8>>) -> Row {
        Row { name: name.to_owned(), value, bytes, asked: false }
    }

    fn golden(rows: Vec<Row>) -> Golden {
        Golden { path: PathBuf::new(), head: String::new(), rows, wrong: Vec::new(), filling: false, changed: false }
    }

    fn written() -> Row {
        row("It", json!({"name": "a"}), Some(wire::encode(&Old { name: "a".to_owned() })))
    }

    #[test]
    fn a_field_with_a_default_wants_a_row_and_the_old_one_stays() {
        let mut same = golden(vec![written()]);
        same.check::<Old>("It");
        same.close();

        let mut added = golden(vec![written()]);
        added.check::<Added>("It");
        assert!(added.wrong[0].contains("this message's bytes changed"), "{:?}", added.wrong);

        let new = Added { name: "b".to_owned(), more: 7 };
        let mut both = golden(vec![written(), row("It", json!({"name": "b", "more": 7}), Some(wire::encode(&new)))]);
        both.check::<Added>("It");
        both.close();
    }

    #[test]
    fn what_is_lost_is_told_although_it_decodes() {
        let new = Renamed { title: "b".to_owned() };
        let mut renamed = golden(vec![written(), row("It", json!({"title": "b"}), Some(wire::encode(&new)))]);
        renamed.check::<Renamed>("It");
        assert!(renamed.wrong.len() == 1 && renamed.wrong[0].contains(".name is lost"), "{:?}", renamed.wrong);
        let mut other = golden(vec![written()]);
        other.check::<u8>("It");
        assert!(other.wrong[0].contains("not read any more"), "{:?}", other.wrong);
    }

    #[test]
    fn every_variant_wants_a_row_of_its_own() {
        assert_eq!(variants_of::<Kind>(), ["one", "two"]);
        let two = |bytes| row("Kind.two", json!({"two": 2}), bytes);
        let mut one_of_two = golden(vec![two(Some(wire::encode(&Kind::Two(2))))]);
        one_of_two.check::<Kind>("Kind");
        one_of_two.covers::<Kind>("Kind");
        assert!(one_of_two.wrong.len() == 1 && one_of_two.wrong[0].starts_with("Kind.one has no row"));
        let mut wrong_name = golden(vec![row("Kind.one", json!({"two": 2}), None), two(None)]);
        wrong_name.covers::<Kind>("Kind");
        assert_eq!(wrong_name.wrong, ["Kind.one is not {\"two\":2}"]);
    }

    #[test]
    fn a_value_alone_is_filled_in_when_it_is_asked_for() {
        let mut empty = golden(vec![row("It", json!({"name": "a"}), None)]);
        empty.check::<Added>("It");
        assert!(empty.wrong[0].contains("no bytes yet"), "{:?}", empty.wrong);
        let mut filled = golden(vec![row("It", json!({"name": "a"}), None)]);
        filled.filling = true;
        filled.check::<Added>("It");
        assert_eq!(filled.wrong, [""; 0]);
        assert_eq!(filled.rows[0].value, json!({"name": "a", "more": 0}));
        let line = filled.rows[0].write();
        assert_eq!(Row::read(line.trim_end()).unwrap().write(), line);
    }
}
