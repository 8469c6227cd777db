//! Settings, ports, and the command line.

use std::process::Command;

use anyhow::Result;
use logboom_tests::{free_port, nats_server};

use crate::row::{Row, Section, Seen, World};

pub(crate) fn section() -> Section {
    Section {
        title: "Processes and settings",
        words: "Exit codes: 1 failed, 2 wrong usage, 3 refused by a service, 4 not reachable. All findings about settings come at once.",
        rows: settings().into_iter().chain(starts()).chain(tools()).collect(),
    }
}

fn check(world: &World, set: &[&str]) -> Result<Seen> {
    let mut command = world.command(&["settings", "check"])?;
    for one in set {
        command.args(["--set", one]);
    }
    Seen::exit(&mut command)
}

fn settings() -> Vec<Row> {
    vec![
        Row {
            input: "a setting that does not exist: `segment_store.flush_byte`",
            answer: "exit 1",
            says: &[
                "segment_store.flush_byte",
                "(from --set)",
                "there is no such setting; did you mean segment_store.flush_bytes?",
            ],
            then: "",
            run: |w| Box::pin(async { check(w, &["segment_store.flush_byte=16MiB"]) }),
        },
        Row {
            input: "two values out of range",
            answer: "exit 1",
            says: &["task_worker.slots = 0 (from --set): must be from 1 to 256", "segment_store.appends_in_flight_max"],
            then: "both are listed",
            run: |w| Box::pin(async { check(w, &["task_worker.slots=0", "segment_store.appends_in_flight_max=0"]) }),
        },
        Row {
            input: "a secret written as a value",
            answer: "exit 1",
            says: &["broker.password = ***", "a secret is given by reference: file:PATH or env:NAME"],
            then: "it is not repeated",
            run: |w| Box::pin(async { check(w, &["broker.password=hunter2"]) }),
        },
        Row {
            input: "a settings file that is not TOML",
            answer: "exit 1",
            says: &["broken.toml"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let file = w.fresh("broken.toml");
                    std::fs::write(&file, "[gateway\n")?;
                    Seen::exit(w.command(&["settings", "check", "--settings"])?.arg(file))
                })
            },
        },
    ]
}

/// A standalone that must not start.
fn standalone(world: &World, name: &str, set: &[String]) -> Result<Command> {
    let mut command = world.command(&["standalone", "--data"])?;
    command.arg(world.fresh(name));
    for one in set {
        command.args(["--set", one]);
    }
    Ok(command)
}

