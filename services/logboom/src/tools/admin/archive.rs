//! An export as it lies in a folder: what was planned, what was copied, and how it is known to be whole.
//!
//! - `export.json` is written first: stream, segments and offsets that the export will hold.
//! - `chunks/<segment>/<from>-<to>.parquet`: the events, in the form of any chunk.
//! - `manifest.json` is written last and makes the export complete: every file with its checksum.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::{Objects, Put};
use tls::Tls;
use types::{KeyRange, Offset, SegmentId, Timestamp};
use wire::coordinator::StreamDescription;

const FORMAT: &str = "logboom-export";
/// It grows with a form that older programs would misread.
const VERSION: u32 = 1;
const PLAN: &str = "export.json";
const MANIFEST: &str = "manifest.json";
const CHUNKS: &str = "chunks/";

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) format: String,
    pub(super) version: u32,
    /// When the cut was taken.
    pub(super) taken: Timestamp,
    /// The stream at that time.
    pub(super) stream: StreamDescription,
    /// When epochs were opened, as far as it is known.
    pub(super) opened: BTreeMap<u32, Timestamp>,
    /// Only events of about this time.
    #[serde(default)]
    pub(super) window: Window,
    pub(super) segments: Vec<Planned>,
}

/// A part of event time; chunks that touch it are taken whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    /// The first time.
    pub(super) from: Option<Timestamp>,
    /// The time after the last.
    pub(super) until: Option<Timestamp>,
}

/// A segment of an export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) segment: SegmentId,
    pub(super) range: KeyRange,
    /// Whether it took appends no more.
    pub(super) sealed: bool,
    /// The first offset.
    pub(super) start: Offset,
    /// The offset after the last.
    pub(super) end: Offset,
    /// Payload bytes of its events, about.
    pub(super) bytes: u64,
}

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copied {
    pub(super) file: String,
    pub(super) segment: SegmentId,
    pub(super) from: Offset,
    pub(super) to: Offset,
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
    pub(super) time_min: Timestamp,
    pub(super) time_max: Timestamp,
}

/// What makes an export complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Checksum of `export.json`.
    pub(super) plan_crc32c: u32,
    /// By segment and offset.
    pub(super) files: Vec<Copied>,
    /// Checksum of the files' list.
    pub(super) crc32c: u32,
}

/// An export, or the place for one.
pub(super) struct Archive {
    pub(super) objects: Objects,
}

impl Archive {
    /// A folder, or `s3://bucket/prefix` on a server that the authorities of `tls` or the system vouch for.
    pub(super) fn open(place: &str, tls: &Tls) -> anyhow::Result<Self> {
        let url = if place.contains("://") {
            place.to_owned()
        } else {
            std::path::absolute(place).with_context(|| format!("{place} is no folder"))?.display().to_string()
        };
        Ok(Self { objects: Objects::open_trusting(&url, tls.outward())? })
    }

    pub(super) fn place(&self) -> &str {
        self.objects.location()
    }

    /// What was planned here; `None` in an empty folder.
    pub(super) async fn plan(&self) -> anyhow::Result<Option<Plan>> {
        let Some(bytes) = self.get(PLAN).await? else {
            let place = self.place();
            let other = self.objects.list("", 1).await?;
            ensure!(other.is_empty(), "{place} holds something else than an export: choose an empty folder");
            return Ok(None);
        };
        self.read_plan(&bytes).map(Some)
    }

