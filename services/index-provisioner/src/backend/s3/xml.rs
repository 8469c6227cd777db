//! The documents of S3 and IAM: what is read of answers, and what is written. Pure.

use std::collections::BTreeMap;

use quick_xml::{de, escape::escape};
use serde::{Deserialize, de::DeserializeOwned};

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
const SPACE: &str = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

/// Days after which an upload that nobody ended is removed.
const UPLOAD_DAYS: u32 = 7;

/// Reads a document.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    de::from_str(text).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wrapped {
    error: Refusal,
}

/// Code and message of a refusal: S3 has them at the top, IAM inside of `ErrorResponse`.
pub(super) fn refusal(body: &[u8]) -> Option<(String, String)> {
    let found = read::<Wrapped>(body).map(|wrapped| wrapped.error).or_else(|_| read::<Refusal>(body)).ok()?;
    (!found.code.is_empty()).then_some((found.code, found.message))
}

/// Tags of a bucket.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tagging {
    #[serde(default)]
    tag_set: TagSet,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagSet {
    #[serde(default)]
    tag: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

impl From<Tagging> for BTreeMap<String, String> {
    fn from(tagging: Tagging) -> Self {
        tagging.tag_set.tag.into_iter().map(|tag| (tag.key, tag.value)).collect()
    }
}

/// One version of an object, or the mark that it was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    pub(super) key: String,
    #[serde(default)]
    pub(super) version_id: String,
}

/// A page of versions.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Versions {
    #[serde(default)]
    version: Vec<Version>,
    #[serde(default)]
    delete_marker: Vec<Version>,
    #[serde(default)]
    encoding_type: String,
}

impl Versions {
    /// Every version and mark with its key as it is.
    pub(super) fn all(self) -> Vec<Version> {
        let encoded = self.encoding_type == "url";
        let all = self.version.into_iter().chain(self.delete_marker);
        all.map(|version| if encoded { Version { key: decoded(&version.key), ..version } } else { version }).collect()
    }
}

/// A multipart upload that nobody ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) upload_id: String,
}

/// A page of uploads.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Uploads {
    #[serde(default)]
    upload: Vec<Upload>,
    #[serde(default)]
    encoding_type: String,
}

impl Uploads {
    /// Every upload with its key as it is.
    pub(super) fn all(self) -> Vec<Upload> {
        let encoded = self.encoding_type == "url";
        let all = self.upload.into_iter();
        all.map(|upload| if encoded { Upload { key: decoded(&upload.key), ..upload } } else { upload }).collect()
    }
}

/// What could not be deleted.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Deleted {
    #[serde(default, rename = "Error")]
    pub(super) errors: Vec<Undeleted>,
}

/// One object that could not be deleted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Undeleted {
    #[serde(default)]
    pub(super) code: String,
}

/// Answer of `CreateAccessKey`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KeyCreated {
    pub(super) create_access_key_result: KeyResult,
}

/// Its inner part.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KeyResult {
    pub(super) access_key: NewKey,
}

/// A new access key.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NewKey {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
}

/// Answer of `ListAccessKeys`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KeysListed {
    #[serde(default)]
    list_access_keys_result: KeysResult,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeysResult {
    #[serde(default)]
    access_key_metadata: KeyMembers,
}

