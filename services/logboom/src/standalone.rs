//! Every service in one process, with a nats-server child: the same settings, subjects and code paths as in a cluster.

use std::{
    path::{Path, PathBuf},
    process::{Child as Process, Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::Context;
use host::{InProcess, Service, StartError, start_in_process};
use settings::{Common, Settings};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::SettingsArgs,
    keys::{KeyDir, NatsServer},
    nats_child::{NatsChild, find_server, terminate},
    process,
    screen::Screen,
    tools::{Connection, RunFile},
    walk,
};

/// Events of the walk behind `up`.
const WALK_EVENTS: u64 = 200_000;

/// Arguments of `standalone`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StandaloneArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Go through the main job once everything is ready, then stay up
    #[arg(long)]
    walk: bool,
}

/// Starts everything and stays until Ctrl-C or SIGTERM.
pub(crate) fn run(args: StandaloneArgs, connection: &Connection, screen: Screen) -> anyhow::Result<ExitCode> {
    let data = &connection.data;
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let data = data.canonicalize()?;
    // What a killed run left would tell the tools of doors that are closed.
    RunFile::remove(&data);
    let (settings, server) = settings(&args.settings, &data)?;
    let _telemetry = process::start_telemetry(&settings.section::<Common>()?, "standalone")?;
    let _nats = start_nats(&settings, &server, &data)?;
    screen.line(format_args!(
        "nats-server on {}:{} ({})",
        server.address,
        server.port,
        data.join("nats.log").display()
    ));
    actix::System::new().block_on(serve(args, settings, server, data, screen))
}

/// The part of `[nats]` that this process reads.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NatsSection {
    address: String,
    port: u16,
    sync_interval: String,
    max_payload: types::ByteSize,
    store_dir: String,
    server_path: String,
}

impl settings::Section for NatsSection {
    const NAME: &'static str = "nats";
}

/// The user's settings with the generated keys and addresses below them.
fn settings(args: &SettingsArgs, data: &Path) -> anyhow::Result<(Settings, NatsServer)> {
    let given = process::load(args)?;
    let nats = given.section::<NatsSection>()?;
    let common = given.section::<Common>()?;
    let keys = KeyDir::open_or_create(&data.join("keys"))?;
    let store_dir = if nats.store_dir.is_empty() { data.join("nats") } else { PathBuf::from(&nats.store_dir) };
    let server = NatsServer {
        port: if nats.port == 0 { free_port(&nats.address)? } else { nats.port },
        address: nats.address,
        store_dir,
        sync_interval: nats.sync_interval,
        max_payload: nats.max_payload.0,
        container_count: u16::try_from(common.container_count).unwrap_or(u16::MAX),
    };
    keys.write_server_config(&server)?;
    // What is generated lies below what the user says, so that every flag still wins.
    let file = data.join("standalone.toml");
    std::fs::write(&file, standalone_toml(&keys, &server, data))?;
    let mut layers = args.clone();
    layers.files.insert(0, file);
    let settings = process::load(&layers)?;
    Ok((settings, server))
}

fn standalone_toml(keys: &KeyDir, server: &NatsServer, data: &Path) -> String {
    let common = format!(
        "data_dir = \"{}\"\nreplica = \"standalone\"\nlog_format = \"text\"\nlog_filter = \"warn,async_nats=off\"\n",
        data.join("state").display()
    );
    keys.settings_toml(server).replacen("[common]\n", &format!("[common]\n{common}"), 1)
}

/// A port that nothing listens on at this moment.
pub(crate) fn free_port(address: &str) -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind((address, 0)).with_context(|| format!("no free port on {address}"))?;
    Ok(listener.local_addr()?.port())
}

fn start_nats(settings: &Settings, server: &NatsServer, data: &Path) -> anyhow::Result<NatsChild> {
    let binary = find_server(&settings.section::<NatsSection>()?.server_path)?;
    let address = format!("{}:{}", server.address, server.port);
    NatsChild::start(&binary, &data.join("keys").join("nats.conf"), &data.join("nats.log"), &address)
}

/// Starts services one after the other and says so.
struct Starter<'a> {
    settings: &'a Settings,
    running: Vec<(wire::Service, InProcess)>,
}

impl Starter<'_> {
    async fn start<S: Service>(&mut self) -> Result<(), StartError> {
        let service = start_in_process::<S>(self.settings, None).await?;
        self.running.push((S::NAME, service));
        Ok(())
    }

    async fn start_all(&mut self) -> Result<(), StartError> {
        self.start::<coordinator::Coordinator>().await?;
        self.start::<segment_store::SegmentStore>().await?;
        self.start::<index_provisioner::IndexProvisioner>().await?;
        self.start::<broker::Broker>().await?;
        self.start::<job_manager::JobManager>().await?;
        self.start::<task_worker::TaskWorker>().await?;
        self.start::<alerter::Alerter>().await?;
        self.start::<gateway::Gateway>().await
    }

    /// Stops in the mirror order of the start.
    async fn stop(self) {
        for (name, service) in self.running.into_iter().rev() {
            if let Err(error) = service.stop().await {
                tracing::error!(service = %name, %error, "service did not drain");
            }
        }
    }
}

