//! Every subject, request, reply, event and error that crosses a process, declared once.
//!
//! Owns the contract tables (`calls!`, `events!`), the message shapes, the error model and the columnar block in
//! which events travel. `docs/subjects.md` and the NATS permissions come from [`registry`].
//! Deliberately does not know: sockets, NATS clients, retries in flight, or what any service does with a message.
//!
//! ```
//! use wire::{Call, segment_store::SealSegment, subject_of};
//!
//! assert_eq!(subject_of::<SealSegment>(&types::ContainerId(3)), "lb.v1.segment-store.container.3.seal");
//! assert_eq!(SealSegment::OWNER, wire::Service::SegmentStore);
//! ```

#[macro_use]
mod table;

pub mod alerter;
pub mod block;
pub mod broker;
pub mod coordinator;
pub mod delegation;
pub mod header;
pub mod index_provisioner;
pub mod job_manager;
mod kind;
pub mod page;
mod problem;
mod registry;
pub mod segment_store;
mod service;
pub mod subjects;
pub mod task_worker;
pub mod views;

pub use kind::{KINDS, Kind, kind, pages_markdown};
pub use problem::{Code, Outcome, Problem, Retry};
pub use registry::{Row, registry, subjects_markdown};
pub use service::Service;
pub use table::{Call, Event, Key, decode, encode, filter_of, subject_of, subject_of_event};

/// The empty request or reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Empty {}