    fn read_plan(&self, bytes: &Bytes) -> anyhow::Result<Plan> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let place = self.place();
        let head: Head = self.parse(PLAN, bytes)?;
        ensure!(head.format == FORMAT, "{place} is no export of Logboom: its {PLAN} says {:?}", head.format);
        let found = head.version;
        ensure!(
            (1..=VERSION).contains(&found),
            "{place} has version {found}, this program knows up to {VERSION}: upgrade it"
        );
        self.parse(PLAN, bytes)
    }

    /// Writes the plan of a new export.
    pub(super) async fn begin(&self, plan: &Plan) -> anyhow::Result<()> {
        let put = self.objects.put_if_absent(PLAN, serde_json::to_vec_pretty(plan)?.into()).await?;
        ensure!(put == Put::Stored, "another export to {} has begun meanwhile: run this again", self.place());
        Ok(())
    }

    /// A complete export; says what is missing of any other.
    pub(super) async fn read(&self) -> anyhow::Result<(Plan, Manifest)> {
        let place = self.place();
        let Some(bytes) = self.get(PLAN).await? else {
            bail!("{place} holds no export: it has no {PLAN}");
        };
        let plan = self.read_plan(&bytes)?;
        let Some(manifest) = self.manifest().await? else {
            bail!(
                "{place} holds half an export of index {index}: it has no {MANIFEST}; `logboom admin export {index} --to {place}` \
                 goes on with it",
                index = plan.stream.index
            );
        };
        let found = crc32c::crc32c(&bytes);
        ensure!(
            found == manifest.plan_crc32c,
            "{place}/{PLAN} was changed after the export: its checksum is {found:08x}"
        );
        check_cover(&plan, &manifest)?;
        Ok((plan, manifest))
    }

    /// The manifest; `None` while the export is not complete.
    pub(super) async fn manifest(&self) -> anyhow::Result<Option<Manifest>> {
        let Some(bytes) = self.get(MANIFEST).await? else { return Ok(None) };
        let manifest: Manifest = self.parse(MANIFEST, &bytes)?;
        let whole = sum(&manifest.files)? == manifest.crc32c;
        ensure!(whole, "{}/{MANIFEST} is damaged: its checksum is another one", self.place());
        Ok(Some(manifest))
    }

    /// Makes the export complete.
    pub(super) async fn complete(&self, files: Vec<Copied>) -> anyhow::Result<Manifest> {
        let plan = self.get(PLAN).await?.with_context(|| format!("{}/{PLAN} is gone", self.place()))?;
        let manifest = Manifest { plan_crc32c: crc32c::crc32c(&plan), crc32c: sum(&files)?, files };
        check_cover(&self.read_plan(&plan)?, &manifest)?;
        self.objects.put_if_absent(MANIFEST, serde_json::to_vec_pretty(&manifest)?.into()).await?;
        Ok(manifest)
    }

    /// A file of the export, if it is what the manifest says.
    pub(super) async fn file(&self, copied: &Copied) -> anyhow::Result<Bytes> {
        let name = format!("{}/{}", self.place(), copied.file);
        let Some(bytes) = self.get(&copied.file).await? else { bail!("{name} is missing in the export") };
        let (found, length) = (crc32c::crc32c(&bytes), bytes.len() as u64);
        ensure!(
            (found, length) == (copied.crc32c, copied.bytes),
            "{name} is damaged: {length} bytes with checksum {found:08x} instead of {} with {:08x}",
            copied.bytes,
            copied.crc32c
        );
        Ok(bytes)
    }

    pub(super) async fn get(&self, key: &str) -> anyhow::Result<Option<Bytes>> {
        match self.objects.get(key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn parse<T: DeserializeOwned>(&self, name: &str, bytes: &Bytes) -> anyhow::Result<T> {
        serde_json::from_slice(bytes).with_context(|| format!("{}/{name} cannot be read", self.place()))
    }
}

/// The folder of a segment's files.
pub(super) fn folder(segment: SegmentId) -> String {
    chunk::copies_of(CHUNKS, segment)
}

/// The name of a file.
pub(super) fn file_name(segment: SegmentId, from: Offset, to: Offset) -> String {
    folder(segment) + &chunk::copy_name(from, to)
}

fn sum(files: &[Copied]) -> anyhow::Result<u32> {
    Ok(crc32c::crc32c(&serde_json::to_vec(files)?))
}

/// Whether the files hold exactly what was planned.
fn check_cover(plan: &Plan, manifest: &Manifest) -> anyhow::Result<()> {
    let mut files = manifest.files.iter().peekable();
    for planned in &plan.segments {
        let mut next = planned.start;
        while let Some(file) = files.next_if(|file| file.segment == planned.segment) {
            ensure!(file.from == next && file.to > next, "{} stands where offset {next} belongs", file.file);
            next = file.to;
        }
        let (segment, end) = (planned.segment, planned.end);
        ensure!(next == end, "the export of segment {segment} ends at {next} instead of {end}");
    }
    match files.next() {
        Some(file) => bail!("{} is of no segment of the export", file.file),
        None => Ok(()),
    }
}

impl Plan {
    pub(super) fn new(
        taken: Timestamp,
        stream: StreamDescription,
        opened: BTreeMap<u32, Timestamp>,
        window: Window,
        segments: Vec<Planned>,
    ) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, taken, stream, opened, window, segments }
    }
}