fn starts() -> Vec<Row> {
    vec![
        Row {
            input: "logs larger than the disk: `segment_store.tail_bytes_max = 64GiB`",
            answer: "exit 1",
            says: &[
                "segment-store cannot begin: the log of container",
                "131104 MiB",
                "10047",
                "max_file_store",
                "segment_store.tail_bytes_max",
            ],
            then: "it ends instead of waiting for room",
            run: |w| {
                Box::pin(async {
                    let set = [
                        "segment_store.tail_bytes_max=64GiB".to_owned(),
                        "nats.port=0".to_owned(),
                        format!("nats.server_path={}", nats_server()?.display()),
                        format!("gateway.address=127.0.0.1:{}", free_port()?),
                        format!("broker.address=127.0.0.1:{}", free_port()?),
                    ];
                    let mut command = standalone(w, "large-logs", &set)?;
                    tokio::task::spawn_blocking(move || Seen::exit(&mut command)).await?
                })
            },
        },
        Row {
            input: "a port that is in use: `gateway.address`",
            answer: "exit 1",
            says: &["address \"127.0.0.1:", "cannot be used", "in use"],
            then: "what listens there is not disturbed",
            run: |w| {
                Box::pin(async {
                    let taken = w.api().gateway.trim_start_matches("http://");
                    let mut command = w.command(&["gateway", "--set", "common.replica=second", "--settings"])?;
                    command
                        .arg(w.up.data().join("standalone.toml"))
                        .args(["--set", &format!("gateway.address={taken}")]);
                    let seen = Seen::exit(&mut command)?;
                    w.kept().await?;
                    Ok(seen)
                })
            },
        },
        Row {
            input: "`standalone` with a `nats.port` that is in use",
            answer: "exit 1",
            says: &["something listens on 127.0.0.1:", "--set nats.port=0"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let port = w.api().nats_url.rsplit(':').next().unwrap_or_default();
                    let set = [format!("nats.port={port}"), format!("nats.server_path={}", nats_server()?.display())];
                    Seen::exit(&mut standalone(w, "port", &set)?)
                })
            },
        },
        Row {
            input: "no nats-server",
            answer: "exit 1",
            says: &[
                "nats-server was not found in .tools/bin nor on PATH: run `./justw tools`, or set nats.server_path",
            ],
            then: "",
            run: |w| {
                Box::pin(async {
                    Seen::exit(standalone(w, "none", &["nats.port=0".to_owned()])?.env("PATH", w.fresh("nothing")))
                })
            },
        },
        Row {
            input: "a `nats.server_path` that is not there",
            answer: "exit 1",
            says: &["nats.server_path is /nowhere/nats-server, but there is no such file"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let set = ["nats.port=0".to_owned(), "nats.server_path=/nowhere/nats-server".to_owned()];
                    Seen::exit(&mut standalone(w, "path", &set)?)
                })
            },
        },
        Row {
            input: "a service whose NATS does not answer",
            answer: "exit 1",
            says: &["nats://127.0.0.1:"],
            then: "after 10 s; once it has connected, a service waits for ever",
            run: |w| {
                Box::pin(async {
                    let url = format!("common.nats_url=nats://127.0.0.1:{}", free_port()?);
                    let mut command = w.command(&["coordinator", "--set", &url, "--set", "common.log_format=text"])?;
                    tokio::task::spawn_blocking(move || Seen::exit(&mut command)).await?
                })
            },
        },
        Row {
            input: "a broker without a password",
            answer: "exit 1",
            says: &["broker.password is not set; it, or a line of broker.credentials, is needed to start"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let mut command = w.command(&["broker", "--set", "common.replica=second", "--settings"])?;
                    command.arg(w.up.data().join("standalone.toml"));
                    command.args([
                        "--set",
                        &format!("broker.address=127.0.0.1:{}", free_port()?),
                        "--set",
                        "broker.password=",
                    ]);
                    command.args(["--set", &format!("common.data_dir={}", w.fresh("second").display())]);
                    tokio::task::spawn_blocking(move || Seen::exit(&mut command)).await?
                })
            },
        },
    ]
}

fn tools() -> Vec<Row> {
    vec![
        Row {
            input: "a command that does not exist",
            answer: "exit 2",
            says: &["unrecognized subcommand 'qeury'", "query"],
            then: "",
            run: |w| Box::pin(async { Seen::exit(&mut w.command(&["qeury"])?) }),
        },
        Row {
            input: "a tool where nothing runs",
            answer: "exit 1",
            says: &["nothing runs in", "start it with `./justw up`"],
            then: "",
            run: |w| Box::pin(async { Seen::exit(w.command(&["query", "SELECT 1", "--data"])?.arg(w.fresh("empty"))) }),
        },
        Row {
            input: "a tool whose gateway does not answer",
            answer: "exit 4",
            says: &["cannot reach http://127.0.0.1:", "is it running?"],
            then: "",
            run: |w| {
                Box::pin(async {
                    let url = format!("http://127.0.0.1:{}", free_port()?);
                    Seen::exit(w.command(&["query", "SELECT 1", "--gateway", &url, "--data"])?.arg(w.up.data()))
                })
            },
        },
        Row {
            input: "`logboom query 'SELECT severty FROM mine'`",
            answer: "exit 3",
            says: &["there is no column severty", "  |        ^", "did you mean severity?"],
            then: "",
            run: |w| {
                Box::pin(async {
                    Seen::exit(w.command(&["query", "SELECT severty FROM mine", "--data"])?.arg(w.up.data()))
                })
            },
        },
        Row {
            input: "`logboom index delete mine` without `--yes`",
            answer: "exit 1",
            says: &["this deletes every event of mine for ever; repeat with --yes"],
            then: "nothing is deleted",
            run: |w| {
                Box::pin(async {
                    let seen = Seen::exit(w.command(&["index", "delete", "mine", "--data"])?.arg(w.up.data()))?;
                    w.kept().await?;
                    Ok(seen)
                })
            },
        },
    ]
}
