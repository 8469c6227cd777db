//! Who may do what: entries of an access control list in Pravega's form, and what they allow. Pure.
//!
//! Source: Pravega, `AclAuthorizerImpl` and `AuthorizationResourceImpl`.

use std::{fmt, str::FromStr};

/// Entries of one user.
pub(crate) const ENTRIES_MAX: usize = 1_000;

/// Every resource begins so.
const DOMAIN: &str = "prn::";

/// What a user may do with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Permission {
    /// Nothing.
    None,
    /// Look.
    Read,
    /// Look and change.
    ReadUpdate,
}

impl Permission {
    fn of(word: &str) -> Option<Self> {
        match word {
            "NONE" => Some(Self::None),
            "READ" => Some(Self::Read),
            "READ_UPDATE" => Some(Self::ReadUpdate),
            _ => None,
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::Read => "READ",
            Self::ReadUpdate => "READ_UPDATE",
        })
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    /// Scopes as such.
    Scopes,
    /// A scope, and what is listed or begun in it.
    Scope(&'a str),
    /// A stream of a scope.
    Stream(&'a str, &'a str),
    /// A reader group of a scope.
    Group(&'a str, &'a str),
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scopes => write!(f, "{DOMAIN}/"),
            Self::Scope(scope) => write!(f, "{DOMAIN}/scope:{scope}"),
            Self::Stream(scope, stream) => write!(f, "{DOMAIN}/scope:{scope}/stream:{stream}"),
            Self::Group(scope, group) => write!(f, "{DOMAIN}/scope:{scope}/reader-group:{group}"),
        }
    }
}

/// Why a text is no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AclError {
    /// Not `resource,permission`.
    #[error("{0:?} is not of the form prn::/scope:S/stream:T,READ_UPDATE")]
    Form(String),
    /// A permission that is none.
    #[error("{0:?} is no permission: write NONE, READ or READ_UPDATE")]
    Permission(String),
    /// A resource that is none.
    #[error(
        "{0:?} is no resource: write prn::*, prn::/, prn::/scope:S, or below a scope stream:T, reader-group:G, key-value-table:K or *"
    )]
    Resource(String),
    /// The named limit.
    #[error("there are more than {ENTRIES_MAX} entries")]
    TooMany,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The components of its resource; none for the root.
    components: Vec<String>,
    permission: Permission,
}

/// What one user may do: the first entry that matches decides, so that an exception stands before its rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl FromStr for Acl {
    type Err = AclError;

    fn from_str(text: &str) -> Result<Self, AclError> {
        let texts: Vec<&str> = text.split(';').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if texts.len() > ENTRIES_MAX {
            return Err(AclError::TooMany);
        }
        texts.into_iter().map(entry).collect::<Result<_, _>>().map(Self)
    }
}

impl Acl {
    /// What the user may do with a resource; nothing where no entry matches.
    pub(crate) fn permission(&self, resource: Resource<'_>) -> Permission {
        let name = resource.to_string();
        let parts = components(&name).unwrap_or_default();
        let found = self.0.iter().find(|entry| matches(&entry.components, &parts));
        found.map_or(Permission::None, |entry| entry.permission)
    }
}

fn entry(text: &str) -> Result<Entry, AclError> {
    let (resource, permission) = text.split_once(',').ok_or_else(|| AclError::Form(text.to_owned()))?;
    let (resource, permission) = (resource.trim(), permission.trim());
    let permission = Permission::of(permission).ok_or_else(|| AclError::Permission(permission.to_owned()))?;
    let parts = components(resource).ok_or_else(|| AclError::Resource(resource.to_owned()))?;
    if !is_resource(&parts) {
        return Err(AclError::Resource(resource.to_owned()));
    }
    Ok(Entry { components: parts.into_iter().map(str::to_owned).collect(), permission })
}

/// `prn::/` has none; `prn::*` is short for `prn::/*`.
fn components(resource: &str) -> Option<Vec<&str>> {
    match resource.strip_prefix(DOMAIN)? {
        "*" => Some(vec!["*"]),
        "/" => Some(Vec::new()),
        path => Some(path.strip_prefix('/')?.split('/').collect()),
    }
}

fn is_resource(parts: &[&str]) -> bool {
    let named = |part: &str, kinds: &[&str]| {
        part.split_once(':')
            .is_some_and(|(kind, name)| kinds.contains(&kind) && !name.is_empty() && !name.contains(':'))
    };
    match parts {
        [] | ["*"] => true,
        [scope] => named(scope, &["scope"]),
        [scope, inner] => {
            named(scope, &["scope"]) && (*inner == "*" || named(inner, &["stream", "reader-group", "key-value-table"]))
        }
        _ => false,
    }
}

/// A last component that is only `*` matches everything below, and for the whole tree its root; elsewhere `*` stays within one component.
fn matches(pattern: &[String], parts: &[&str]) -> bool {
    match pattern.split_last() {
        None => parts.is_empty(),
        Some((last, before)) if last == "*" => {
            (before.is_empty() || parts.len() > before.len())
                && parts.len() >= before.len()
                && before.iter().zip(parts).all(|(pattern, part)| glob(pattern, part))
        }
        Some(_) => pattern.len() == parts.len() && pattern.iter().zip(parts).all(|(pattern, part)| glob(pattern, part)),
    }
}

