//! What things are called and who may do what. Pure.

use serde_json::{Value, json};
use types::{BindingId, IndexName, Timestamp};
use wire::{index_provisioner::BindingDescription, views::Role};

use super::sigv4;

/// Names of buckets have so many characters.
const BUCKET_CHARS: std::ops::RangeInclusive<usize> = 3..=63;
/// What the name of no bucket begins with: S3 keeps these to itself.
const RESERVED_BEGINNINGS: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
/// What the name of no bucket ends with.
const RESERVED_ENDS: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/// The name of the bucket of an index.
///
/// Errors: a name that S3 does not take, and which of its rules it breaks.
/// Source: AWS, "General purpose bucket naming rules"; dots are left out, which TLS to AWS does not take.
pub(super) fn bucket(prefix: &str, index: &IndexName) -> Result<String, String> {
    let name = format!("{prefix}{index}");
    let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let rule = if !BUCKET_CHARS.contains(&name.len()) {
        let room = BUCKET_CHARS.end().saturating_sub(prefix.len());
        format!("has {} characters, of 3 to 63 that are possible: the name of the index may have {room}", name.len())
    } else if let Some(bad) = name.chars().find(|c| !outer(*c) && *c != '-') {
        format!("has a {bad:?}: only a-z, 0-9 and - are possible")
    } else if !name.starts_with(outer) || !name.ends_with(outer) {
        "does not begin and end with a letter or a digit".to_owned()
    } else if let Some(begin) = RESERVED_BEGINNINGS.iter().find(|begin| name.starts_with(**begin)) {
        format!("begins with {begin}, which S3 keeps to itself")
    } else if let Some(end) = RESERVED_ENDS.iter().find(|end| name.ends_with(**end)) {
        format!("ends with {end}, which S3 keeps to itself")
    } else {
        return Ok(name);
    };
    Err(format!("index {index} would have the bucket {name:?}, which {rule}; choose another index name"))
}

/// The name of the user of a binding: another one for every issue, so that what is being deleted never comes back to life.
pub(super) fn user(binding: &BindingId, issued: Timestamp) -> String {
    format!("lb-{}", &sigv4::sha256(format!("{binding}/{}", issued.nanos()).as_bytes())[..32])
}

/// The part of a resource name that says in which of AWS's worlds a region is.
fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

fn arn(region: &str, bucket: &str) -> String {
    format!("arn:{}:s3:::{bucket}", partition(region))
}

/// What the user of a binding may do, until the binding ends.
///
/// Every role may ask for the bucket's location: so a key can be tried without touching an object.
pub(super) fn of_user(region: &str, bucket: &str, binding: &BindingDescription) -> String {
    let (write, read) = (
        ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"].as_slice(),
        ["s3:GetObject", "s3:GetObjectVersion"].as_slice(),
    );
    let delete = ["s3:DeleteObject", "s3:DeleteObjectVersion"].as_slice();
    let (look, list) = ("s3:GetBucketLocation", ["s3:ListBucket", "s3:ListBucketVersions"].as_slice());
    let uploads = ["s3:ListBucketMultipartUploads"].as_slice();
    let (of_bucket, of_objects) = match binding.role {
        Role::Write => (uploads.to_vec(), write.to_vec()),
        Role::Read => (list.to_vec(), read.to_vec()),
        Role::Admin => ([uploads, list].concat(), [write, read, delete].concat()),
    };
    let of_bucket = [vec![look], of_bucket].concat();
    let arn = arn(region, bucket);
    let mut statements = vec![
        json!({ "Sid": "Bucket", "Effect": "Allow", "Action": of_bucket, "Resource": arn }),
        json!({ "Sid": "Objects", "Effect": "Allow", "Action": of_objects, "Resource": format!("{arn}/*") }),
    ];
    // The server ends it in time even if nobody is there to revoke it.
    if let Some(end) = binding.expires.and_then(day_time) {
        for statement in &mut statements {
            statement["Condition"] = json!({ "DateLessThan": { "aws:CurrentTime": end } });
        }
    }
    document(&statements)
}

