//! Buckets: their configurations, the versions of their objects, and uploads in parts.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
};

use data_encoding::BASE64;
use md5::{Digest, Md5};

use super::{Answer, Call, Refusal, State};

/// Entries of one page of a listing, as S3 has it.
const PAGE: usize = 1_000;
/// Tags of a bucket.
const TAGS_MAX: usize = 50;

const NO_BUCKET: Refusal = (404, "NoSuchBucket", "The specified bucket does not exist");
const MALFORMED: Refusal = (400, "MalformedXML", "The XML you provided was not well-formed or did not validate.");

/// A version of an object: its id, and its bytes unless it marks a deletion.
pub type StoredVersion = (String, Option<Vec<u8>>);

/// A bucket as it is.
#[derive(Debug, Clone, Default)]
pub struct StoredBucket {
    /// The account that owns it; `""` is ours.
    pub owner: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its configurations as they were put: `publicAccessBlock`, `encryption`, `lifecycle`.
    pub configurations: BTreeMap<String, String>,
    /// Its policy.
    pub policy: Option<String>,
    /// Whether it keeps what is overwritten and deleted.
    pub versioned: bool,
    /// Key to versions, newest last.
    pub objects: BTreeMap<String, Vec<StoredVersion>>,
    /// Uploads in parts that nobody ended: id to key.
    pub uploads: BTreeMap<String, String>,
    /// Keys that cannot be deleted.
    pub locked: BTreeSet<String>,
    made: u64,
}

impl StoredBucket {
    /// Stores an object.
    pub fn put(&mut self, key: &str, bytes: &[u8]) {
        self.add(key, Some(bytes.to_vec()));
    }

    /// Every version of every object, deletions too.
    pub fn version_count(&self) -> usize {
        self.objects.values().map(Vec::len).sum()
    }

    fn add(&mut self, key: &str, bytes: Option<Vec<u8>>) {
        self.made += 1;
        let versions = self.objects.entry(key.to_owned()).or_default();
        let id = if self.versioned { format!("v{}", self.made) } else { "null".to_owned() };
        versions.retain(|(there, _)| *there != id);
        versions.push((id, bytes));
    }

    fn remove(&mut self, key: &str, version: Option<&str>) -> Result<(), Refusal> {
        if self.locked.contains(key) {
            return Err((403, "AccessDenied", "Access Denied because object protected by object lock."));
        }
        match version {
            None if self.versioned => self.add(key, None),
            None => drop(self.objects.remove(key)),
            Some(version) => {
                if let Some(versions) = self.objects.get_mut(key) {
                    versions.retain(|(there, _)| there != version);
                }
                self.objects.retain(|_, versions| !versions.is_empty());
            }
        }
        Ok(())
    }

    fn newest(&self, key: &str) -> Option<&[u8]> {
        self.objects.get(key)?.last()?.1.as_deref()
    }
}

/// The permission that a request needs.
pub(super) fn action(method: &str, path: &str, query: &BTreeMap<String, String>) -> String {
    let object = path.contains('/') && !path.ends_with('/');
    let has = |name: &str| query.contains_key(name);
    let configuration = [
        ("tagging", "BucketTagging"),
        ("publicAccessBlock", "BucketPublicAccessBlock"),
        ("encryption", "EncryptionConfiguration"),
        ("lifecycle", "LifecycleConfiguration"),
        ("policy", "BucketPolicy"),
        ("versioning", "BucketVersioning"),
    ];
    let name = match (method, object) {
        ("POST", _) if has("delete") => "DeleteObject".to_owned(),
        ("DELETE", true) if has("uploadId") => "AbortMultipartUpload".to_owned(),
        ("DELETE", true) if has("versionId") => "DeleteObjectVersion".to_owned(),
        ("DELETE", true) => "DeleteObject".to_owned(),
        ("PUT" | "POST", true) => "PutObject".to_owned(),
        (_, true) => "GetObject".to_owned(),
        (method, false) => {
            let found = configuration.iter().find(|(name, _)| has(name));
            match (found, method) {
                (Some((_, name)), "PUT" | "DELETE") => format!("Put{name}"),
                (Some((_, name)), _) => format!("Get{name}"),
                (None, "PUT") => "CreateBucket".to_owned(),
                (None, "DELETE") => "DeleteBucket".to_owned(),
                _ if has("location") => "GetBucketLocation".to_owned(),
                _ if has("versions") => "ListBucketVersions".to_owned(),
                _ if has("uploads") => "ListBucketMultipartUploads".to_owned(),
                _ => "ListBucket".to_owned(),
            }
        }
    };
    format!("s3:{name}")
}

