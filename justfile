# The project's tasks; `just` lists them. CI calls what `just ci` calls.

_default:
    @just --list

# All tests.
test:
    cargo test --workspace --locked

# Format and lints, as CI wants them.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

# The documentation, without warnings, as docs.rs will have it.
doc:
    .ci/doc

# The public interface beside the one checked in; `just api --bless` writes it.
api *options:
    .ci/api {{ options }}

# Features alone, in pairs and together, without warnings; `just features all`: every combination.
features *which:
    .ci/features {{ which }}

# The crates as crates.io would get them, and what is in them.
package:
    .ci/package

# Programs outside the workspace, one for each crate, with what is packed.
downstream: package
    .ci/downstream

# What is packed, with the oldest dependencies that it allows.
minimal-versions: package
    .ci/minimal-versions

# Builds with the Rust that the crates declare.
msrv:
    .ci/msrv

# Licenses, sources and versions of dependencies.
deny:
    .ci/deny

# All that `cargo publish` does but the upload.
publish-dry-run:
    bash -c 'source .ci/crates && cargo publish --dry-run --locked "${packages[@]}"'

# Ours beside hand-written code: the ratios as one table.
bench:
    cargo bench --quiet --bench ratios

# Instructions an update, beside those checked in; `just instructions --bless` writes them.
instructions *options:
    benches/instructions/run.sh {{ options }}

# Ours beside other clients and the SDKs of other languages, which it installs under target/.
peers:
    benches/peers/run.sh
    benches/chart.py

# What a cold build costs, beside mixpanel-rs.
build-cost:
    benches/build_cost.sh

# Accepts what the derive expands to and what the compiler says of mistakes.
bless:
    BLESS=1 TRYBUILD=overwrite cargo test --workspace

# The whole gate.
ci:
    .ci/run
