//! `logboom broker`: the service itself, and what an operator does with its service instances, over its own calls.

mod audit;
mod upgrades;

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use settings::Common;
use types::{BindingId, InstanceId};
use wire::{
    broker::{
        AbandonInstance, Abandonment, BindingView, BindingsOf, InstanceDetails, InstanceView, InstancesOf,
        ListInstances, OperationView, Retrial, RetryOperation, RotateBinding, Rotation, ShowInstance,
    },
    coordinator::Page,
};

use super::{
    Connection,
    installation::{Admin, Installation, time},
};
use crate::screen::Screen;

/// Entries in one answer of the broker.
const PAGE: Page = Page(1_000);
/// Instances or bindings that are listed at most: as many as an installation has.
const LISTED_MAX: usize = 100_000;
/// Instances that are asked for at once.
const ASKED_MAX: usize = 8;

const EXAMPLES: &str = "Without a command this runs the service.

Examples:
  logboom broker list --pending                     what is under way, with a local standalone
  logboom broker --settings /etc/logboom/logboom.toml show 4f9c2c0a
  logboom broker --nats nats://nats:4222 --creds platform.creds retry --all
  logboom broker abandon 4f9c2c0a --yes             forget what cannot be deprovisioned
  logboom broker rotate 4f9c2c0a 77d0               new credentials beside the old ones
  logboom broker upgrade-all                        exits with 0 only if each instance was upgraded
  logboom broker audit --since 2h --instance 4f9c2c0a";

/// Runs the broker, or speaks to the one that leads.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BrokerArgs {
    #[command(flatten)]
    pub(crate) installation: Installation,
    #[command(subcommand)]
    command: Option<BrokerCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum BrokerCommand {
    /// Service instances, with their plans and how far they are
    List {
        /// Only those with something that was begun and has not ended
        #[arg(long)]
        pending: bool,
        /// Only those whose plan has another maintenance version than they have
        #[arg(long)]
        upgradable: bool,
    },
    /// A service instance with its operation and its bindings, without secrets and parameters
    Show {
        /// Service instance
        instance: InstanceId,
    },
    /// Take up now what is under way on an instance and its bindings, whatever pause its failures have earned
    Retry {
        /// Service instance
        #[arg(required_unless_present = "all")]
        instance: Option<InstanceId>,
        /// Every instance with something that was begun and has not ended
        #[arg(long, conflicts_with = "instance")]
        all: bool,
    },
    /// Forget an instance with its bindings; to its platform it is gone
    #[command(
        after_help = "What stands behind it is not asked for anything. The reconciler removes it later, with its events, once the back-end \
                      answers. With --delete the instance is deprovisioned instead, as its platform would do it."
    )]
    Abandon {
        /// Service instance
        instance: InstanceId,
        /// Deprovision it instead of forgetting it
        #[arg(long)]
        delete: bool,
        /// Also if it can be used
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Make a binding that takes the place of another one, which stays valid until it is unbound or ends
    #[command(
        after_help = "The new credentials are fetched as those of any binding: GET /v2/service_instances/…/service_bindings/…"
    )]
    Rotate {
        /// Service instance
        instance: InstanceId,
        /// Service binding that is there
        binding: BindingId,
        /// Id of the new one; made up if left out
        #[arg(long = "as", value_name = "BINDING")]
        successor: Option<BindingId>,
    },
    /// Bring every instance to the maintenance version of its plan; exits with 0 only if each was upgraded
    UpgradeAll(upgrades::UpgradeArgs),
    /// Who wanted what changed, and what became of it
    Audit(audit::AuditArgs),
}

impl BrokerArgs {
    /// Whether the service is wanted, not a tool.
    pub(crate) fn is_service(&self) -> bool {
        self.command.is_none()
    }