impl State {
    /// Carries out a call of S3.
    pub(super) fn s3(&mut self, call: &Call<'_>, region: &str, page: usize) -> Result<Answer, Refusal> {
        checksum(call)?;
        if call.action == "s3:CreateBucket" {
            return self.create(call, region);
        }
        let page = if page == 0 { PAGE } else { page };
        let name = call.bucket();
        if climbs(call.key()) {
            return Err((400, "InvalidURI", "Couldn't parse the specified URI."));
        }
        let bucket = self.buckets.get_mut(name).ok_or(NO_BUCKET)?;
        match call.action.trim_start_matches("s3:") {
            "DeleteBucket" if !bucket.objects.is_empty() => {
                Err((409, "BucketNotEmpty", "The bucket you tried to delete is not empty"))
            }
            "DeleteBucket" => {
                self.buckets.remove(name);
                Ok(Answer::nothing())
            }
            "GetBucketLocation" => Ok(Answer::ok(format!("<LocationConstraint>{region}</LocationConstraint>"))),
            "ListBucketVersions" => Ok(versions(bucket, call, page)),
            "ListBucketMultipartUploads" => Ok(uploads(bucket, page)),
            "ListBucket" => Ok(list(bucket, call, page)),
            "DeleteObject" if call.query.contains_key("delete") => delete_many(bucket, &call.text(), page),
            "DeleteObject" | "DeleteObjectVersion" => {
                bucket.remove(call.key(), call.query.get("versionId").map(String::as_str))?;
                Ok(Answer::nothing())
            }
            "AbortMultipartUpload" => {
                let id = call.query.get("uploadId").map_or("", String::as_str);
                bucket.uploads.remove(id).ok_or((404, "NoSuchUpload", "The specified upload does not exist."))?;
                Ok(Answer::nothing())
            }
            "PutObject" => put(bucket, call),
            "GetObject" => get(bucket, call),
            action => configure(bucket, action, &call.text()),
        }
    }

    fn create(&mut self, call: &Call<'_>, region: &str) -> Result<Answer, Refusal> {
        let name = call.bucket();
        let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !(3..=63).contains(&name.len()) || !letters || name.starts_with('-') || name.ends_with('-') {
            return Err((400, "InvalidBucketName", "The specified bucket is not valid."));
        }
        let body = call.text();
        let place = between(&body, "<LocationConstraint>", "</LocationConstraint>").unwrap_or("us-east-1");
        if place != region {
            return Err((
                400,
                "IllegalLocationConstraintException",
                "The location constraint is wrong for this region.",
            ));
        }
        match self.buckets.get(name) {
            Some(there) if !there.owner.is_empty() => {
                Err((409, "BucketAlreadyExists", "The requested bucket name is not available."))
            }
            Some(_) if region != "us-east-1" => {
                Err((409, "BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded."))
            }
            Some(_) => Ok(Answer::ok("")),
            None => {
                self.buckets.insert(name.to_owned(), StoredBucket::default());
                Ok(Answer::ok(""))
            }
        }
    }
}

/// Whether the steps of a key lead out of its bucket, which S3 refuses in a path.
fn climbs(key: &str) -> bool {
    let mut depth = 1_i32;
    key.split('/').any(|segment| {
        depth += match segment {
            ".." => -1,
            "." | "" => 0,
            _ => 1,
        };
        depth < 0
    })
}

/// Configurations and deletions come with a checksum, and a checksum is true.
fn checksum(call: &Call<'_>) -> Result<(), Refusal> {
    let header = call.request.headers.get("content-md5");
    let other = call.request.headers.keys().any(|name| name.starts_with("x-amz-checksum-"));
    let needs = ["s3:PutLifecycleConfiguration", "s3:PutBucketTagging", "s3:PutBucketPublicAccessBlock"];
    let needs =
        (call.request.method == "PUT" && needs.contains(&call.action.as_str())) || call.query.contains_key("delete");
    match header {
        Some(header) if *header != BASE64.encode(&Md5::digest(&call.request.body)) => {
            Err((400, "BadDigest", "The Content-MD5 you specified did not match what we received."))
        }
        None if needs && !other => {
            Err((400, "InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"))
        }
        _ => Ok(()),
    }
}

