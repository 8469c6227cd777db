//! `logboom admin`: streams, segments and containers from inside, over the calls of the services themselves.

mod archive;
mod aside;
mod comeback;
mod containers;
mod encryption;
mod export;
mod findings;
mod log;
mod look;
mod password;
mod ranges;
mod rebuild;
mod recast;
mod repair;
mod restore;
mod scan;
mod streams;
mod window;

use settings::Common;
use types::{ContainerId, IndexName};

use super::{
    Connection,
    installation::{Admin, CALL_WITHIN, Installation, refused, time},
};
use crate::screen::Screen;

const EXAMPLES: &str = "Examples:
  logboom admin containers                          with a local standalone
  logboom admin --settings /etc/logboom/logboom.toml segments shop
  logboom admin --nats nats://nats:4222 --creds platform.creds flush --all
  logboom admin scale shop --ranges split           every segment into two
  logboom admin truncate shop --cut tail --yes      forget what is there
  logboom admin export shop --to /backup/shop       and `restore --from /backup/shop` brings it back
  logboom admin repair --all                        what does not fit together";

/// Looks into streams, segments and containers, and changes them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AdminArgs {
    #[command(flatten)]
    installation: Installation,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AdminCommand {
    /// Living replicas of every service, and which of them leads
    Nodes,
    /// Where every container is, and how it is
    Containers,
    /// A stream with its policies and epochs
    Describe {
        /// Index
        index: IndexName,
    },
    /// The segments of an index with their ranges, neighbours and offsets
    Segments {
        /// Index
        index: IndexName,
    },
    /// The chunks of an index in object storage
    Chunks {
        /// Index
        index: IndexName,
        /// Only of this segment, written STREAM-EPOCH-NUMBER
        #[arg(long)]
        segment: Option<types::SegmentId>,
    },
    /// Events of a segment from an offset on, wherever they are
    Read {
        /// Index
        index: IndexName,
        /// Segment, written STREAM-EPOCH-NUMBER
        #[arg(long)]
        segment: types::SegmentId,
        /// The first offset; the beginning of the segment if left out
        #[arg(long)]
        from: Option<types::Offset>,
        /// How many, at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=look::READ_MAX))]
        count: u64,
    },
    /// Copy an index to a folder or to S3, so that it can be restored
    Export(export::ExportArgs),
    /// Make an index from an export, or from its chunks alone
    Restore(restore::RestoreArgs),
    /// Compare containers with their objects and logs, and mend what can be mended safely
    Repair(repair::RepairArgs),
    /// After JetStream is lost: move all snapshots to quarantine/, so that services start without what is lost
    #[command(
        after_help = "Stop every service first. Bindings, jobs, rules and reader groups are lost with JetStream; indexes come back \
                      with `logboom admin restore --from-chunks --all`."
    )]
    SetAsideSnapshots {
        /// JetStream is lost
        #[arg(long)]
        yes: bool,
        /// No nats-server runs, and the storage of the former is gone for good
        #[arg(long)]
        nats_is_gone: bool,
    },
    /// Replace segments by others that cover the same keys
    Scale {
        /// Index
        index: IndexName,
        /// Segments to end, separated by commas; all present ones if left out
        #[arg(long, value_delimiter = ',')]
        seal: Vec<types::SegmentId>,
        /// What follows: a number of equal ranges, `split` (each into two) or `merge` (neighbours into one)
        #[arg(long)]
        ranges: ranges::Ranges,
    },
    /// Let a stream begin later; what lies before is deleted
    Truncate {
        /// Index
        index: IndexName,
        /// `tail`, or SEGMENT=OFFSET separated by commas, covering the key space once
        #[arg(long)]
        cut: ranges::Cut,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// End a stream: it takes no events any more
    Seal {
        /// Index
        index: IndexName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Move every event of a container to object storage and write a snapshot
    Flush {
        /// Container
        #[arg(required_unless_present = "all")]
        container: Option<u16>,
        /// Every container
        #[arg(long, conflicts_with = "container")]
        all: bool,
    },
    /// The versions of the key of an encrypted index, and the master key that wraps each
    Keys {
        /// Index
        index: IndexName,
    },
    /// Give an encrypted index the next version of its key; what is sealed from then on is sealed with it
    #[command(after_help = "Chunks of before keep their version until compaction writes them anew.")]
    RotateKey {
        /// Index
        index: IndexName,
    },
    /// Write the keys of all encrypted indexes to a file, wrapped as they are
    SaveKeys {
        /// The file; it must not be there
        #[arg(long)]
        to: std::path::PathBuf,
    },
    /// Bring back keys of encrypted indexes that are missing, after the loss of JetStream; those that are there stay
    LoadKeys {
        /// A file of `save-keys`
        #[arg(long)]
        from: std::path::PathBuf,
    },
    /// Write the plain Parquet of one chunk to a file, for tools that have no keys
    Open {
        /// Key of the object, as `logboom admin chunks` shows it
        key: String,
        /// The file; it must not be there
        #[arg(long)]
        to: std::path::PathBuf,
    },
    /// Reader groups
    Groups {
        /// Only of this scope
        #[arg(long)]
        scope: Option<types::ScopeName>,
    },
    /// Transactions of an index: open ones, and the last that ended
    Transactions {
        /// Index
        index: IndexName,
    },
    /// Check the durable log of a container frame by frame; exits with 1 if it is damaged
    #[command(
        after_help = "The log is opened as segment-store opens it, with the copies and the capacity that the settings say: where they are \
                      not those of segment-store, the log would get them. So it wants --yes, but for a local standalone."
    )]
    Log {
        /// Container
        container: u16,
        /// Say only whether it is whole
        #[arg(long)]
        quiet: bool,
        /// The settings are those of the installation
        #[arg(long)]
        yes: bool,
    },
    /// Read a password from standard input and print the user's line for coordinator.rest_password_file
    #[command(
        after_help = "Example:\n  logboom admin password ann --acl 'prn::/scope:shop/*,READ' < secret >> passwords"
    )]
    Password {
        /// User
        user: String,
        /// What the user may do, for example `prn::/scope:shop/*,READ_UPDATE;prn::/,READ`
        #[arg(long, default_value = "")]
        acl: String,
    },
}

