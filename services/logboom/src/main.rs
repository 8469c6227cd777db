//! The only binary: `logboom <service>`, `logboom standalone`, and the tools that people type.
//!
//! Owns the command line, the order of starting up and the way answers look on a terminal.
//! Deliberately does not know: what any service decides, or any subject or table of theirs.
//!
//! ```text
//! logboom standalone            every service in one process, with a nats-server of its own
//! logboom query 'SELECT count(*) FROM shop'
//! ```

mod cli;
mod keys;
mod nats_child;
mod process;
mod screen;
mod standalone;
mod tools;
mod walk;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One TLS provider for everything that may open a connection; it can only be set once.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("tls provider was installed before");
    }
    match cli::Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // Nothing can be done about a closed terminal.
            let _closed = error.print();
            ExitCode::from(code)
        }
    }
}