fn configure(bucket: &mut StoredBucket, action: &str, body: &str) -> Result<Answer, Refusal> {
    match action {
        "GetBucketTagging" if bucket.tags.is_empty() => Err((404, "NoSuchTagSet", "The TagSet does not exist")),
        "GetBucketTagging" => {
            let tag = |(key, value): (&String, &String)| {
                format!("<Tag><Key>{}</Key><Value>{}</Value></Tag>", escaped(key), escaped(value))
            };
            let tags: String = bucket.tags.iter().map(tag).collect();
            Ok(Answer::ok(format!("<Tagging><TagSet>{tags}</TagSet></Tagging>")))
        }
        "PutBucketTagging" => {
            bucket.tags = tags(body)?;
            Ok(Answer::nothing())
        }
        "PutLifecycleConfiguration" => {
            for rule in body.split("<Rule>").skip(1) {
                let days = between(rule, "<Days>", "</Days>").map_or(Ok(1), str::parse::<u32>).unwrap_or(0);
                if days == 0 || !rule.contains("<Status>") || !rule.contains("Prefix>") {
                    return Err(MALFORMED);
                }
            }
            if !body.contains("<Rule>") {
                return Err(MALFORMED);
            }
            bucket.configurations.insert("lifecycle".to_owned(), body.to_owned());
            Ok(Answer::ok(""))
        }
        "PutBucketPolicy" => {
            if serde_json::from_str::<serde_json::Value>(body).is_err() {
                return Err((400, "MalformedPolicy", "Policies must be valid JSON."));
            }
            bucket.policy = Some(body.to_owned());
            Ok(Answer::nothing())
        }
        "PutBucketVersioning" => {
            bucket.versioned = body.contains("<Status>Enabled</Status>");
            Ok(Answer::ok(""))
        }
        "PutBucketPublicAccessBlock" | "PutEncryptionConfiguration" => {
            let (name, root) = match action {
                "PutEncryptionConfiguration" => ("encryption", "<ServerSideEncryptionConfiguration"),
                _ => ("publicAccessBlock", "<PublicAccessBlockConfiguration"),
            };
            if !body.contains(root) {
                return Err(MALFORMED);
            }
            bucket.configurations.insert(name.to_owned(), body.to_owned());
            Ok(Answer::ok(""))
        }
        _ => Err((
            501,
            "NotImplemented",
            "A header or query you provided implies functionality that is not implemented.",
        )),
    }
}

/// The tags of a document; no document has none.
fn tags(body: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut tags = BTreeMap::new();
    for tag in body.split("<Tag>").skip(1) {
        let key = between(tag, "<Key>", "</Key>").ok_or(MALFORMED)?;
        let value = between(tag, "<Value>", "</Value>").ok_or(MALFORMED)?;
        let fits = |text: &str| text.chars().all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c));
        if !fits(key) || !fits(value) || key.is_empty() || key.len() > 128 || value.len() > 256 {
            return Err((400, "InvalidTag", "The tag provided was not a valid tag."));
        }
        tags.insert(key.to_owned(), value.to_owned());
    }
    match tags.len() {
        0 if !body.is_empty() => Err(MALFORMED),
        count if count > TAGS_MAX => Err((400, "BadRequest", "Bucket tag count cannot be greater than 50")),
        _ => Ok(tags),
    }
}

fn put(bucket: &mut StoredBucket, call: &Call<'_>) -> Result<Answer, Refusal> {
    if call.query.contains_key("uploads") {
        bucket.made += 1;
        let id = format!("u{}", bucket.made);
        bucket.uploads.insert(id.clone(), call.key().to_owned());
        let body = format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
        return Ok(Answer::ok(body));
    }
    if call.request.headers.contains_key("if-none-match") && bucket.newest(call.key()).is_some() {
        return Err((412, "PreconditionFailed", "At least one of the preconditions you specified did not hold."));
    }
    bucket.put(call.key(), &call.request.body);
    Ok(Answer(200, "ETag: \"e\"\r\n".to_owned(), Vec::new()))
}

fn get(bucket: &StoredBucket, call: &Call<'_>) -> Result<Answer, Refusal> {
    let bytes = bucket.newest(call.key()).ok_or((404, "NoSuchKey", "The specified key does not exist."))?;
    let date = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: \"e\"\r\n";
    Ok(Answer(200, date.to_owned(), bytes.to_vec()))
}

/// Up to so many of `count` that a query asks for.
fn asked(call: &Call<'_>, page: usize) -> usize {
    call.query.get("max-keys").and_then(|count| count.parse().ok()).map_or(page, |count: usize| count.min(page))
}