#[cfg(test)]
mod tests {
    use tls::Files;

    use super::*;

    fn plan() -> Plan {
        let segment = SegmentId { stream: 3, epoch: 0, number: 0 };
        let range = KeyRange::split_evenly(1)[0];
        let created = Timestamp::from_nanos(1);
        let stream = StreamDescription::new((3, created), "team".parse().unwrap(), "shop".parse().unwrap(), Vec::new());
        let planned = Planned { segment, range, sealed: false, start: 5, end: 9, bytes: 40 };
        Plan::new(created, stream, BTreeMap::new(), Window::default(), vec![planned])
    }

    fn copied(from: Offset, to: Offset, bytes: &'static [u8]) -> Copied {
        let segment = plan().segments[0].segment;
        Copied {
            file: file_name(segment, from, to),
            segment,
            from,
            to,
            bytes: bytes.len() as u64,
            crc32c: crc32c::crc32c(bytes),
            time_min: Timestamp::MIN,
            time_max: Timestamp::MAX,
        }
    }

    fn said<T>(result: anyhow::Result<T>) -> String {
        format!("{:#}", result.err().expect("it is refused"))
    }

    #[tokio::test]
    async fn an_export_is_complete_or_says_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(dir.path().to_str().unwrap(), &Tls::open(Files::default()).unwrap()).unwrap();
        assert_eq!(archive.plan().await.unwrap(), None);
        assert!(said(archive.read().await).contains("no export"));
        archive.begin(&plan()).await.unwrap();
        assert_eq!(archive.plan().await.unwrap(), Some(plan()));
        assert!(said(archive.begin(&plan()).await).contains("meanwhile"));
        assert!(said(archive.read().await).contains("half an export of index shop"));
        let short = vec![copied(5, 7, b"a")];
        assert!(said(archive.complete(short).await).contains("ends at 7 instead of 9"));
        archive.complete(vec![copied(5, 7, b"a"), copied(7, 9, b"bc")]).await.unwrap();
        let (read, manifest) = archive.read().await.unwrap();
        assert_eq!((read, manifest.files.len()), (plan(), 2));
        assert!(said(archive.file(&manifest.files[0]).await).contains("missing"));
        archive.objects.put_if_absent(&manifest.files[0].file, Bytes::from_static(b"x")).await.unwrap();
        assert!(said(archive.file(&manifest.files[0]).await).contains("damaged"));
        archive.objects.put_if_absent(&manifest.files[1].file, Bytes::from_static(b"bc")).await.unwrap();
        assert_eq!(archive.file(&manifest.files[1]).await.unwrap(), "bc");
    }

    #[tokio::test]
    async fn what_is_foreign_or_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
        let archive = Archive::open(dir.path().to_str().unwrap(), &Tls::open(Files::default()).unwrap()).unwrap();
        assert!(said(archive.plan().await).contains("something else"));
        for (text, why) in [
            (r#"{"format":"other","version":1}"#, "no export of Logboom"),
            (r#"{"format":"logboom-export","version":2}"#, "upgrade"),
            (r#"{"format":"logboom-export","version":1}"#, "cannot be read"),
            ("rubbish", "cannot be read"),
        ] {
            std::fs::write(dir.path().join(PLAN), text).unwrap();
            assert!(said(archive.plan().await).contains(why), "{text}");
        }
        std::fs::remove_file(dir.path().join(PLAN)).unwrap();
        archive.begin(&plan()).await.unwrap();
        archive.complete(vec![copied(5, 9, b"a")]).await.unwrap();
        let path = dir.path().join(MANIFEST);
        let manifest = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, manifest.replace("\"bytes\": 1", "\"bytes\": 2")).unwrap();
        assert!(said(archive.read().await).contains("damaged"));
        std::fs::write(&path, manifest).unwrap();
        let path = dir.path().join(PLAN);
        let changed = std::fs::read_to_string(&path).unwrap().replace("\"start\": 5", "\"start\": 6");
        std::fs::write(&path, changed).unwrap();
        assert!(said(archive.read().await).contains("changed after the export"));
    }
}