    /// Runs the tool.
    pub(crate) async fn run(self, connection: &Connection, screen: Screen) -> anyhow::Result<()> {
        let Some(command) = self.command else { return Ok(()) };
        let (settings, _) = self.installation.settings(connection)?;
        let tools = Tools { admin: Admin::connect(settings.section::<Common>()?, screen).await? };
        match command {
            BrokerCommand::List { pending, upgradable } => tools.list(pending, upgradable).await,
            BrokerCommand::Show { instance } => tools.show(instance).await,
            BrokerCommand::Retry { instance: Some(instance), .. } => tools.retry(vec![instance]).await,
            BrokerCommand::Retry { instance: None, .. } => {
                let pending = tools.instances(true, false).await?;
                tools.retry(pending.into_iter().map(|view| view.instance).collect()).await
            }
            BrokerCommand::Abandon { instance, delete, force, yes } => {
                let what = if delete {
                    "deletes its events"
                } else {
                    "leaves what it has to the reconciler, which removes it"
                };
                anyhow::ensure!(yes, "this takes {instance} from its platform and {what}; repeat with --yes");
                tools.abandon(instance, delete, force).await
            }
            BrokerCommand::Rotate { instance, binding, successor } => {
                let made_up = || uuid::Uuid::new_v4().to_string().parse();
                let successor = successor.map_or_else(made_up, Ok)?;
                tools.rotate(instance, binding, successor).await
            }
            BrokerCommand::UpgradeAll(args) => tools.upgrade_all(&args).await,
            BrokerCommand::Audit(args) => tools.audit(&args).await,
        }
    }
}

/// The calls of the broker, and how their answers look.
struct Tools {
    admin: Admin,
}

impl Tools {
    async fn instances(&self, pending: bool, upgradable: bool) -> anyhow::Result<Vec<InstanceView>> {
        let mut all: Vec<InstanceView> = Vec::new();
        let mut wanted = InstancesOf { after: None, pending, upgradable, limit: PAGE };
        loop {
            let page = self.admin.call::<ListInstances>(&(), &wanted).await?;
            let more = page.more && !page.instances.is_empty();
            all.extend(page.instances);
            if !more || all.len() > LISTED_MAX {
                return Ok(all);
            }
            wanted.after = all.last().map(|view| view.instance.clone());
        }
    }

    async fn details(&self, instance: InstanceId) -> anyhow::Result<InstanceDetails> {
        let mut wanted = BindingsOf { instance, after: None, limit: PAGE };
        let mut details = self.admin.call::<ShowInstance>(&(), &wanted).await?;
        while details.more && details.bindings.len() <= LISTED_MAX {
            wanted.after = details.bindings.last().map(|view| view.binding.clone());
            let page = self.admin.call::<ShowInstance>(&(), &wanted).await?;
            details.more = page.more && !page.bindings.is_empty();
            details.bindings.extend(page.bindings);
        }
        Ok(details)
    }

    async fn list(&self, pending: bool, upgradable: bool) -> anyhow::Result<()> {
        let rows: Vec<Value> = self.instances(pending, upgradable).await?.iter().map(instance_row).collect();
        let columns =
            ["instance", "plan", "index", "backend", "phase", "operation", "began", "bindings", "version", "upgrade"];
        self.admin.screen.rows(&rows, &columns);
        Ok(())
    }

