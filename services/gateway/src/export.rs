//! Results as files: which form is asked for, and under which name a browser keeps it.

use actix_web::http::header::HeaderValue;
use engine::{EngineError, ResultSet};
use serde::Deserialize;

/// The longest name of a file.
const NAME_CHARS_MAX: usize = 100;

/// The forms of a result besides the answer of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// The answer of the API.
    Json,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object a line.
    #[serde(alias = "ndjson")]
    Jsonl,
    /// A stream of Arrow.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Form {
    const ALL: [Self; 5] = [Self::Csv, Self::Jsonl, Self::Arrow, Self::Parquet, Self::Json];

    /// What a header `Accept` asks for: the first of these that it names, else JSON.
    pub(crate) fn accepted(accept: &str) -> Self {
        let named = |form: &Self| accept.contains(form.media_type().split(';').next().unwrap_or_default());
        Self::ALL.into_iter().find(named).unwrap_or(Self::Json)
    }

    /// What it is called in `Content-Type`.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Jsonl => "application/jsonl",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Arrow => "arrows",
            Self::Parquet => "parquet",
        }
    }

    /// The header by which a browser keeps the answer as a file of this name, which gets the form's ending where it has it not.
    pub(crate) fn disposition(self, name: &str) -> Option<HeaderValue> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_. ".contains(c) { c } else { '_' };
        let name: String = name.chars().take(NAME_CHARS_MAX).map(plain).collect();
        let ending = format!(".{}", self.extension());
        let ending = if name.ends_with(&ending) { "" } else { &ending };
        HeaderValue::from_str(&format!("attachment; filename=\"{name}{ending}\"")).ok()
    }

    /// The rows in this form; `None` for the answer of the API.
    pub(crate) fn write(self, result: &ResultSet) -> Option<Result<Vec<u8>, EngineError>> {
        match self {
            Self::Json => None,
            Self::Csv => Some(result.to_csv()),
            Self::Jsonl => Some(result.to_json_lines()),
            Self::Arrow => Some(result.to_ipc_stream()),
            Self::Parquet => Some(result.to_parquet()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_asked_for_by_their_media_types() {
        for form in Form::ALL {
            assert_eq!(Form::accepted(form.media_type()), form);
        }
        for (accept, form) in [("", Form::Json), ("*/*", Form::Json), ("text/html, text/csv;q=0.9", Form::Csv)] {
            assert_eq!(Form::accepted(accept), form, "{accept}");
        }
    }

    #[test]
    fn names_of_files_are_plain_and_end_as_they_should() {
        for (name, shown) in
            [("errors", "errors.csv"), ("errors.csv", "errors.csv"), ("a/b\"\r\nc", "a_b___c.csv"), ("", ".csv")]
        {
            let header = Form::Csv.disposition(name).unwrap();
            assert_eq!(header.to_str().unwrap(), format!("attachment; filename=\"{shown}\""));
        }
    }
}
