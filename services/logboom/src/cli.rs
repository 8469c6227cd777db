//! The command line: what there is, said once.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::{
    keys, process,
    screen::Screen,
    standalone,
    tools::{
        AdminArgs, BindingsCommand, BrokerArgs, Connection, IndexCommand, JobCommand, LibraryCommand, PublishArgs,
        QueryArgs, RuleCommand, StatusArgs, TailArgs, ToolError,
    },
    walk,
};

/// Self-service logs for Kubernetes: publish, search, run continuous SQL and get alerts.
#[derive(Debug, Parser)]
#[command(name = "logboom", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

/// Settings of a service: later wins.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SettingsArgs {
    /// Settings file (TOML); may be given several times, later files win
    #[arg(long = "settings", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// One setting, for example segment_store.flush_bytes=16MiB; wins over files and environment
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker, or look at its service instances and change them
    Broker(Box<BrokerArgs>),
    /// Run the index provisioner
    IndexProvisioner(SettingsArgs),
    /// Run the coordinator
    Coordinator(SettingsArgs),
    /// Run the segment store
    SegmentStore(SettingsArgs),
    /// Run the job manager
    JobManager(SettingsArgs),
    /// Run a task worker
    TaskWorker(SettingsArgs),
    /// Run the alerter
    Alerter(SettingsArgs),
    /// Run the gateway
    Gateway(SettingsArgs),
    /// Run every service in one process, with a nats-server of its own
    Standalone(standalone::StandaloneArgs),
    /// Go through the main job on a fresh data directory and free ports, then exit: 0 if every result was right
    Walk(walk::WalkArgs),
    /// Make operator keys, accounts, credentials and a nats-server configuration
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Look at settings
    #[command(subcommand)]
    Settings(process::SettingsCommand),
    /// Log indexes
    #[command(subcommand)]
    Index(IndexCommand),
    /// Send lines to an index
    Publish(PublishArgs),
    /// Follow an index
    Tail(TailArgs),
    /// Run one query
    Query(QueryArgs),
    /// Views, saved searches and lookups of an index
    #[command(subcommand)]
    Library(LibraryCommand),
    /// Continuous jobs
    #[command(subcommand)]
    Job(JobCommand),
    /// Alert rules
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Credentials
    #[command(subcommand)]
    Bindings(BindingsCommand),
    /// What runs, and where
    Status(StatusArgs),
    /// Streams, segments and containers from inside, for operators
    Admin(Box<AdminArgs>),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Exit codes of the tools: 1 failed, 2 wrong usage (clap's), 3 refused by a service, 4 not reachable.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<ToolError>() {
        Some(ToolError::Refused { .. }) => 3,
        Some(ToolError::Unreachable { .. } | ToolError::NoNats { .. }) => 4,
        Some(ToolError::NoBroker) | None => 1,
    }
}

fn say(error: &anyhow::Error) {
    use std::io::Write;
    // Nothing can be done about a closed terminal.
    let _closed = writeln!(std::io::stderr(), "logboom: {error:#}");
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(code) => code,
            Err(error) => {
                say(&error);
                ExitCode::from(exit_code(&error))
            }
        }
    }

    fn dispatch(self) -> anyhow::Result<ExitCode> {
        use wire::Service as S;
        let screen = Screen::new(self.connection.json);
        let connection = self.connection;
        let done = |()| ExitCode::SUCCESS;
        match self.command {
            Command::Broker(args) if args.is_service() => {
                process::run_service(S::Broker, &args.installation.settings).map(done)
            }
            Command::Broker(args) => tool(args.run(&connection, screen)).map(done),
            Command::IndexProvisioner(args) => process::run_service(S::IndexProvisioner, &args).map(done),
            Command::Coordinator(args) => process::run_service(S::Coordinator, &args).map(done),
            Command::SegmentStore(args) => process::run_service(S::SegmentStore, &args).map(done),
            Command::JobManager(args) => process::run_service(S::JobManager, &args).map(done),
            Command::TaskWorker(args) => process::run_service(S::TaskWorker, &args).map(done),
            Command::Alerter(args) => process::run_service(S::Alerter, &args).map(done),
            Command::Gateway(args) => process::run_service(S::Gateway, &args).map(done),
            Command::Standalone(args) => standalone::run(args, &connection, screen),
            Command::Walk(args) => walk::run(args, screen),
            Command::Keys(command) => command.run(screen).map(done),
            Command::Settings(command) => command.run(screen).map(done),
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "logboom", &mut std::io::stdout());
                Ok(ExitCode::SUCCESS)
            }
            Command::Index(c) => tool(c.run(&connection, screen)).map(done),
            Command::Publish(c) => tool(c.run(&connection, screen)).map(done),
            Command::Tail(c) => tool(c.run(&connection, screen)).map(done),
            Command::Query(c) => tool(c.run(&connection, screen)).map(done),
            Command::Library(c) => tool(c.run(&connection, screen)).map(done),
            Command::Job(c) => tool(c.run(&connection, screen)).map(done),
            Command::Rule(c) => tool(c.run(&connection, screen)).map(done),
            Command::Bindings(c) => tool(c.run(&connection, screen)).map(done),
            Command::Status(c) => tool(c.run(&connection, screen)).map(done),
            Command::Admin(c) => tool(c.run(&connection, screen)).map(done),
        }
    }
}

/// Runs a tool on a small runtime of its own.
fn tool(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