impl AdminArgs {
    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        if let AdminCommand::Password { user, acl } = &self.command {
            return password::print(user, acl, screen);
        }
        let (settings, local) = self.installation.settings(connection)?;
        if let AdminCommand::SetAsideSnapshots { yes, nats_is_gone } = self.command {
            anyhow::ensure!(yes, "this is for an installation whose JetStream is lost; if it is, repeat with --yes");
            return aside::set_aside(settings.section::<Common>()?, nats_is_gone, screen).await;
        }
        let admin = Admin::connect(settings.section::<Common>()?, screen).await?;
        match self.command {
            AdminCommand::Nodes => admin.nodes_alive().await,
            AdminCommand::Containers => admin.containers().await,
            AdminCommand::Describe { index } => admin.describe(&index).await,
            AdminCommand::Read { index, segment, from, count } => admin.read_range(&index, segment, from, count).await,
            AdminCommand::Export(args) => admin.export(args).await,
            AdminCommand::Restore(args) => admin.restore(args).await,
            AdminCommand::Repair(args) => {
                let config = settings.section::<segment_store::Config>()?;
                if args.log {
                    admin.may_open_logs(&config, local || args.yes)?;
                }
                admin.repair(args, &config).await
            }
            AdminCommand::Segments { index } => admin.segments(&index).await,
            AdminCommand::Chunks { index, segment } => admin.chunks(&index, segment).await,
            AdminCommand::Scale { index, seal, ranges } => admin.scale(index, seal, ranges).await,
            AdminCommand::Truncate { index, cut, yes } => {
                anyhow::ensure!(yes, "this deletes events of {index} for ever; repeat with --yes");
                admin.truncate(index, cut).await
            }
            AdminCommand::Seal { index, yes } => {
                anyhow::ensure!(yes, "{index} will never take an event again; repeat with --yes");
                admin.seal(index).await
            }
            AdminCommand::Keys { index } => admin.keys(&index).await,
            AdminCommand::RotateKey { index } => admin.rotate_key(&index).await,
            AdminCommand::SaveKeys { to } => admin.save_keys(&to).await,
            AdminCommand::LoadKeys { from } => admin.load_keys(&from).await,
            AdminCommand::Open { key, to } => admin.open(&key, &to).await,
            AdminCommand::Flush { container, .. } => admin.flush(container.map(ContainerId)).await,
            AdminCommand::Groups { scope } => admin.groups(scope).await,
            AdminCommand::Transactions { index } => admin.transactions(index).await,
            AdminCommand::Log { container, quiet, yes } => {
                let config = settings.section::<segment_store::Config>()?;
                admin.may_open_logs(&config, local || yes)?;
                admin.log(ContainerId(container), &config, quiet).await
            }
            AdminCommand::Password { .. } | AdminCommand::SetAsideSnapshots { .. } => Ok(()),
        }
    }
}

impl Admin {
    /// Refuses to open logs where the settings may be others than those of the installation.
    fn may_open_logs(&self, config: &segment_store::Config, sure: bool) -> anyhow::Result<()> {
        let (copies, tail) = (self.host.common.journal_replicas, config.tail_bytes_max);
        anyhow::ensure!(
            sure,
            "the log is opened as segment-store does it, with common.journal_replicas = {copies} and \
             segment_store.tail_bytes_max = {tail}, and would get these if it has others; if they are those of the \
             installation, repeat with --yes"
        );
        Ok(())
    }
}
