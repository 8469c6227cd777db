# The list of commands; `./justw` runs it without anything installed. One form of cargo everywhere (--workspace --locked), because
# another selection of packages would resolve other features and build the world again.

set shell := ["bash", "-euo", "pipefail", "-c"]

tools := env("LOGBOOM_TOOLS", justfile_directory() / ".tools")
target := env("CARGO_TARGET_DIR", justfile_directory() / "target")
image := env("LOGBOOM_IMAGE", "logboom:dev")

export PATH := tools / "bin" + ":" + env("PATH")
export LOGBOOM_TOOLS := tools

# Show this list.
[private]
default:
    @just --justfile {{ quote(justfile()) }} --list --unsorted

# Start everything on this machine and walk once through the main job.
up *args: tools
    cargo build --workspace --bins --locked
    {{ quote(target / "debug/logboom") }} standalone --walk {{ args }}

# The same on fresh data and free ports; exits with 0 only if every result was right.
walk *args: tools
    cargo build --workspace --bins --locked
    {{ quote(target / "debug/logboom") }} walk {{ args }}

# Everything that must hold before a change is done; arguments go to every test binary.
test *args: tools fmt-check lint doc
    cargo build --workspace --bins --locked
    tools/run-tests {{ args }}
    cargo test --workspace --locked --doc

# Format all sources.
fmt:
    cargo fmt --all

# Fail if a source is not formatted.
fmt-check:
    cargo fmt --all --check

# Clippy, where a warning is an error.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Documentation, where a broken link is an error.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Licences, bans and duplicates of the dependencies.
deny:
    cargo test --workspace --locked --test tidy -- dependencies

# The rules of the house.
tidy:
    cargo test --workspace --locked --test tidy

# Generated pages, written again.
generate: tools
    UPDATE=1 cargo test --workspace --locked --test reference
    UPDATE=1 cargo test --workspace --locked --test bad_input -- guide
    UPDATE=1 cargo test --workspace --locked --test kubernetes -- dashboard
    UPDATE=1 cargo test --workspace --locked golden

# Figures; asserts none. Takes a release build.
bench *args: tools
    cargo build --workspace --bins --locked --release
    cargo test --workspace --locked --release --test bench -- --nocapture {{ args }}

# Kill, pause and damage real processes, and count what was acknowledged; `--seeds N` runs N short schedules, `--seed S` begins at S. `stream`: those with jobs.
chaos *args: tools
    cargo build --workspace --bins --locked
    set -- {{ args }}; rest=(); \
    while [ $# -gt 0 ]; do \
        case "$1" in \
            --seeds) export LB_SEEDS="$2"; shift 2 ;; \
            --seed) export LB_SEED="$2"; shift 2 ;; \
            *) rest+=("$1"); shift ;; \
        esac; \
    done; \
    if [ "${rest[0]:-}" = stream ]; then rest[0]=stream::; \
    elif [ -n "${LB_SEEDS:-}" ]; then rest+=(every_seed); fi; \
    cargo test --workspace --locked --test chaos -- --nocapture "${rest[@]}"

# Feed whatever comes to one of `tests/fuzz/fuzz_targets` for some seconds; what breaks it is kept in `tests/fuzz/artifacts`. Builds for minutes.
fuzz name seconds="60":
    command -v cargo-fuzz >/dev/null || cargo install --locked --root {{ quote(tools) }} cargo-fuzz@0.13.2
    words={{ quote(justfile_directory() / "tests/fuzz/dictionaries" / name + ".txt") }}; \
    cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none {{ name }} -- -max_total_time={{ seconds }} -timeout=10 -rss_limit_mb=2048 \
        $(if [ -f "$words" ]; then echo "-dict=$words"; fi)

# The container image.
image:
    docker build --file deploy/Dockerfile --tag {{ quote(image) }} .

# Apply an overlay (dev or prod) to the current cluster.
deploy overlay="dev":
    kubectl apply --kustomize {{ quote(justfile_directory() / "k8s/overlays" / overlay) }}

# What continuous integration runs.
ci:
    .ci/run

# Remove build output and local state; the tools stay.
clean:
    cargo clean
    rm -rf .logboom

# etcd, kube-apiserver and kubectl for the tests of Kubernetes, which bring them themselves; built once, in about 7 minutes of CPU.
kubernetes:
    tools/install-kubernetes

# The pinned nats-server, into .tools/bin.
tools:
    tools/install-nats
