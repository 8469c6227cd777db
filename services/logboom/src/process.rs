//! One service in this process, and what its settings are.

use std::path::Path;

use anyhow::Context;
use settings::{Common, Layers, LogFormat, Settings};
use wire::Service;

use crate::{cli::SettingsArgs, screen::Screen};

/// Where an installation keeps its settings; read when it is there.
const SYSTEM_FILE: &str = "/etc/logboom/logboom.toml";
/// More of them, in the order of their names.
const SYSTEM_DIR: &str = "/etc/logboom/conf.d";
/// Most files read from [`SYSTEM_DIR`].
const SYSTEM_FILES_MAX: usize = 100;

/// Settings.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SettingsCommand {
    /// Print each setting, its value and where it came from; secrets are masked
    Print(SettingsArgs),
    /// Say what is wrong with the settings; exits with 0 if nothing is
    Check(SettingsArgs),
    /// Print the reference page of all settings
    Reference,
}

impl SettingsCommand {
    /// Runs the tool.
    pub(crate) fn run(self, screen: Screen) -> anyhow::Result<()> {
        match self {
            Self::Print(args) => screen.line(load(&args)?.print().trim_end()),
            Self::Check(args) => {
                check(&load(&args)?)?;
                screen.line("settings are valid");
            }
            Self::Reference => screen.line(settings::reference_markdown().trim_end()),
        }
        Ok(())
    }
}

/// Every section, so that a mistake in any is found before anything starts.
fn check(settings: &Settings) -> Result<(), settings::Findings> {
    let mut found = settings::Findings::default();
    let mut take = |result: Result<(), settings::Findings>| {
        if let Err(findings) = result {
            found.extend(findings);
        }
    };
    take(settings.section::<Common>().map(drop));
    take(settings.section::<broker::Config>().map(drop));
    take(settings.section::<index_provisioner::Config>().map(drop));
    take(settings.section::<coordinator::Config>().map(drop));
    take(settings.section::<segment_store::Config>().map(drop));
    take(settings.section::<job_manager::Config>().map(drop));
    take(settings.section::<task_worker::Config>().map(drop));
    take(settings.section::<alerter::Config>().map(drop));
    take(settings.section::<gateway::Config>().map(drop));
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Reads all layers: defaults, system files, named files, environment, `--set`.
pub(crate) fn load(args: &SettingsArgs) -> anyhow::Result<Settings> {
    let mut files = Vec::new();
    if Path::new(SYSTEM_FILE).is_file() {
        files.push(read(Path::new(SYSTEM_FILE))?);
    }
    if let Ok(folder) = std::fs::read_dir(SYSTEM_DIR) {
        let mut more: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
        more.retain(|path| path.extension().is_some_and(|e| e == "toml"));
        more.sort();
        for path in more.iter().take(SYSTEM_FILES_MAX) {
            files.push(read(path)?);
        }
    }
    for path in &args.files {
        files.push(read(path)?);
    }
    #[allow(clippy::disallowed_methods, reason = "the one place where the environment becomes settings")]
    let env = std::env::vars().collect();
    Ok(Settings::load(Layers { files, env, set: args.set.clone() })?)
}

fn read(path: &Path) -> anyhow::Result<(String, String)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read settings {}", path.display()))?;
    Ok((path.display().to_string(), text))
}

/// Sets up logs, metrics and traces for a process; the guard writes what is left when it is dropped.
pub(crate) fn start_telemetry(common: &Common, name: &'static str) -> anyhow::Result<telemetry::Guard> {
    telemetry::abort_on_panic();
    let mut options = telemetry::Options::new(name);
    options.format = match common.log_format {
        LogFormat::Json => telemetry::Format::Json,
        LogFormat::Text => telemetry::Format::Text,
    };
    options.filter.clone_from(&common.log_filter);
    options.replica.clone_from(&common.replica);
    options.otlp_endpoint = common.otlp_endpoint().map(str::to_owned);
    if options.otlp_endpoint.is_some() {
        let tls = host::tls_of(common)?;
        options.otlp_tls = Some(telemetry::TlsSource::new(move || {
            // What is wrong with new files is told by the service that follows them; the former ones go on.
            if let Err(error) = tls.reload() {
                tracing::debug!(%error, "certificate files are not taken for the export of traces");
            }
            tls.outward()
        }));
    }
    telemetry::init(options).context("cannot set up logs")
}

/// Runs one service until it is told to stop.
pub(crate) fn run_service(service: Service, args: &SettingsArgs) -> anyhow::Result<()> {
    let settings = load(args)?;
    check(&settings)?;
    let _telemetry = start_telemetry(&settings.section::<Common>()?, service.as_str())?;
    match service {
        Service::Broker => host::run::<broker::Broker>(settings, None)?,
        Service::IndexProvisioner => host::run::<index_provisioner::IndexProvisioner>(settings, None)?,
        Service::Coordinator => host::run::<coordinator::Coordinator>(settings, None)?,
        Service::SegmentStore => host::run::<segment_store::SegmentStore>(settings, None)?,
        Service::JobManager => host::run::<job_manager::JobManager>(settings, None)?,
        Service::TaskWorker => host::run::<task_worker::TaskWorker>(settings, None)?,
        Service::Alerter => host::run::<alerter::Alerter>(settings, None)?,
        Service::Gateway => host::run::<gateway::Gateway>(settings, None)?,
    }
    Ok(())
}