#[derive(Debug, Default, Deserialize)]
struct KeyMembers {
    #[serde(default)]
    member: Vec<KeyMember>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyMember {
    access_key_id: String,
}

impl KeysListed {
    /// Their ids.
    pub(super) fn ids(self) -> Vec<String> {
        self.list_access_keys_result.access_key_metadata.member.into_iter().map(|key| key.access_key_id).collect()
    }
}

/// Where a new bucket is; `us-east-1` is said by saying nothing.
pub(super) fn location(region: &str) -> String {
    if region == "us-east-1" {
        return String::new();
    }
    let place = escape(region);
    format!(
        "{HEAD}<CreateBucketConfiguration {SPACE}><LocationConstraint>{place}</LocationConstraint></CreateBucketConfiguration>"
    )
}

/// Nobody reaches the bucket without a key, whatever policies and lists say later.
pub(super) fn public_access_block() -> String {
    let all = ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"];
    let all: String = all.iter().map(|name| format!("<{name}>true</{name}>")).collect();
    format!("{HEAD}<PublicAccessBlockConfiguration {SPACE}>{all}</PublicAccessBlockConfiguration>")
}

/// Objects are encrypted with keys of the server.
pub(super) fn encryption() -> String {
    format!(
        "{HEAD}<ServerSideEncryptionConfiguration {SPACE}><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
    )
}

/// What is removed by itself, and when.
pub(super) fn lifecycle(retention_days: Option<u32>) -> String {
    let rule = |id: &str, what: &str| {
        format!("<Rule><ID>{id}</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>{what}</Rule>")
    };
    let retention = retention_days.map(|days| {
        let days = format!(
            "<Expiration><Days>{days}</Days></Expiration><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>"
        );
        rule("logboom-retention", &days)
    });
    let uploads = format!(
        "<AbortIncompleteMultipartUpload><DaysAfterInitiation>{UPLOAD_DAYS}</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
    );
    let uploads = rule("logboom-uploads", &uploads);
    format!("{HEAD}<LifecycleConfiguration {SPACE}>{}{uploads}</LifecycleConfiguration>", retention.unwrap_or_default())
}

/// The tags of a bucket, all of them.
pub(super) fn tagging(tags: &BTreeMap<String, String>) -> String {
    let tags: String = tags
        .iter()
        .map(|(key, value)| format!("<Tag><Key>{}</Key><Value>{}</Value></Tag>", escape(key), escape(value)))
        .collect();
    format!("{HEAD}<Tagging {SPACE}><TagSet>{tags}</TagSet></Tagging>")
}

/// What is to be deleted; only failures are answered.
pub(super) fn delete(versions: &[Version]) -> String {
    let objects: String = versions
        .iter()
        .map(|one| {
            let version = match one.version_id.as_str() {
                "" => String::new(),
                id => format!("<VersionId>{}</VersionId>", escape(id)),
            };
            format!("<Object><Key>{}</Key>{version}</Object>", escape(&one.key))
        })
        .collect();
    format!("{HEAD}<Delete {SPACE}><Quiet>true</Quiet>{objects}</Delete>")
}

/// Whether a key can stand in a document at all: XML has no place for most control characters.
pub(super) fn can_say(key: &str) -> bool {
    !key.chars().any(|c| c.is_control() || c == '\u{fffe}' || c == '\u{ffff}')
}

/// Percent signs and pluses resolved.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_both_shapes_are_understood_and_others_are_none() {
        let s3 = "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>gone</Message><BucketName>b</BucketName></Error>";
        let iam = "<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>no</Message></Error><RequestId>1</RequestId></ErrorResponse>";
        assert_eq!(refusal(s3.as_bytes()), Some(("NoSuchBucket".into(), "gone".into())));
        assert_eq!(refusal(iam.as_bytes()), Some(("NoSuchEntity".into(), "no".into())));
        for other in ["", "<html><body>Bad Gateway</body></html>", "{\"error\":1}", "<Error/>", "\u{0}"] {
            assert_eq!(refusal(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn versions_and_marks_are_read_in_any_order_with_their_keys_as_they_are() {
        let page = "<ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><EncodingType>url</EncodingType>\
            <Version><Key>a%20b+c%2F%C3%BC</Key><VersionId>1</VersionId><IsLatest>true</IsLatest><Owner><ID>x</ID></Owner></Version>\
            <DeleteMarker><Key>d</Key><VersionId>2</VersionId></DeleteMarker><Version><Key>e</Key><VersionId>null</VersionId></Version>\
            </ListVersionsResult>";
        let found = read::<Versions>(page.as_bytes()).unwrap().all();
        let found: Vec<_> = found.iter().map(|one| (one.key.as_str(), one.version_id.as_str())).collect();
        assert_eq!(found, [("a b c/ü", "1"), ("e", "null"), ("d", "2")]);
        let plain = "<ListVersionsResult><Version><Key>a%20b</Key></Version></ListVersionsResult>";
        assert_eq!(read::<Versions>(plain.as_bytes()).unwrap().all()[0].key, "a%20b");
    }

    #[test]
    fn what_is_written_reads_back() {
        let tags = BTreeMap::from([("a&b".to_owned(), "<1>".to_owned()), ("c".to_owned(), "2".to_owned())]);
        assert_eq!(BTreeMap::from(read::<Tagging>(tagging(&tags).as_bytes()).unwrap()), tags);
        assert!(lifecycle(Some(30)).contains("<Expiration><Days>30</Days>"));
        assert!(!lifecycle(None).contains("<Expiration>") && lifecycle(None).contains("logboom-uploads"));
        assert_eq!(location("us-east-1"), "");
        assert!(location("eu-central-1").contains(">eu-central-1<"));
        let named = Version { key: "<&>".into(), version_id: "v".into() };
        assert!(delete(&[named]).contains("<Key>&lt;&amp;&gt;</Key><VersionId>v</VersionId>"));
        assert!(can_say("ü/ a") && !can_say("a\u{1}b"));
    }

    #[test]
    fn keys_of_users_are_read() {
        let none = "<ListAccessKeysResponse><ListAccessKeysResult><UserName>u</UserName><AccessKeyMetadata></AccessKeyMetadata></ListAccessKeysResult></ListAccessKeysResponse>";
        let two = none.replace(
            "<AccessKeyMetadata>",
            "<AccessKeyMetadata><member><AccessKeyId>A</AccessKeyId><Status>Active</Status></member><member><AccessKeyId>B</AccessKeyId></member>",
        );
        assert!(read::<KeysListed>(none.as_bytes()).unwrap().ids().is_empty());
        assert_eq!(read::<KeysListed>(two.as_bytes()).unwrap().ids(), ["A", "B"]);
    }
}
