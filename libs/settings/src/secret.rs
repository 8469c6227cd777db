//! Secrets by reference: a configuration never holds a secret, only where to find it.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// Where a secret is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `file:PATH`: the contents of a file.
    File(String),
    /// `env:NAME`: the value of an environment variable.
    Env(String),
}

impl SecretRef {
    pub(crate) const SHAPE: &str = "a secret is given by reference: file:PATH or env:NAME";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            _ if rest.is_empty() => None,
            "file" => Some(Self::File(rest.to_owned())),
            "env" => Some(Self::Env(rest.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{path}"),
            Self::Env(name) => write!(f, "env:{name}"),
        }
    }
}

/// A setting that refers to a secret, or to none (`""`); shows itself as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Option<SecretRef>);

impl Secret {
    /// A secret found at the given place.
    pub fn at(reference: SecretRef) -> Self {
        Self(Some(reference))
    }

    /// Where the secret is found; `None` if the setting is `""`.
    pub fn reference(&self) -> Option<&SecretRef> {
        self.0.as_ref()
    }

    /// Reads the secret with the caller's `read`, without the line end that files have; `None` if the setting is `""`.
    ///
    /// Errors: whatever `read` answers.
    pub fn resolve<E>(&self, read: impl Fn(&SecretRef) -> Result<String, E>) -> Result<Option<String>, E> {
        let Some(reference) = &self.0 else { return Ok(None) };
        let mut text = read(reference)?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        Ok(Some(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        // The refused text may be the secret itself, so the message must not repeat it.
        SecretRef::parse(&text).map(Self::at).ok_or_else(|| de::Error::custom(SecretRef::SHAPE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_references_are_taken_and_nothing_is_shown() {
        for (text, expected) in [
            ("file:/run/secrets/seed", Some(SecretRef::File("/run/secrets/seed".into()))),
            ("env:LB_SEED", Some(SecretRef::Env("LB_SEED".into()))),
        ] {
            let secret: Secret = serde_json::from_value(text.into()).unwrap();
            assert_eq!(secret.reference(), expected.as_ref());
            assert_eq!(secret.reference().unwrap().to_string(), text);
            assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        }
        for text in ["hunter2", "file:", "env:", "http:x"] {
            let refused = serde_json::from_value::<Secret>(text.into()).unwrap_err().to_string();
            assert!(!refused.contains("hunter2") && refused.contains("file:PATH"), "{refused}");
        }
    }

    #[test]
    fn resolving_reads_through_the_caller() {
        let read = |reference: &SecretRef| match reference {
            SecretRef::File(path) if path == "/s" => Ok("deep\r\n".to_owned()),
            other => Err(format!("no {other}")),
        };
        assert_eq!(Secret::at(SecretRef::File("/s".into())).resolve(read), Ok(Some("deep".into())));
        assert_eq!(Secret::default().resolve(read), Ok(None));
        assert_eq!(Secret::at(SecretRef::Env("X".into())).resolve(read), Err("no env:X".into()));
    }
}
