//! Every service in one process, with a nats-server child: the same settings, subjects and code paths as in a cluster.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child as Process, Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::Context;
use bus::SystemClock;
use host::{InProcess, Service, StartError, start_in_process};
use settings::{Common, SecretRef, Settings};
use tls::{Files, Tls};
use tokio::signal::unix::{SignalKind, signal};
use types::Clock;

use crate::{
    cli::SettingsArgs,
    keys::{CERTIFICATE_DAYS, KeyDir, NatsServer, local_url, reachable},
    nats_child::{NatsChild, find_server, follow_certificate, terminate},
    process,
    screen::Screen,
    tools::{Connection, RunFile},
    walk,
};

/// How long a standalone may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(10);

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
    /// Speak TLS on every connection, with an authority and a certificate that are made below the data directory and renewed at a start
    #[arg(long)]
    tls: bool,
    /// Host name or address that the certificate is for besides this machine; may be given several times
    #[arg(long = "host", value_name = "NAME", requires = "tls")]
    hosts: Vec<String>,
}

/// Starts everything and stays until Ctrl-C or SIGTERM.
pub(crate) fn run(args: StandaloneArgs, connection: &Connection, screen: Screen) -> anyhow::Result<ExitCode> {
    let data = &connection.data;
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let data = data.canonicalize()?;
    // What a killed run left would tell the tools of doors that are closed.
    RunFile::remove(&data);
    let (settings, server) = settings(&args, &data)?;
    let _telemetry = process::start_telemetry(&settings.section::<Common>()?, "standalone")?;
    if server.tls.is_none() && server.address.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback()) {
        tracing::warn!(
            address = server.address,
            port = server.port,
            "nats-server speaks plain text beyond this host, common.tls_certificate or --tls gives it TLS"
        );
    }
    // Read before the server reads them: a change in between is then seen as one.
    let tls = server.tls.clone().map(Tls::open).transpose()?;
    let nats = start_nats(&settings, &server, &data)?;
    screen.line(format_args!(
        "nats-server on {}:{} ({})",
        server.address,
        server.port,
        data.join("nats.log").display()
    ));
    let reload = settings.section::<Common>()?.tls_reload_interval.0;
    actix::System::new().block_on(async move {
        if let Some(tls) = tls {
            drop(actix_rt::spawn(follow_certificate(nats.pid(), tls, reload)));
        }
        let ended = serve(args, settings, server, data, screen).await;
        drop(nats);
        ended
    })
}

/// The part of `[nats]` that this process reads.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NatsSection {
    address: String,
    port: u16,
    sync_interval: String,
    max_payload: types::ByteSize,
    max_file_store: types::ByteSize,
    store_dir: String,
    server_path: String,
}

impl settings::Section for NatsSection {
    const NAME: &'static str = "nats";
}

/// The user's settings with the generated keys and addresses below them.
fn settings(args: &StandaloneArgs, data: &Path) -> anyhow::Result<(Settings, NatsServer)> {
    let given = process::load(&args.settings)?;
    let nats = given.section::<NatsSection>()?;
    let common = given.section::<Common>()?;
    let keys = KeyDir::open_or_create(&data.join("keys"))?;
    let store_dir = if nats.store_dir.is_empty() { data.join("nats") } else { PathBuf::from(&nats.store_dir) };
    let tls = tls_files(args, &given, &keys, &nats.address)?;
    let server = NatsServer {
        port: if nats.port == 0 { free_port(&nats.address)? } else { nats.port },
        address: nats.address,
        store_dir,
        max_file_store: (nats.max_file_store.0 > 0).then_some(nats.max_file_store.0),
        sync_interval: nats.sync_interval,
        max_payload: nats.max_payload.0,
        container_count: u16::try_from(common.container_count).unwrap_or(u16::MAX),
        tls,
    };
    keys.write_server_config(&server)?;
    // What is generated lies below what the user says, so that every flag still wins.
    let file = data.join("standalone.toml");
    let gateway = given.section::<gateway::Config>()?.address;
    std::fs::write(&file, standalone_toml(&keys, &server, data, &gateway))?;
    let mut layers = args.settings.clone();
    layers.files.insert(0, file);
    let settings = process::load(&layers)?;
    Ok((settings, server))
}