fn versions(bucket: &StoredBucket, call: &Call<'_>, page: usize) -> Answer {
    let encoded = call.query.get("encoding-type").is_some_and(|encoding| encoding == "url");
    let all = bucket.objects.iter().flat_map(|(key, versions)| versions.iter().rev().map(move |one| (key, one)));
    let entries: String = all
        .take(asked(call, page))
        .map(|(key, (id, bytes))| {
            let element = if bytes.is_some() { "Version" } else { "DeleteMarker" };
            let key = if encoded { url_encoded(key) } else { escaped(key) };
            format!("<{element}><Key>{key}</Key><VersionId>{id}</VersionId></{element}>")
        })
        .collect();
    let encoding = if encoded { "<EncodingType>url</EncodingType>" } else { "" };
    let more = bucket.version_count() > asked(call, page);
    Answer::ok(format!("<ListVersionsResult><IsTruncated>{more}</IsTruncated>{encoding}{entries}</ListVersionsResult>"))
}

fn uploads(bucket: &StoredBucket, page: usize) -> Answer {
    let entry = |(id, key): (&String, &String)| {
        format!("<Upload><Key>{}</Key><UploadId>{id}</UploadId></Upload>", url_encoded(key))
    };
    let entries: String = bucket.uploads.iter().take(page).map(entry).collect();
    Answer::ok(format!(
        "<ListMultipartUploadsResult><EncodingType>url</EncodingType>{entries}</ListMultipartUploadsResult>"
    ))
}

/// One row of a listing: a key, or a folder that stands for all keys below it; and the last key that it stands for.
struct Row<'a> {
    shown: String,
    is_folder: bool,
    last: &'a str,
}

fn list(bucket: &StoredBucket, call: &Call<'_>, page: usize) -> Answer {
    let asked_for = |name: &str| call.query.get(name).map_or("", String::as_str);
    let (prefix, after, delimiter) = (asked_for("prefix"), asked_for("continuation-token"), asked_for("delimiter"));
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (key, _) in bucket.objects.range::<str, _>((Excluded(after), Unbounded)) {
        let (Some(rest), Some(bytes)) = (key.strip_prefix(prefix), bucket.newest(key)) else { continue };
        let folder = rest.find(delimiter).filter(|_| !delimiter.is_empty());
        let shown = match folder {
            Some(at) => {
                let folder = escaped(&key[..prefix.len() + at + delimiter.len()]);
                format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>")
            }
            None => format!(
                "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag><Size>{}</Size></Contents>",
                escaped(key),
                bytes.len()
            ),
        };
        match rows.last_mut() {
            Some(row) if row.is_folder && row.shown == shown => row.last = key,
            _ => rows.push(Row { shown, is_folder: folder.is_some(), last: key }),
        }
    }
    let count = rows.len().min(asked(call, page));
    let next = match &rows[..count] {
        [.., last] if count < rows.len() => {
            format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(last.last))
        }
        _ => String::new(),
    };
    let (more, entries) = (count < rows.len(), rows[..count].iter().map(|row| row.shown.as_str()).collect::<String>());
    Answer::ok(format!(
        "<ListBucketResult><IsTruncated>{more}</IsTruncated><KeyCount>{count}</KeyCount>{entries}{next}</ListBucketResult>"
    ))
}

fn delete_many(bucket: &mut StoredBucket, body: &str, page: usize) -> Result<Answer, Refusal> {
    let objects: Vec<&str> = body.split("<Object>").skip(1).collect();
    if objects.is_empty() || objects.len() > page.max(PAGE) {
        return Err(MALFORMED);
    }
    let quiet = body.contains("<Quiet>true</Quiet>");
    let mut entries = String::new();
    for object in objects {
        let key = plain(between(object, "<Key>", "</Key>").ok_or(MALFORMED)?);
        let version = between(object, "<VersionId>", "</VersionId>");
        let removed = bucket.remove(&key, version);
        let key = escaped(&key);
        match removed {
            Ok(()) if quiet => {}
            Ok(()) => entries.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>")),
            Err((_, code, message)) => entries
                .push_str(&format!("<Error><Key>{key}</Key><Code>{code}</Code><Message>{message}</Message></Error>")),
        }
    }
    Ok(Answer::ok(format!("<DeleteResult>{entries}</DeleteResult>")))
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(inner, _)| inner)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn plain(text: &str) -> String {
    let named = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    named.replace("&amp;", "&")
}

fn url_encoded(key: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(byte);
    key.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
