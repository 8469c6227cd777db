//! The keys of bindings: made once, kept sealed, tried before they are given away and after they were taken back.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;
use wire::{
    Problem,
    index_provisioner::{BindingDescription, IndexDescription},
};

use super::{MARK, S3, policy, sigv4::Signer, users::Users};
use crate::{
    backend::{refused, unavailable, unfinished},
    state::Binding,
};

/// The tag of a user that says whose its keys are.
const BINDING: &str = "osb-binding";
/// Looks at whether the server knows a change of keys already: 0.1 s apart at first, then twice as long each time, 12.7 s together.
const LOOKS_MAX: u32 = 8;
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// The names of what is kept sealed, which are those of the credentials too.
const KEY_ID: &str = "s3_access_key_id";
const SECRET: &str = "s3_secret_access_key";

/// What is kept sealed of a binding.
struct Kept {
    key_id: String,
    secret: String,
}

impl S3 {
    pub(super) async fn issue_key(
        &self,
        index: &IndexDescription,
        binding: &Binding,
    ) -> Result<BTreeMap<String, String>, Problem> {
        let Some(users) = &self.users else {
            return Err(refused(
                "this S3 server has no users of its own (index_provisioner.s3.iam is off), so no binding can have a key",
            ));
        };
        let there = &binding.description;
        let (bucket, user) = (self.bucket(index)?, policy::user(&there.binding, there.created));
        let kept = self.kept(there).await?;
        if let Some(kept) = &kept
            && self.buckets.lets_in(&bucket, &self.signer(kept)).await?
        {
            return Ok(self.values(&bucket, kept));
        }
        let kept = self.make_key(users, &bucket, &user, binding, kept).await?;
        if !self.becomes(&bucket, &kept, true).await? {
            return Err(unfinished(format_args!("the S3 server does not know the new key of {} yet", there.binding)));
        }
        Ok(self.values(&bucket, &kept))
    }

    /// Makes the user with its policy and its one key; a key whose secret was lost with an answer goes.
    async fn make_key(
        &self,
        users: &Users,
        bucket: &str,
        user: &str,
        binding: &Binding,
        kept: Option<Kept>,
    ) -> Result<Kept, Problem> {
        let there = &binding.description;
        users.create(user, &[(MARK, there.instance.as_str()), (BINDING, there.binding.as_str())]).await?;
        users.allow(user, policy::of_user(&self.buckets.signer.region, bucket, there)).await?;
        let known = users.keys(user).await?;
        if let Some(kept) = kept
            && known.contains(&kept.key_id)
        {
            return Ok(kept);
        }
        for lost in known {
            users.delete_key(user, &lost).await?;
        }
        let made = users.create_key(user).await.map_err(|error| match error.code() {
            // Keys that the list did not show yet: the next attempt sees and deletes them.
            "LimitExceeded" => unfinished(error),
            _ => error.into(),
        })?;
        let kept = Kept { key_id: made.access_key_id, secret: made.secret_access_key };
        let values = [(KEY_ID, &kept.key_id), (SECRET, &kept.secret)];
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        self.sealed.put(there, &values).await?;
        Ok(kept)
    }

    pub(super) async fn revoke_keys(&self, index: &IndexDescription, bindings: &[Binding]) -> Result<(), Problem> {
        let Some(users) = &self.users else { return Ok(()) };
        let bucket = self.bucket(index)?;
        // All are deleted before the first is waited for: the server learns of all of them at the same time.
        for Binding { description, .. } in bindings {
            users.delete(&policy::user(&description.binding, description.created)).await?;
        }
        for Binding { description, .. } in bindings {
            let binding = &description.binding;
            match self.kept(description).await {
                Ok(Some(kept)) if !self.becomes(&bucket, &kept, false).await? => {
                    return Err(unfinished(format_args!("the S3 server still takes the deleted key of {binding}")));
                }
                Ok(_) => {}
                // Its user is gone with every key; only nobody can try whether the server knows that yet.
                Err(problem) => tracing::warn!(%binding, %problem, "key of a revoked binding cannot be tried"),
            }
            self.sealed.delete(description).await?;
        }
        Ok(())
    }

    /// Waits until the key opens the bucket, or does not any more; whether it came to that.
    async fn becomes(&self, bucket: &str, kept: &Kept, open: bool) -> Result<bool, Problem> {
        let key = self.signer(kept);
        for look in 0..LOOKS_MAX {
            let opens = match self.buckets.lets_in(bucket, &key).await {
                // The key passed, and there is nothing behind the door.
                Err(error) if error.is_absent() && !open => true,
                other => other?,
            };
            if opens == open {
                return Ok(true);
            }
            if look + 1 < LOOKS_MAX {
                sleep(LOOK_AFTER * (1 << look)).await;
            }
        }
        Ok(false)
    }

    async fn kept(&self, binding: &BindingDescription) -> Result<Option<Kept>, Problem> {
        let Some(mut values) = self.sealed.get(binding).await? else { return Ok(None) };
        let mut take = |name| values.remove(name);
        match (take(KEY_ID), take(SECRET)) {
            (Some(key_id), Some(secret)) => Ok(Some(Kept { key_id, secret })),
            _ => Err(unavailable(format_args!("what is kept sealed of {} is no key", binding.binding))),
        }
    }

    fn signer(&self, kept: &Kept) -> Signer {
        Signer { key_id: kept.key_id.clone(), secret: kept.secret.clone(), ..self.buckets.signer.clone() }
    }

    fn values(&self, bucket: &str, kept: &Kept) -> BTreeMap<String, String> {
        let mut values: BTreeMap<String, String> = [
            ("s3_endpoint", self.buckets.http.url()),
            ("s3_region", &self.buckets.signer.region),
            ("s3_bucket", bucket),
            (KEY_ID, &kept.key_id),
            (SECRET, &kept.secret),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        if let Some(ca) = &self.ca {
            values.insert("ca_cert".to_owned(), ca.clone());
        }
        values
    }
}