/// Whether a text is what the pattern says, where `*` stands for any characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        // The earliest place leaves the most for what follows.
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::{Permission::*, Resource::*, *};

    #[test]
    fn lists_allow_what_they_say() {
        for (list, resource, expected) in [
            // Pravega's own table.
            ("prn::*,READ_UPDATE", Scopes, ReadUpdate),
            ("prn::*,READ_UPDATE", Scope("a"), ReadUpdate),
            ("prn::*,READ_UPDATE", Stream("a", "b"), ReadUpdate),
            ("prn::*,READ_UPDATE", Group("a", "b"), ReadUpdate),
            ("prn::/,READ_UPDATE", Scopes, ReadUpdate),
            ("prn::/,READ_UPDATE", Scope("a"), None),
            ("prn::/scope:a,READ_UPDATE", Scope("a"), ReadUpdate),
            ("prn::/scope:a,READ_UPDATE", Scope("ab"), None),
            ("prn::/scope:a,READ_UPDATE", Scopes, None),
            ("prn::/scope:a,READ_UPDATE", Stream("a", "b"), None),
            ("prn::/scope:*,READ_UPDATE", Scope("a"), ReadUpdate),
            ("prn::/*,READ", Scope("a"), Read),
            ("prn::/*,READ", Scopes, Read),
            ("prn::/*,READ", Stream("a", "b"), Read),
            ("prn::/scope:abc/*,READ_UPDATE", Scope("abc"), None),
            ("prn::/scope:abc/*,READ_UPDATE", Scope("xyz"), None),
            ("prn::/scope:abc/*,READ_UPDATE", Stream("abc", "s"), ReadUpdate),
            ("prn::/scope:abc/*,READ_UPDATE", Group("abc", "s"), ReadUpdate),
            ("prn::/scope:abc/*,READ_UPDATE", Stream("xyz", "s"), None),
            ("prn::/scope:abc/stream:str*,READ_UPDATE", Stream("abc", "str123"), ReadUpdate),
            ("prn::/scope:abc/stream:str*,READ_UPDATE", Stream("abc", "str"), ReadUpdate),
            ("prn::/scope:abc/stream:str*,READ_UPDATE", Stream("abc", "st"), None),
            ("prn::/scope:abc/stream:str*,READ_UPDATE", Group("abc", "str"), None),
            ("prn::/scope:*/stream:mine,READ_UPDATE", Stream("any", "mine"), ReadUpdate),
            ("prn::/scope:*/stream:mine,READ_UPDATE", Stream("any", "yours"), None),
            // A star stays within its component.
            ("prn::/scope:*,READ", Stream("a", "b"), None),
            ("prn::/scope:a*c/stream:*-*-x,READ", Stream("abc", "1-2-3-x"), Read),
            ("prn::/scope:a*c/stream:*-*-x,READ", Stream("abc", "1-x"), None),
            // The first that matches decides.
            ("prn::/scope:a/stream:b,NONE;prn::*,READ_UPDATE", Stream("a", "b"), None),
            ("prn::/scope:a/stream:b,NONE;prn::*,READ_UPDATE", Stream("a", "c"), ReadUpdate),
            ("prn::/*,READ;prn::/scope:a,READ_UPDATE", Scope("a"), Read),
            // Spaces, and an end like Pravega's.
            (" prn::/ , READ ; prn::/scope:a,READ; ", Scope("a"), Read),
            ("", Scopes, None),
        ] {
            assert_eq!(list.parse::<Acl>().unwrap().permission(resource), expected, "{list} for {resource}");
        }
        assert!(None < Read && Read < ReadUpdate);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (list, wrong) in [
            ("prn::/scope:a", "form"),
            ("prn::/scope:a,WRITE", "permission"),
            ("prn::/scope:a,read", "permission"),
            ("scope:a,READ", "resource"),
            ("prn::scope:a,READ", "resource"),
            ("prn::/scope:,READ", "resource"),
            ("prn::/stream:a,READ", "resource"),
            ("prn::/scope:a/scope:b,READ", "resource"),
            ("prn::/scope:a/stream:b/stream:c,READ", "resource"),
            ("prn::/*/stream:b,READ", "resource"),
            ("prn::/scope:a/,READ", "resource"),
        ] {
            let found = list.parse::<Acl>().unwrap_err();
            let kind = match found {
                AclError::Form(_) => "form",
                AclError::Permission(_) => "permission",
                AclError::Resource(_) => "resource",
                AclError::TooMany => "many",
            };
            assert_eq!(kind, wrong, "{list}: {found}");
        }
        let many = "prn::/,READ;".repeat(ENTRIES_MAX + 1);
        assert_eq!(many.parse::<Acl>().unwrap_err(), AclError::TooMany);
    }
}
