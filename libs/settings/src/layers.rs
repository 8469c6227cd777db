//! How a setting gets its value: layers, origins and the check against the list of defaults.

use std::collections::BTreeMap;

use config::{Config, File, FileFormat, Value as Parsed, ValueKind};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    DEFAULTS, Finding, Findings,
    reference::{Entry, entries, is_secret, nearest},
    secret::SecretRef,
};

const ENV_PREFIX: &str = "LOGBOOM__";
const MASK: &str = "***";

/// The part of the settings that one reader receives by value.
pub trait Section: DeserializeOwned {
    /// Name of the section in `default.toml`, for example `segment_store`.
    const NAME: &'static str;

    /// Adds what is wrong with values that are well-formed each by themselves: ranges and relations.
    fn validate(&self, _found: &mut Findings) {}
}

/// What may override the defaults, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Files as name and TOML text; later ones win.
    pub files: Vec<(String, String)>,
    /// Environment; names that do not begin with `LOGBOOM__` are ignored, so the whole environment may be handed in.
    pub env: Vec<(String, String)>,
    /// `section.key=value` of the command line; later ones win.
    pub set: Vec<String>,
}

#[derive(Debug, Clone)]
struct Setting {
    value: Value,
    origin: String,
}

/// All settings with their origins.
#[derive(Debug, Clone)]
pub struct Settings {
    entries: Vec<Entry>,
    values: BTreeMap<String, Setting>,
}

impl Settings {
    /// Lays the layers over the compiled-in defaults.
    ///
    /// Errors: every unknown key, every value of a wrong type, every secret that is not a reference, every text that is not TOML.
    pub fn load(layers: Layers) -> Result<Self, Findings> {
        let mut found = Findings::default();
        let mut all = Self { entries: entries(DEFAULTS), values: BTreeMap::new() };
        for (path, value) in parse("default", DEFAULTS, &mut found) {
            all.values.insert(path, Setting { value, origin: "default".into() });
        }
        for (name, text) in &layers.files {
            for (path, value) in parse(name, text, &mut found) {
                all.lay(&path, value, name, &mut found);
            }
        }
        for (name, text) in &layers.env {
            if let Some(rest) = name.strip_prefix(ENV_PREFIX) {
                let path = rest.to_lowercase().replace("__", ".");
                all.lay_text(&path, text, "environment", &mut found);
            }
        }
        for text in &layers.set {
            match text.split_once('=') {
                Some((path, value)) => all.lay_text(path.trim(), value.trim(), "--set", &mut found),
                // What follows could be a secret, so it is not repeated.
                None => found.push(Finding {
                    path: String::new(),
                    value: String::new(),
                    origin: "--set".into(),
                    message: "must be section.key=value".into(),
                }),
            }
        }
        found.or(all)
    }

    /// The section `T`, validated.
    ///
    /// Errors: all values that `T` cannot take and, if it can take all of them, all findings of its `validate`.
    pub fn section<T: Section>(&self) -> Result<T, Findings> {
        let prefix = format!("{}.", T::NAME);
        let mine = || self.values.iter().filter_map(|(path, s)| Some((path.strip_prefix(&prefix)?, s)));
        let mut found = Findings::default();
        let section = T::deserialize(nested(mine().map(|(key, s)| (key, s.value.clone()))));
        match &section {
            Ok(section) => section.validate(&mut found),
            // serde stops at the first value it cannot take. Each override is therefore tried alone over the defaults.
            Err(first) => {
                let defaults = Self { entries: self.entries.clone(), values: defaults() };
                for (key, setting) in mine().filter(|(_, s)| s.origin != "default") {
                    let table = defaults.values.iter().filter_map(|(path, s)| Some((path.strip_prefix(&prefix)?, s)));
                    let table = table.map(|(key, s)| (key, s.value.clone())).chain([(key, setting.value.clone())]);
                    if let Err(error) = T::deserialize(nested(table)) {
                        found.add(key, error.to_string());
                    }
                }
                if found.is_empty() {
                    found.add("", first.to_string());
                }
            }
        }
        found.each(|finding| self.complete(T::NAME, finding));
        match section {
            Ok(section) => found.or(section),
            Err(_) => Err(found),
        }
    }

    /// Every setting with its value and origin, one a line, in the order of `default.toml`; secrets as `***`.
    pub fn print(&self) -> String {
        let mut text = String::new();
        for entry in &self.entries {
            if let Some(setting) = self.values.get(&entry.path) {
                let value = shown(&entry.path, &setting.value);
                text.push_str(&format!("{} = {value}  # {}\n", entry.path, setting.origin));
            }
        }
        text
    }