    async fn show(&self, instance: InstanceId) -> anyhow::Result<()> {
        let details = self.details(instance.clone()).await?;
        let screen = self.admin.screen;
        let head = match (&details.instance, &details.ended) {
            (Some(view), _) => instance_row(view),
            (None, Some(ended)) => {
                let mut row = json!({ "instance": instance, "phase": "gone", "ended": time(ended.at) });
                operation_into(&mut row, &ended.operation);
                row
            }
            (None, None) => Value::Null,
        };
        let bindings: Vec<Value> = details.bindings.iter().map(binding_row).collect();
        if screen.is_json() {
            let mut whole = head;
            whole["bindings"] = bindings.into();
            screen.value(&whole);
            return Ok(());
        }
        for (name, value) in head.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            screen.line(format_args!("{name:14} {text}"));
        }
        if !bindings.is_empty() {
            let columns = ["binding", "role", "phase", "operation", "began", "expires", "predecessor", "user"];
            screen.rows(&bindings, &columns);
        }
        Ok(())
    }

    /// Each is asked for, whatever becomes of the others.
    async fn retry(&self, instances: Vec<InstanceId>) -> anyhow::Result<()> {
        let count = instances.len();
        let by = &who();
        let asked = stream::iter(instances).map(|instance| async move {
            let retrial = Retrial { instance: instance.clone(), by: by.clone() };
            (instance, self.admin.call::<RetryOperation>(&(), &retrial).await)
        });
        let answers: Vec<_> = asked.buffered(ASKED_MAX).collect().await;
        let mut refusals = Vec::new();
        let mut rows = Vec::new();
        for (instance, answer) in answers {
            match answer {
                Ok(retried) => rows.push(json!({ "instance": instance, "operations": retried.operations.join(",") })),
                Err(refusal) => refusals.push((instance, refusal)),
            }
        }
        self.admin.screen.rows(&rows, &["instance", "operations"]);
        match refusals.len() {
            0 => Ok(()),
            1 if count == 1 => Err(refusals.remove(0).1.into()),
            failed => {
                let said = refusals.iter().map(|(instance, refusal)| format!("\n  {instance}: {refusal}"));
                anyhow::bail!("{failed} of {count} instances were not retried:{}", said.collect::<String>())
            }
        }
    }

    async fn abandon(&self, instance: InstanceId, delete: bool, force: bool) -> anyhow::Result<()> {
        let wanted = Abandonment { instance: instance.clone(), delete, force, by: who() };
        let abandoned = self.admin.call::<AbandonInstance>(&(), &wanted).await?;
        let done = match (&abandoned.operation, delete) {
            (Some(_), _) => "deprovisioning",
            (None, true) => "deprovisioned",
            (None, false) => "forgotten",
        };
        if self.admin.screen.is_json() {
            let row = json!({ "instance": instance, "outcome": done, "operation": abandoned.operation });
            self.admin.screen.value(&row);
        } else {
            self.admin.screen.line(format_args!("instance {instance}: {done}"));
        }
        Ok(())
    }

    async fn rotate(&self, instance: InstanceId, binding: BindingId, successor: BindingId) -> anyhow::Result<()> {
        let rotation = Rotation { instance, binding: binding.clone(), successor, by: who() };
        let made = self.admin.call::<RotateBinding>(&(), &rotation).await?;
        if self.admin.screen.is_json() {
            self.admin.screen.value(&binding_row(&made));
        } else {
            let line =
                format!("binding {} takes the place of {binding}, which stays valid until it is unbound", made.binding);
            self.admin.screen.line(line);
        }
        Ok(())
    }
}

/// What the audit says of whoever types: the name of the user as the shell has it.
fn who() -> String {
    #[allow(clippy::disallowed_methods, reason = "the person at the terminal, not a setting")]
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    user.unwrap_or_else(|_| "unknown".to_owned())
}

fn instance_row(view: &InstanceView) -> Value {
    let mut row = json!({
        "instance": view.instance, "plan": format!("{}/{}", view.service, view.plan), "index": view.index,
        "scope": view.scope, "backend": view.backend, "phase": view.phase, "bindings": view.binding_count,
        "version": view.version, "upgrade": view.upgrade, "organization": view.organization, "space": view.space,
        "platform": view.platform, "user": view.user,
    });
    operation_into(&mut row, &view.operation);
    row
}

fn binding_row(view: &BindingView) -> Value {
    let mut row = json!({
        "binding": view.binding, "role": view.role, "phase": view.phase, "expires": view.expires.map(time),
        "predecessor": view.predecessor, "platform": view.platform, "user": view.user,
    });
    operation_into(&mut row, &view.operation);
    row
}

fn operation_into(row: &mut Value, operation: &OperationView) {
    row["operation"] = operation.token.clone().into();
    row["began"] = time(operation.begun).into();
    row["pending"] = (!operation.ended).into();
    row["failure"] = operation.failure.clone().into();
    row["problem"] = operation.problem.clone().into();
}
