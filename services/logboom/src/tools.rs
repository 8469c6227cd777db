//! The tools: each is one request to a public door, and one way to show its answer.

mod admin;
mod broker;
mod connection;
pub(crate) mod index;
mod installation;
mod job;
mod library;
mod logs;
mod rule;
mod status;

pub(crate) use self::broker::BrokerArgs;
pub(crate) use admin::AdminArgs;
pub(crate) use connection::{Api, Connection, RunFile, ToolError};
pub(crate) use index::{BindingsCommand, IndexCommand};
pub(crate) use job::JobCommand;
pub(crate) use library::LibraryCommand;
pub(crate) use logs::{PublishArgs, QueryArgs, TailArgs};
pub(crate) use rule::RuleCommand;
pub(crate) use status::StatusArgs;