/// Nobody uses the bucket over a connection that others can read.
pub(super) fn of_bucket(region: &str, bucket: &str) -> String {
    let arn = arn(region, bucket);
    document(&[json!({
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, format!("{arn}/*")],
        "Condition": { "Bool": { "aws:SecureTransport": "false" } },
    })])
}

fn document(statements: &[Value]) -> String {
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}

/// `yyyy-mm-ddThh:mm:ssZ`.
fn day_time(at: Timestamp) -> Option<String> {
    let at = jiff::Timestamp::from_nanosecond(i128::from(at.nanos())).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(role: Role, expires: Option<Timestamp>) -> BindingDescription {
        BindingDescription {
            binding: "b".parse().unwrap(),
            instance: "i".parse().unwrap(),
            index: "shop".parse().unwrap(),
            role,
            created: Timestamp::from_millis(1),
            expires,
        }
    }

    #[test]
    fn only_names_that_s3_takes_become_buckets() {
        let (longest, long) = ("x".repeat(60), "x".repeat(61));
        for (prefix, index, broken) in [
            ("lb-", "shop", None),
            ("lb-", "ix-0123456789abcdef", None),
            ("lb-", &longest, None),
            ("a", "b1", None),
            ("lb-", "x-s3", None),
            ("lb-", &long, Some("may have 60")),
            ("a", "b", Some("3 to 63")),
            ("lb-", "a_b", Some("'_'")),
            ("lb-", "a-", Some("begin and end")),
            ("lb-", "a-s3alias", Some("ends with -s3alias")),
            ("lb-", "a--x-s3", Some("ends with --x-s3")),
            ("xn--", "a", Some("begins with xn--")),
            ("sthree-", "a", Some("begins with sthree-")),
        ] {
            let found = bucket(prefix, &index.parse().unwrap());
            match broken {
                None => assert!(found.is_ok(), "{found:?}"),
                Some(rule) => assert!(found.as_ref().is_err_and(|said| said.contains(rule)), "{found:?}"),
            }
        }
        assert_eq!(bucket("lb-", &"shop".parse().unwrap()).unwrap(), "lb-shop");
    }

    #[test]
    fn a_binding_id_that_is_used_again_is_another_user() {
        let id: BindingId = "x".repeat(128).parse().unwrap();
        let first = user(&id, Timestamp::from_nanos(1));
        assert_ne!(first, user(&id, Timestamp::from_nanos(2)));
        assert_eq!(first, user(&id, Timestamp::from_nanos(1)));
        assert!(first.len() <= 64);
    }

    #[test]
    fn roles_allow_what_they_say_and_nothing_of_other_buckets() {
        let allows = |role, action: &str| of_user("eu-central-1", "lb-shop", &binding(role, None)).contains(action);
        for (action, roles) in [
            ("\"s3:PutObject\"", [true, false, true]),
            ("\"s3:GetObject\"", [false, true, true]),
            ("\"s3:ListBucket\"", [false, true, true]),
            ("\"s3:DeleteObject\"", [false, false, true]),
            ("\"s3:GetBucketLocation\"", [true, true, true]),
            ("s3:*", [false, false, false]),
            ("PutBucketPolicy", [false, false, false]),
        ] {
            assert_eq!([Role::Write, Role::Read, Role::Admin].map(|role| allows(role, action)), roles, "{action}");
        }
        let text: Value = serde_json::from_str(&of_user("cn-north-1", "b", &binding(Role::Read, None))).unwrap();
        let resources: Vec<_> = text["Statement"].as_array().unwrap().iter().map(|one| &one["Resource"]).collect();
        assert_eq!(resources, ["arn:aws-cn:s3:::b", "arn:aws-cn:s3:::b/*"]);
    }

    #[test]
    fn every_statement_of_a_binding_with_an_end_ends_with_it() {
        let end = Timestamp::from_millis(1_700_000_060_123);
        let text: Value = serde_json::from_str(&of_user("us-east-1", "b", &binding(Role::Admin, Some(end)))).unwrap();
        for statement in text["Statement"].as_array().unwrap() {
            assert_eq!(statement["Condition"]["DateLessThan"]["aws:CurrentTime"], "2023-11-14T22:14:20Z");
        }
    }
}
