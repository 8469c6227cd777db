//! Templates: what the lines of a program have in common.
//!
//! Three things of growing width, each made of the one before:
//! - A [`Pattern`] is the exact text around the variables of a line, so that it and the variables give back the line byte
//!   for byte. It is what a store keeps once, with an id and the variables in every row.
//! - A **signature** is the line with its variables masked and its white space ignored, as a number of 64 bits. It
//!   depends on the line alone: every worker computes the same one, for ever.
//! - A [`Template`] is a set of signatures that differ in words which look like values. It depends on all signatures
//!   known, so it is derived when asked for ([`Dictionary::templates`]); its id is a hash of its text.
//!
//! ```
//! use ingest::template::{BRANCHES, Dictionary};
//!
//! let mut dictionary = Dictionary::default();
//! let mined = dictionary.learn("Accepted password for ann from 10.0.0.7 port 22");
//! assert_eq!(mined.variables().collect::<Vec<_>>(), ["10.0.0.7", "22"]);
//! let (pattern, variables) = (mined.pattern, mined.variables().collect::<Vec<_>>());
//! let pattern = dictionary.pattern(pattern).expect("just learnt");
//! assert_eq!(pattern.rebuild(variables).as_deref(), Some("Accepted password for ann from 10.0.0.7 port 22"));
//! for name in ["bob", "cy", "dan", "eve", "fay", "gus"] {
//!     dictionary.learn(&format!("Accepted password for {name} from 10.0.0.7 port 22"));
//! }
//! assert_eq!(dictionary.templates(BRANCHES)[0].text, "Accepted password for <*> from <*> port <*>");
//! ```

mod dictionary;
mod pattern;
mod signature;
mod split;

pub use self::{
    dictionary::{
        DICTIONARY_BYTES_MAX, Dictionary, LINE_BYTES_MAX, Mined, PATTERNS_MAX, PatternId, SignatureEntry, WHOLE,
    },
    pattern::Pattern,
    signature::{Token, signature},
    split::{BRANCHES, Template, TemplateId},
};

#[cfg(test)]
mod tests;