/// The certificate of everything that listens: the one that the settings name, else our own if one is wanted.
fn tls_files(args: &StandaloneArgs, given: &Settings, keys: &KeyDir, address: &str) -> anyhow::Result<Option<Files>> {
    let common = given.section::<Common>()?;
    let path = |text: &str| (!text.is_empty()).then(|| std::path::absolute(text)).transpose();
    if let Some(certificate) = path(&common.tls_certificate)? {
        let key = match common.tls_key.reference() {
            Some(SecretRef::File(key)) => path(key)?,
            _ => None,
        };
        return Ok(Some(Files { certificate: Some(certificate), key, ca: path(&common.tls_ca)? }));
    }
    if !args.tls {
        return Ok(None);
    }
    let certificates = keys.certificates();
    let mut hosts = args.hosts.clone();
    hosts.push(reachable(address).to_owned());
    certificates.ensure(&hosts, CERTIFICATE_DAYS, SystemClock.now())?;
    Ok(Some(certificates.files()))
}

fn standalone_toml(keys: &KeyDir, server: &NatsServer, data: &Path, gateway: &str) -> String {
    let common = format!(
        "data_dir = \"{}\"\nreplica = \"standalone\"\nlog_format = \"text\"\nlog_filter = \"warn,async_nats=off\"\n",
        data.join("state").display()
    );
    let text = keys.settings_toml(server).replacen("[common]\n", &format!("[common]\n{common}"), 1);
    // The gateway is reached where it listens.
    text.replacen("https://127.0.0.1:7700", &local_url("https", gateway), 1)
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

    /// Waits until every service says that it is ready.
    ///
    /// Errors: a reason that no waiting heals, at once, and what is not ready after [`READY_WITHIN`].
    async fn ready(&self) -> anyhow::Result<()> {
        let begun = tokio::time::Instant::now();
        loop {
            let hosts = self.running.iter().map(|(name, service)| (name, service.host().unready_reasons()));
            let waiting: Vec<_> = hosts.flat_map(|(name, all)| all.into_iter().map(move |why| (name, why))).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            let lasting = waiting.iter().find(|(_, (reason, _))| reason == segment_store::LOG_SPACE);
            if let Some((name, (_, why))) = lasting {
                anyhow::bail!("{name} cannot begin: {why}");
            }
            if begun.elapsed() >= READY_WITHIN {
                let all: Vec<_> = waiting.iter().map(|(name, (_, why))| format!("{name}: {why}")).collect();
                anyhow::bail!("not ready after {READY_WITHIN:?}: {}", all.join("; "));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
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
    let started = match starter.start_all().await {
        Ok(()) => tokio::select! {
            ready = starter.ready() => ready.map(|()| true),
            _ = terminate.recv() => Ok(false),
            _ = interrupt.recv() => Ok(false),
        },
        Err(error) => Err(error.into()),
    };
    if !matches!(started, Ok(true)) {
        starter.stop().await;
        return started.map(|_| ExitCode::SUCCESS);
    }
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    let run = RunFile {
        gateway_url: local_url(scheme, &settings.section::<gateway::Config>()?.address),
        broker_url: local_url(scheme, &settings.section::<broker::Config>()?.address),
        nats_url: server.url(),
        ca: server.tls.as_ref().and_then(|files| files.ca.clone()),
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

/// A standalone in a process of its own, on free ports.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
}

impl Child {
    /// Starts this binary again as `standalone`.
    pub(crate) fn start(data: &Path, tls: bool) -> anyhow::Result<Self> {
        let address = |name: &str| -> anyhow::Result<String> {
            Ok(format!("{name}.address=127.0.0.1:{}", free_port("127.0.0.1")?))
        };
        let gateway = address("gateway")?;
        let scheme = if tls { "https" } else { "http" };
        let gateway_url = format!("broker.gateway_url={scheme}://{}", gateway.trim_start_matches("gateway.address="));
        let broker = address("broker")?;
        let log = std::fs::File::create(data.join("standalone.log"))?;
        let process = Command::new(std::env::current_exe()?)
            .args(["standalone", "--data"])
            .arg(data)
            .args(["--set", "nats.port=0", "--set", &gateway, "--set", &broker, "--set", &gateway_url])
            .args(tls.then_some("--tls"))
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
