//! What the corpus's software writes: ten systems, their services and their messages.

/// One kind of software.
pub(super) struct System {
    /// Its share of the lines, in percent.
    pub(super) share: u64,
    pub(super) namespace: &'static str,
    pub(super) services: &'static [&'static str],
    pub(super) messages: &'static [Message],
}

/// A message: its share among those of its system, its level, and its text with `{slots}`.
pub(super) type Message = (u64, Level, &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

use Level::{Debug as Detail, Error, Fatal, Info, Warn};

pub(super) const SYSTEMS: [System; 10] = [
    System { share: 23, namespace: "storage", services: &["datanode", "namenode", "balancer"], messages: BLOCKS },
    System { share: 18, namespace: "cloud", services: &["compute-api", "compute-node", "scheduler"], messages: CLOUD },
    System { share: 16, namespace: "compute", services: &["executor", "driver", "shuffle"], messages: BATCH },
    System { share: 10, namespace: "edge", services: &["bastion", "jump-host"], messages: SHELL },
    System { share: 8, namespace: "storage", services: &["quorum", "quorum-peer", "quorum-client"], messages: QUORUM },
    System { share: 8, namespace: "edge", services: &["frontend", "admin-site", "static-site"], messages: WEB },
    System { share: 6, namespace: "legacy", services: &["syslog", "ftp-gateway", "mail-relay"], messages: UNIX },
    System { share: 5, namespace: "hpc", services: &["kernel-monitor", "io-daemon"], messages: MACHINE },
    System { share: 4, namespace: "mobile", services: &["device-farm", "power", "ui-server"], messages: DEVICE },
    System { share: 2, namespace: "edge", services: &["egress-proxy", "resolver", "vpn"], messages: PROXY },
];

const BLOCKS: &[Message] = &[
    (24, Info, "Receiving block {block} src: /{ip}:{port} dest: /{ip}:50010"),
    (12, Info, "PacketResponder {small} for block {block} terminating"),
    (11, Info, "Received block {block} of size {size} from /{ip}"),
    (18, Info, "NameSystem.addStoredBlock: blockMap updated: {ip}:50010 is added to {block} size {size}"),
    (8, Info, "NameSystem.allocateBlock: {path}/part-{number}. {block}"),
    (9, Info, "Verification succeeded for {block}"),
    (5, Info, "Deleting block {block} file /data/current/subdir{small}/{block}"),
    (4, Info, "Served block {block} to /{ip}"),
    (3, Warn, "{ip}:50010:Got exception while serving {block} to /{ip}:"),
    (3, Warn, "Redundant addStoredBlock request received for {block} on {ip}:50010 size {number}"),
    (2, Error, "writeBlock {block} received exception java.io.IOException: Could not read from stream"),
    (1, Detail, "Block report of {number} blocks took {number} msec to generate and {small} msec for RPC"),
];

const CLOUD: &[Message] = &[
    (30, Info, "{ip} \"GET /v2/{hex}/servers/detail HTTP/1.1\" status: 200 len: {number} time: 0.{number}"),
    (14, Info, "{ip} \"POST /v2/{hex}/os-server-external-events HTTP/1.1\" status: 200 len: 380 time: 0.{number}"),
    (8, Info, "[instance: {uuid}] VM Started (Lifecycle Event)"),
    (8, Info, "[instance: {uuid}] VM Paused (Lifecycle Event)"),
    (6, Info, "[instance: {uuid}] During sync_power_state the instance has a pending task (spawning). Skip."),
    (5, Info, "image {uuid} at (/var/lib/images/{hex}): checking"),
    (5, Info, "[instance: {uuid}] Took {small}.{number} seconds to build instance."),
    (4, Info, "Compute_service record updated for {host}"),
    (4, Info, "[instance: {uuid}] Total memory: {number} MB, used: {number}.00 MB"),
    (8, Warn, "Unknown base file: /var/lib/images/{hex}"),
    (
        4,
        Warn,
        "While synchronizing instance power states, found {small} instances in the database and {small} on {host}.",
    ),
    (3, Error, "[instance: {uuid}] Error while fetching metadata from {ip}: connection timed out after {number} ms"),
    (1, Detail, "Lock \"{uuid}\" acquired by \"clean_running_deleted\" :: waited 0.{number}s"),
];

const BATCH: &[Message] = &[
    (18, Info, "Finished task {small}.0 in stage {number}.0 (TID {id}). {number} bytes result sent to driver"),
    (18, Info, "Running task {small}.0 in stage {number}.0 (TID {id})"),
    (16, Info, "Found block rdd_{small}_{number} locally"),
    (
        12,
        Info,
        "Block broadcast_{number} stored as values in memory (estimated size {small}.{small} KB, free {number}.{small} KB)",
    ),
    (8, Info, "Got assigned task {id}"),
    (6, Info, "Started reading broadcast variable {number}"),
    (6, Info, "Reading broadcast variable {number} took {number} ms"),
    (5, Info, "Input split: hdfs://{host}:9000{path}/part-{number}:{number}+{size}"),
    (4, Info, "Times: total = {number}, boot = {small}, init = {small}, finish = {small}"),
    (3, Warn, "Lost task {small}.0 in stage {number}.0 (TID {id}, {host}): FetchFailed"),
    (
        3,
        Error,
        "Exception in task {small}.0 in stage {number}.0 (TID {id}): java.lang.OutOfMemoryError: GC overhead limit exceeded",
    ),
    (1, Detail, "Getting {small} non-empty blocks out of {number} blocks"),
];

const SHELL: &[Message] = &[
    (22, Error, "Failed password for invalid user {user} from {ip} port {port} ssh2"),
    (16, Info, "Received disconnect from {ip}: 11: Bye Bye [preauth]"),
    (12, Error, "Failed password for root from {ip} port {port} ssh2"),
    (10, Info, "pam_unix(sshd:auth): check pass; user unknown"),
    (10, Warn, "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={ip}"),
    (8, Info, "Invalid user {user} from {ip}"),
    (6, Info, "input_userauth_request: invalid user {user} [preauth]"),
    (6, Info, "Connection closed by {ip} [preauth]"),
    (
        4,
        Warn,
        "reverse mapping checking getaddrinfo for {word}.{word}.example [{ip}] failed - POSSIBLE BREAK-IN ATTEMPT!",
    ),
    (4, Info, "Accepted publickey for {user} from {ip} port {port} ssh2: RSA SHA256:{hex}"),
    (2, Fatal, "error: maximum authentication attempts exceeded for {user} from {ip} port {port} ssh2 [preauth]"),
];

const QUORUM: &[Message] = &[
    (22, Info, "Received connection request /{ip}:{port}"),
    (14, Warn, "Cannot open channel to {small} at election address /{ip}:3888"),
    (12, Info, "Closed socket connection for client /{ip}:{port} which had sessionid 0x{hex}"),
    (11, Warn, "Connection broken for id {id}, my id = {small}, error ="),
    (10, Info, "Accepted socket connection from /{ip}:{port}"),
    (8, Info, "Client attempting to establish new session at /{ip}:{port}"),
    (8, Info, "Established session 0x{hex} with negotiated timeout {number} for client /{ip}:{port}"),
    (6, Warn, "caught end of stream exception: Unable to read additional data from client sessionid 0x{hex}"),
    (4, Info, "Notification time out: {number}"),
    (3, Error, "Unexpected exception causing shutdown while sock still open: server {small}, epoch {number}"),
    (2, Detail, "Processing request:: sessionid:0x{hex} type:ping cxid:0x{number} zxid:0x{hex}"),
];

const WEB: &[Message] = &[
    (30, Info, "{ip} - - \"GET {path}/{word}.html HTTP/1.1\" 200 {number} \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\""),
    (16, Info, "jk2_init() Found child {id} in scoreboard slot {small}"),
    (12, Info, "workerEnv.init() ok /etc/httpd/conf/workers2.properties"),
    (10, Error, "mod_jk child workerEnv in error state {small}"),
    (8, Error, "[client {ip}] File does not exist: /var/www{path}/{word}.php"),
    (7, Error, "[client {ip}] Directory index forbidden by rule: /var/www{path}/"),
    (6, Info, "{ip} - {user} \"POST /api/{word}/{id} HTTP/1.1\" 201 {number} \"-\" \"curl/8.5.0\""),
    (4, Warn, "{ip} - - \"GET /{word} HTTP/1.1\" 404 {number} \"-\" \"bot/1.{small}\""),
    (2, Fatal, "Can't find child {id} in scoreboard"),
];

const UNIX: &[Message] = &[
    (22, Info, "connection from {ip} ({word}.{word}.example) at day {small}"),
    (18, Warn, "authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost={ip} user={user}"),
    (12, Info, "session opened for user {user} by (uid={small})"),
    (12, Info, "session closed for user {user}"),
    (8, Error, "ALERT exited abnormally with [{small}]"),
    (
        8,
        Info,
        "to=<{user}@{word}.example>, relay={ip}, delay={small}.{small}, status=sent (250 2.0.0 Ok: queued as {hex})",
    ),
    (6, Warn, "Kerberos authentication failed for {user}: clock skew of {number} s"),
    (4, Info, "ANONYMOUS FTP LOGIN FROM {ip}, (anonymous)"),
    (2, Error, "Out of Memory: Killed process {id} ({word})."),
];

const MACHINE: &[Message] = &[
    (26, Info, "instruction cache parity error corrected"),
    (16, Info, "generating core.{number}"),
    (12, Info, "{small} floating point alignment exceptions"),
    (12, Info, "CE sym {small}, at 0x{hex}, mask 0x{small}"),
    (10, Fatal, "data TLB error interrupt"),
    (8, Error, "ciod: failed to read message prefix on control stream (CioStream socket to {ip}:{port}"),
    (8, Fatal, "machine check: i-fetch................0"),
    (8, Info, "{small} ddr errors(s) detected and corrected on rank 0, symbol {small}, bit {small}"),
    (4, Error, "ciod: LOGIN chdir({path}/{user}) failed: No such file or directory"),
];

const DEVICE: &[Message] = &[
    (22, Detail, "acquire lock={id}, flags=0x1, tag=\"View Lock\", name={word}, ws=null, uid=1000, pid={number}"),
    (20, Detail, "release:lock={id}, flg=0x0, tag=\"View Lock\", name={word}\", ws=null, uid=1000, pid={number}"),
    (
        14,
        Detail,
        "ready=true,policy={small},wakefulness={small},wksummary=0x{small},uasummary=0x{small},bootcompleted=true",
    ),
    (12, Info, "Skipping AppWindowToken{{hex} token=Token{{hex} ActivityRecord{{hex} u0 com.{word}.{word}}}}"),
    (10, Detail, "onTouchEvent: slot {small} at {number},{number} pressure 0.{small}"),
    (8, Warn, "getRunningAppProcesses: caller {id} does not hold REAL_GET_TASKS; limiting output"),
    (6, Error, "Error getting package info: com.{word}.{word}"),
];

const PROXY: &[Message] = &[
    (40, Info, "{word}.{word}.example:443 open through proxy {ip}:8080 HTTPS"),
    (
        34,
        Info,
        "{word}.{word}.example:443 close, {number} bytes sent, {number} bytes received, lifetime {small}:{small}",
    ),
    (12, Warn, "query {word}.example IN AAAA: upstream {ip}:53 answered after {number} ms"),
    (8, Error, "{word}.{word}.example:443 error : Could not connect through proxy {ip}:8080 - status code 503"),
];

/// Words of which rare messages are made: what did what to what.
pub(super) const ACTORS: [&str; 16] = [
    "Replica", "Session", "Tablet", "Lease", "Watcher", "Volume", "Router", "Cache", "Quota", "Ticket", "Worker",
    "Shard", "Token", "Mirror", "Channel", "Snapshot",
];
pub(super) const ACTIONS: [&str; 16] = [
    "rejected",
    "expired",
    "moved",
    "recovered",
    "refused",
    "scheduled",
    "released",
    "exceeded",
    "renewed",
    "dropped",
    "merged",
    "verified",
    "restarted",
    "published",
    "skipped",
    "delayed",
];
pub(super) const OBJECTS: [&str; 12] = [
    "for tenant {user}",
    "from {ip}:{port}",
    "after {number} ms",
    "at {path}",
    "on {host}",
    "with id {uuid}",
    "of {number} bytes",
    "by {word}",
    "in slot {small}",
    "at epoch {number}",
    "under key {hex}",
    "as request {id}",
];
pub(super) const WORDS: [&str; 24] = [
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper", "kestrel", "lagoon",
    "meadow", "nectar", "orchid", "pebble", "quartz", "raven", "sierra", "thistle", "umbra", "violet", "willow",
    "zephyr",
];
pub(super) const USERS: [&str; 16] = [
    "admin", "oracle", "test", "deploy", "git", "ubuntu", "guest", "postgres", "nagios", "support", "ftpuser", "mysql",
    "jenkins", "alice", "bob", "carol",
];
pub(super) const PATHS: [&str; 8] = [
    "/user/etl/orders",
    "/srv/warehouse/orders",
    "/home/shared/results",
    "/tmp/staging",
    "/var/data/index",
    "/mnt/lake/events",
    "/opt/models/current",
    "/backup/daily",
];