    fn complete(&self, section: &str, finding: &mut Finding) {
        finding.path = match finding.path.as_str() {
            "" => section.to_owned(),
            key => format!("{section}.{key}"),
        };
        if let Some(setting) = self.values.get(&finding.path) {
            finding.value = shown(&finding.path, &setting.value);
            finding.origin.clone_from(&setting.origin);
        }
    }

    /// Text from the environment or the command line takes the type of the default.
    fn lay_text(&mut self, path: &str, text: &str, origin: &str, found: &mut Findings) {
        let value = match self.values.get(path).map(|s| &s.value) {
            Some(Value::Number(_)) => text.parse::<i64>().map(Value::from).unwrap_or_else(|_| text.into()),
            Some(Value::Bool(_)) => text.parse::<bool>().map(Value::from).unwrap_or_else(|_| text.into()),
            _ => text.into(),
        };
        self.lay(path, value, origin, found);
    }

    fn lay(&mut self, path: &str, value: Value, origin: &str, found: &mut Findings) {
        let mut refuse = |message: String| {
            found.push(Finding {
                path: path.to_owned(),
                value: shown(path, &value),
                origin: origin.to_owned(),
                message,
            });
        };
        let Some(known) = self.values.get_mut(path) else {
            let hint = nearest(path, &self.entries).map(|near| format!("; did you mean {near}?"));
            return refuse(format!("there is no such setting{}", hint.unwrap_or_default()));
        };
        let value = match (&known.value, &value) {
            // A size may be written as a bare number.
            (Value::String(_), Value::Number(number)) => Value::from(number.to_string()),
            (Value::String(_), Value::String(text)) => {
                if is_secret(path) && !text.is_empty() && SecretRef::parse(text).is_none() {
                    return refuse(SecretRef::SHAPE.into());
                }
                value
            }
            (Value::Number(_), Value::Number(_)) | (Value::Bool(_), Value::Bool(_)) => value,
            (expected, _) => {
                let kind = match expected {
                    Value::Number(_) => "a whole number",
                    Value::Bool(_) => "true or false",
                    _ => "a text",
                };
                return refuse(format!("must be {kind}"));
            }
        };
        *known = Setting { value, origin: origin.to_owned() };
    }
}

/// A table of tables, from keys such as `splunk.url`; the last of a key counts.
fn nested<'a>(flat: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let mut all = serde_json::Map::new();
    for (key, value) in flat {
        let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut names = tables.split('.').filter(|name| !name.is_empty());
        // A key and a table of one name do not both exist: both come from one list of defaults.
        let table = names.try_fold(&mut all, |table, name| {
            let empty = || Value::Object(serde_json::Map::new());
            table.entry(name).or_insert_with(empty).as_object_mut()
        });
        if let Some(table) = table {
            table.insert(last.to_owned(), value);
        }
    }
    Value::Object(all)
}

fn defaults() -> BTreeMap<String, Setting> {
    let parsed = parse("default", DEFAULTS, &mut Findings::default());
    parsed.into_iter().map(|(path, value)| (path, Setting { value, origin: "default".into() })).collect()
}

fn shown(path: &str, value: &Value) -> String {
    match value {
        Value::String(text) if is_secret(path) && !text.is_empty() => MASK.to_owned(),
        other => other.to_string(),
    }
}

fn parse(name: &str, text: &str, found: &mut Findings) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    let parsed = Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .and_then(|config| config.try_deserialize::<BTreeMap<String, Parsed>>());
    match parsed {
        Ok(tables) => {
            for (key, value) in tables {
                flatten(key, value, &mut flat);
            }
        }
        Err(error) => found.push(Finding {
            path: String::new(),
            value: String::new(),
            origin: name.to_owned(),
            message: first_line_without_source(&error.to_string()),
        }),
    }
    flat
}

/// A TOML error quotes the line it stumbled over, which could hold a secret; only its position and reason are kept.
fn first_line_without_source(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| {
        let quoted = line.split_once('|').is_some_and(|(number, _)| number.trim().parse::<u32>().is_ok());
        !quoted && !line.starts_with('|') && !line.is_empty()
    });
    lines.collect::<Vec<_>>().join(": ")
}

