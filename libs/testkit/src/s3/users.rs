//! Users, their keys and their inline policies.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    ADMIN_KEY, ADMIN_SECRET, Answer, Call, Refusal, State,
    signature::{Known, pairs},
};

/// Keys of one user.
const KEYS_MAX: usize = 2;
/// Characters of all inline policies of a user.
const POLICY_CHARS_MAX: usize = 2_048;

const ABSENT: Refusal = (404, "NoSuchEntity", "The user, key or policy cannot be found.");

/// A user.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) policies: BTreeMap<String, String>,
}

/// An access key.
#[derive(Debug)]
pub(super) struct Key {
    user: String,
    secret: String,
    /// So many uses are refused still.
    unknown: u64,
    /// Deleted, and so many uses are not refused yet.
    deleted: Option<u64>,
}

impl State {
    /// The key of an id, if it is known at this use.
    pub(super) fn key(&mut self, id: &str) -> Option<Known> {
        if id == ADMIN_KEY {
            return Some(Known { secret: ADMIN_SECRET.to_owned(), user: None });
        }
        let key = self.keys.get_mut(id)?;
        if key.unknown > 0 {
            key.unknown -= 1;
            return None;
        }
        if let Some(left) = key.deleted.as_mut() {
            *left = left.checked_sub(1)?;
        }
        Some(Known { secret: key.secret.clone(), user: Some(key.user.clone()) })
    }

    /// The ids of a user's keys.
    pub(super) fn keys_of(&self, user: &str) -> Vec<String> {
        let keys = self.keys.iter().filter(|(_, key)| key.user == user && key.deleted.is_none());
        keys.map(|(id, _)| id.clone()).collect()
    }

    /// Carries out a call of IAM.
    pub(super) fn iam(&mut self, call: &Call<'_>, settle: u64) -> Result<Answer, Refusal> {
        let form = pairs(&call.text());
        let field = |name: &str| form.get(name).cloned().unwrap_or_default();
        let action = call.action.trim_start_matches("iam:");
        let name = field("UserName");
        if action != "CreateUser" && !self.users.contains_key(&name) {
            return Err(ABSENT);
        }
        let body = match action {
            "CreateUser" => {
                let path = field("Path");
                let fits = name.len() <= 64 && path.starts_with('/') && path.ends_with('/');
                if !fits
                    || name.is_empty()
                    || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
                {
                    return Err((400, "ValidationError", "The name or path of the user is not valid."));
                }
                if self.users.contains_key(&name) {
                    return Err((409, "EntityAlreadyExists", "User with that name already exists."));
                }
                self.users.insert(name, User::default());
                String::new()
            }
            "PutUserPolicy" => {
                let document = field("PolicyDocument");
                if serde_json::from_str::<Value>(&document).map_or(true, |policy| policy["Statement"].is_null()) {
                    return Err((400, "MalformedPolicyDocument", "The policy is no JSON with statements."));
                }
                if document.len() > POLICY_CHARS_MAX {
                    return Err((409, "LimitExceeded", "Maximum policy size of 2048 bytes exceeded."));
                }
                self.users.entry(name).or_default().policies.insert(field("PolicyName"), document);
                String::new()
            }
            "CreateAccessKey" => self.create_key(&name, settle)?,
            "ListAccessKeys" => {
                let member =
                    |id: &String| format!("<member><AccessKeyId>{id}</AccessKeyId><Status>Active</Status></member>");
                let members: String = self.keys_of(&name).iter().map(member).collect();
                format!("<AccessKeyMetadata>{members}</AccessKeyMetadata><IsTruncated>false</IsTruncated>")
            }
            "DeleteAccessKey" => {
                let key = self.keys.get_mut(&field("AccessKeyId")).filter(|key| key.deleted.is_none()).ok_or(ABSENT)?;
                key.deleted = Some(settle);
                String::new()
            }
            "DeleteUserPolicy" => {
                self.users.entry(name).or_default().policies.remove(&field("PolicyName")).ok_or(ABSENT)?;
                String::new()
            }
            "DeleteUser" => {
                let policies = self.users.get(&name).is_some_and(|user| !user.policies.is_empty());
                if policies || !self.keys_of(&name).is_empty() {
                    return Err((409, "DeleteConflict", "Cannot delete entity, must remove keys and policies first."));
                }
                self.users.remove(&name);
                String::new()
            }
            _ => return Err((400, "InvalidAction", "Could not find this operation.")),
        };
        let result = format!("<{action}Result>{body}</{action}Result>");
        Ok(Answer::ok(format!(
            "<{action}Response xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">{result}</{action}Response>"
        )))
    }

    fn create_key(&mut self, user: &str, settle: u64) -> Result<String, Refusal> {
        if self.keys_of(user).len() >= KEYS_MAX {
            return Err((409, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2"));
        }
        self.made += 1;
        let (id, secret) = (format!("AKIA{:016}", self.made), format!("secret/{}+{user}", self.made));
        let key = Key { user: user.to_owned(), secret: secret.clone(), unknown: settle, deleted: None };
        self.keys.insert(id.clone(), key);
        Ok(format!(
            "<AccessKey><UserName>{user}</UserName><AccessKeyId>{id}</AccessKeyId><Status>Active</Status><SecretAccessKey>{secret}</SecretAccessKey></AccessKey>"
        ))
    }
}
