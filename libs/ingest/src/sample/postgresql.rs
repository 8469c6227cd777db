//! PostgreSQL, plain text with `log_line_prefix = '%m [%p] %q%u@%d '`.

use types::Severity::{self, Error, Fatal, Info, Warn};

use super::{
    Facts,
    fill::fill,
    rng::{Rng, Zipf},
    stamp::Civil,
};

/// Whether a session prints its user and database, and the message; commonest first.
const FINE: [(bool, &str); 12] = [
    (true, "duration: {ms} ms  statement: SELECT * FROM {table} WHERE id = {id}"),
    (true, "duration: {ms} ms  execute <unnamed>: UPDATE {table} SET state = $1 WHERE id = $2"),
    (false, "checkpoint starting: time"),
    (true, "connection authorized: user={user} database=shop SSL enabled (protocol=TLSv1.3)"),
    (true, "disconnection: session time: 0:00:{small}.{small} user={user} database=shop host={ip} port={port}"),
    (false, "checkpoint complete: wrote {id} buffers; 0 WAL file(s) added; distance={id} kB, estimate={id} kB"),
    (false, "connection received: host={ip} port={port}"),
    (false, "automatic vacuum of table \"shop.public.{table}\": index scans: 1"),
    (false, "automatic analyze of table \"shop.public.{table}\" system usage: CPU: user: {ms} s"),
    (true, "temporary file: path \"base/pgsql_tmp/pgsql_tmp{id}.{small}\", size {bytes}"),
    (true, "process {id} still waiting for ShareLock on transaction {id} after 1000.{small} ms"),
    (false, "redo done at {lsn} system usage: elapsed: {ms} s"),
];

const FAILING: [(Severity, bool, &str); 7] = [
    (Error, true, "duplicate key value violates unique constraint \"{table}_pkey\""),
    (Error, true, "deadlock detected"),
    (Fatal, true, "password authentication failed for user \"{user}\""),
    (Error, true, "canceling statement due to statement timeout"),
    (Warn, false, "worker took too long to start; canceled"),
    (Error, true, "relation \"{table}_old\" does not exist at character {small}"),
    (Fatal, false, "remaining connection slots are reserved for roles with the SUPERUSER attribute"),
];

pub(super) fn line(rng: &mut Rng, zipf: &Zipf, time: Civil, failing: bool) -> (String, Facts) {
    let (severity, session, message) = if failing {
        zipf.pick(rng, &FAILING)
    } else {
        let (session, message) = zipf.pick(rng, &FINE);
        (Info, session, message)
    };
    let word = match severity {
        Error => "ERROR",
        Fatal => "FATAL",
        Warn => "WARNING",
        _ => "LOG",
    };
    let mut out = String::with_capacity(160);
    out.push_str(&format!("{} UTC [", time.plain_millis('.')));
    fill(rng, "{id}] ", &mut out);
    if session {
        out.push_str("shop@shop ");
    }
    out.push_str(&format!("{word}:  "));
    fill(rng, message, &mut out);
    (out, Facts { severity: Some(severity), ..Facts::default() })
}