fn flatten(path: String, value: Parsed, flat: &mut Vec<(String, Value)>) {
    let value = match value.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                flatten(format!("{path}.{key}"), value, flat);
            }
            return;
        }
        ValueKind::String(text) => Value::from(text),
        ValueKind::I64(number) => Value::from(number),
        ValueKind::Boolean(truth) => Value::from(truth),
        ValueKind::Float(number) => Value::from(number),
        // No setting is a list or a wide number: refused by type with the setting's own name.
        _ => Value::Null,
    };
    flat.push((path, value));
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use types::{ByteSize, DurationText};

    use super::*;
    use crate::{Common, Secret};

    #[derive(Debug, Deserialize)]
    struct Store {
        flush_bytes: ByteSize,
        flush_interval: DurationText,
        snapshot_frames: u32,
    }

    impl Section for Store {
        const NAME: &'static str = "segment_store";
        fn validate(&self, found: &mut Findings) {
            found.range("flush_bytes", self.flush_bytes, ByteSize(64 << 10)..=ByteSize(1 << 30));
            found.range("snapshot_frames", self.snapshot_frames, 1..=1_000_000);
        }
    }

    #[derive(Debug, Deserialize)]
    struct Door {
        password: Secret,
    }

    impl Section for Door {
        const NAME: &'static str = "broker";
    }

    fn file(text: &str) -> Layers {
        Layers { files: vec![("a.toml".into(), text.into())], ..Layers::default() }
    }

    fn refused(layers: Layers) -> String {
        Settings::load(layers).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        let settings = Settings::load(Layers::default()).unwrap();
        let common = settings.section::<Common>().unwrap();
        assert_eq!(common.object_store(), "file://.logboom/objects");
        assert_eq!((common.container_count, common.journal_replicas, common.otlp_endpoint()), (8, 1, None));
        assert_eq!(settings.section::<Store>().unwrap().flush_interval.to_string(), "10s");
    }

    #[test]
    fn later_layers_win_and_name_themselves() {
        let mut layers = file("[segment_store]\nflush_bytes = \"1MiB\"\nflush_interval = \"1s\"\nsnapshot_frames = 7");
        layers.files.push(("b.toml".into(), "[segment_store]\nflush_bytes = 131072".into()));
        let check = |layers: &Layers, size: &str, origin: &str| {
            let settings = Settings::load(layers.clone()).unwrap();
            assert_eq!(settings.section::<Store>().unwrap().flush_bytes.to_string(), size);
            let line =
                settings.print().lines().find(|l| l.starts_with("segment_store.flush_bytes ")).unwrap().to_owned();
            assert!(line.ends_with(&format!("  # {origin}")), "{line}");
        };
        check(&layers, "128KiB", "b.toml");
        layers.env.push(("LOGBOOM__SEGMENT_STORE__FLUSH_BYTES".into(), "2MiB".into()));
        layers.env.push(("PATH".into(), "/bin".into()));
        check(&layers, "2MiB", "environment");
        layers.set.push("segment_store.flush_bytes = 3MiB".into());
        check(&layers, "3MiB", "--set");
    }

    #[test]
    fn unknown_keys_are_refused_with_a_suggestion() {
        for (text, expected) in [
            ("[segment_store]\nflush_byte = 1", "did you mean segment_store.flush_bytes?"),
            ("[segmentstore]\nflush_bytes = 1", "did you mean segment_store.flush_bytes?"),
            ("flush_bytes = 1", "did you mean segment_store.flush_bytes?"),
            ("[gateway.deep]\nflush = 1", "gateway.deep.flush = 1 (from a.toml): there is no such setting"),
        ] {
            let text = refused(file(text));
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn all_findings_come_at_once() {
        let mut layers = file("[gateway]\nquery_rows_max = \"many\"\nnonsense = 1\n[common]\nreplica = [1]");
        layers.files.push(("broken.toml".into(), "[common\n".into()));
        layers.set.push("no-equals-sign".into());
        layers.env.push(("LOGBOOM__COMMON__JOURNAL_REPLICAS".into(), "three".into()));
        let found = Settings::load(layers).unwrap_err();
        let text = found.to_string();
        assert_eq!(found.iter().count(), 6, "{text}");
        assert!(text.contains("gateway.query_rows_max = \"many\" (from a.toml): must be a whole number"), "{text}");
        assert!(
            text.contains("common.journal_replicas = \"three\" (from environment): must be a whole number"),
            "{text}"
        );
        assert!(text.contains("common.replica = null (from a.toml): must be a text"), "{text}");
        assert!(text.contains("broken.toml: "), "{text}");
    }

    #[test]
    fn a_section_reports_every_value_it_cannot_take() {
        let set = ["flush_bytes=8 MB", "flush_interval=soon", "snapshot_frames=-1"];
        let set = set.iter().map(|s| format!("segment_store.{s}")).collect();
        let found = Settings::load(Layers { set, ..Layers::default() }).unwrap().section::<Store>().unwrap_err();
        let paths: Vec<_> = found.iter().map(|f| (f.path.as_str(), f.value.as_str(), f.origin.as_str())).collect();
        assert_eq!(
            paths,
            [
                ("segment_store.flush_bytes", "\"8 MB\"", "--set"),
                ("segment_store.flush_interval", "\"soon\"", "--set"),
                ("segment_store.snapshot_frames", "-1", "--set"),
            ]
        );
        let set = vec!["segment_store.flush_bytes=1KiB".into(), "segment_store.snapshot_frames=0".into()];
        let found = Settings::load(Layers { set, ..Layers::default() }).unwrap().section::<Store>().unwrap_err();
        assert_eq!(
            found.to_string(),
            "segment_store.flush_bytes = \"1KiB\" (from --set): must be from 64KiB to 1GiB\n\
             segment_store.snapshot_frames = 0 (from --set): must be from 1 to 1000000"
        );
    }

    #[test]
    fn a_secret_is_never_repeated() {
        for layers in [
            file("[broker]\npassword = \"hunter2\""),
            file("[broker]\npassword = hunter2"),
            file("[broker]\npasword = \"hunter2\""),
            Layers { set: vec!["broker.password=hunter2".into()], ..Layers::default() },
            Layers { set: vec!["hunter2".into()], ..Layers::default() },
            Layers { env: vec![("LOGBOOM__BROKER__PASSWORD".into(), "hunter2".into())], ..Layers::default() },
        ] {
            let text = refused(layers);
            assert!(!text.contains("hunter2"), "{text}");
        }
        let settings = Settings::load(file("[broker]\npassword = \"file:/run/password\"")).unwrap();
        assert!(settings.print().contains("broker.password = ***  # a.toml\n"));
        let door = settings.section::<Door>().unwrap();
        assert_eq!(door.password.reference().unwrap().to_string(), "file:/run/password");
    }

    #[derive(Debug, Deserialize)]
    struct Provisioner {
        default_segments: u16,
        splunk: Inner,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        url: String,
        timeout: DurationText,
    }

    impl Section for Provisioner {
        const NAME: &'static str = "index_provisioner";
    }

    #[test]
    fn a_section_may_have_tables() {
        let mut layers =
            file("[index_provisioner]\ndefault_segments = 4\n[index_provisioner.splunk]\nurl = \"https://a\"");
        let url = |layers: &Layers| {
            let section = Settings::load(layers.clone()).unwrap().section::<Provisioner>().unwrap();
            assert_eq!((section.default_segments, section.splunk.timeout.to_string().as_str()), (4, "10s"));
            section.splunk.url
        };
        assert_eq!(url(&layers), "https://a");
        layers.env.push(("LOGBOOM__INDEX_PROVISIONER__SPLUNK__URL".into(), "https://b".into()));
        assert_eq!(url(&layers), "https://b");
        layers.set.push("index_provisioner.splunk.url=https://c".into());
        assert_eq!(url(&layers), "https://c");
        layers.set.push("index_provisioner.splunk.timeout=soon".into());
        let found = Settings::load(layers).unwrap().section::<Provisioner>().unwrap_err().to_string();
        assert!(found.starts_with("index_provisioner.splunk.timeout = \"soon\" (from --set): "), "{found}");
    }

    #[test]
    fn the_common_section_knows_its_bounds() {
        let check = |set: &str, message: &str| {
            let layers = Layers { set: vec![format!("common.{set}")], ..Layers::default() };
            let found = Settings::load(layers).unwrap().section::<Common>().unwrap_err();
            assert!(found.to_string().contains(message), "{set}: {found}");
        };
        check("container_count=12", "power of two");
        check("journal_replicas=2", "1, 3 or 5");
        check("lease_ttl=100ms", "from 1s to 60s");
        check("replica=a.b", "letters, digits");
        check("object_store_url=gs://x", "s3://bucket");
        check("log_format=xml", "unknown variant");
        check("snapshot_events=0", "from 1 to 10000000");
        check("snapshot_interval=1ms", "at least 1s");
        check("nats_url=", "at least one server");
        check("tls_certificate=/tls/certificate.pem", "set both, or neither");
        check("tls_key=file:/tls/key.pem", "set both, or neither");
        check("tls_key=env:TLS_KEY", "must be file:PATH");
        check("tls_reload_interval=1ms", "from 100ms to 1h");
    }
}