async fn serve(
    args: StandaloneArgs,
    settings: Settings,
    server: NatsServer,
    data: PathBuf,
    screen: Screen,
) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut starter = Starter { settings: &settings, running: Vec::new() };
    let begun = tokio::time::Instant::now();
    if let Err(error) = starter.start_all().await {
        starter.stop().await;
        return Err(error.into());
    }
    let run = RunFile {
        gateway_url: format!("http://{}", settings.section::<gateway::Config>()?.address),
        broker_url: format!("http://{}", settings.section::<broker::Config>()?.address),
        nats_url: format!("nats://{}:{}", server.address, server.port),
        pid: std::process::id(),
    };
    run.write(&data)?;
    screen.line(format_args!("eight services ready in {} ms", begun.elapsed().as_millis()));
    let token = std::fs::read_to_string(data.join("keys").join("admin.token"))?;
    let stay = async {
        let mut right = true;
        if args.walk {
            right = walk_beside(&data, &run, screen).await;
        }
        screen.line(format_args!(
            "broker   {}  (user admin, password in {})",
            run.broker_url,
            data.join("keys/broker.password").display()
        ));
        screen.line(format_args!("nats     {}", run.nats_url));
        screen.line("Ctrl-C drains and ends");
        screen.line(format_args!("console  {}/#token={}", run.gateway_url, token.trim()));
        std::future::pending::<()>().await;
        right
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stay => {}
    }
    screen.line("draining");
    RunFile::remove(&data);
    starter.stop().await;
    screen.line("drained");
    Ok(ExitCode::SUCCESS)
}

/// Walks on a thread of its own, so that the walk and the services do not wait for each other.
async fn walk_beside(data: &Path, run: &RunFile, screen: Screen) -> bool {
    let (data, run) = (data.to_owned(), run.clone());
    let walked = tokio::task::spawn_blocking(move || -> anyhow::Result<bool> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let api = walk::local_api(&data, &run)?;
        Ok(runtime.block_on(walk::walk(&api, &run.nats_url, WALK_EVENTS, screen)))
    });
    match walked.await {
        Ok(Ok(right)) => right,
        Ok(Err(error)) => {
            screen.line(format_args!("the walk could not begin: {error:#}"));
            false
        }
        Err(_) => false,
    }
}

/// How long a fresh standalone may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A standalone in a process of its own, on free ports.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
}

impl Child {
    /// Starts this binary again as `standalone`.
    pub(crate) fn start(data: &Path) -> anyhow::Result<Self> {
        let address = |name: &str| -> anyhow::Result<String> {
            Ok(format!("{name}.address=127.0.0.1:{}", free_port("127.0.0.1")?))
        };
        let gateway = address("gateway")?;
        let gateway_url = format!("broker.gateway_url=http://{}", gateway.trim_start_matches("gateway.address="));
        let broker = address("broker")?;
        let log = std::fs::File::create(data.join("standalone.log"))?;
        let process = Command::new(std::env::current_exe()?)
            .args(["standalone", "--data"])
            .arg(data)
            .args(["--set", "nats.port=0", "--set", &gateway, "--set", &broker, "--set", &gateway_url])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start a second process of this binary")?;
        Ok(Self { process })
    }

    /// Waits until the run file appears.
    #[allow(clippy::disallowed_methods, reason = "waits for another process before any runtime is there")]
    pub(crate) fn wait_until_ready(&self, data: &Path) -> anyhow::Result<RunFile> {
        let tries = READY_WITHIN.as_millis() / 50;
        for _ in 0..tries {
            if let Some(run) = RunFile::read(data) {
                return Ok(run);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(data.join("standalone.log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        anyhow::bail!(
            "standalone was not ready in {READY_WITHIN:?}; it said: {}",
            last.into_iter().rev().collect::<Vec<_>>().join(" | ")
        )
    }

    /// Asks it to drain and waits for its end.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.terminate();
        let status = self.process.wait()?;
        anyhow::ensure!(status.success(), "standalone ended with {status} instead of draining");
        Ok(())
    }

    fn terminate(&self) {
        // By pid, and only our own child.
        if let Err(error) = terminate(self.process.id()) {
            tracing::warn!(%error, "standalone could not be asked to end");
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.terminate();
            let _reaped = self.process.wait();
        }
    }
}
