//! What an event says once it is understood.

use std::borrow::Cow;

use types::{Severity, Timestamp};

/// One understood event, before it becomes a row of a column batch; borrows from the event where it can.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// Event time, or the receive time where the event holds none.
    pub time: Timestamp,
    /// The message, several lines long for a stack trace.
    pub message: Cow<'a, str>,
    /// Inferred severity.
    pub severity: Option<Severity>,
    /// Typed fields in about the order of the event, each name once.
    pub fields: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// One typed field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text; a list is kept as its JSON text.
    Text(Cow<'a, str>),
}

impl Record<'_> {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&Value<'_>> {
        self.fields.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The same, borrowing nothing.
    pub(crate) fn into_owned(self) -> Record<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let fields = self.fields.into_iter().map(|(name, value)| (owned(name), value.into_owned())).collect();
        Record { time: self.time, message: owned(self.message), severity: self.severity, fields }
    }
}

impl Value<'_> {
    fn into_owned(self) -> Value<'static> {
        match self {
            Self::Bool(flag) => Value::Bool(flag),
            Self::Int(number) => Value::Int(number),
            Self::Float(number) => Value::Float(number),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}
