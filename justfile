# The project's tasks; `just` lists them. CI runs what `just ci` runs.

_default:
    @just --list

# Runs all tests.
test:
    cargo test --workspace --locked

# Checks format, language and lints, as CI does.
lint:
    cargo fmt --all --check
    .ci/language
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

# Builds the documentation without warnings, as docs.rs will have it.
doc:
    .ci/doc

# Compares the public interface of each crate with the one checked in; `just api --bless` writes it.
api *options:
    .ci/api {{ options }}

# Builds with features alone, in pairs and together, without warnings; `just features all`: every combination.
features *which:
    .ci/features {{ which }}

# Packs the crates as crates.io would get them, builds them and checks what is in them.
package:
    .ci/package

# Builds a user's program for each packed crate, outside the workspace and without its lock file.
downstream: package
    .ci/downstream

# Builds the packed crates with the oldest dependencies that they allow.
minimal-versions: package
    .ci/minimal-versions

# Builds with the Rust that the crates declare.
msrv:
    .ci/msrv

# Checks licenses, sources and bans of dependencies.
deny:
    .ci/deny

# Does all that `cargo publish` does but the upload.
publish-dry-run: package
    bash -c 'source .ci/crates && cargo publish --dry-run --no-verify --locked "${packages[@]}"'

# Measures this library beside hand-written code: the ratios as one table.
bench:
    cargo bench --quiet --bench ratios

# Simulates the delivery with a clock, a network and a scheduler that a seed drives; `just simulate 5000000 7`: so many
# runs of each scenario, from that seed. A run that fails prints its own seed: `SHUTTLE_RANDOM_SEED=<it> just simulate 1`.
simulate runs="25000" seed="1":
    RUNS={{ runs }} SEED={{ seed }} .ci/simulation

# Kills, pauses and restarts publishers and relays over one outbox (`sqlite` or `postgres`) for so many minutes, and checks
# that nothing is lost or overtaken.
soak minutes="5" seed="1" engine="sqlite":
    MINUTES={{ minutes }} SEED={{ seed }} ENGINE={{ engine }} \
        cargo test --release --locked --test outbox -- --ignored --exact soak::a_long_soak --nocapture

# Changes the delivery in small ways, one at a time, and lists which changes the simulation and the tests of the core do not
# notice (some 1,300 changes, each 3 to 20 s); `just mutants --file groups-core/src/client/coalesce.rs`: those of a file alone.
mutants *options="--file 'groups-core/src/{client,outbox,buffered,snapshot}/*.rs' --file 'groups-core/src/record/{diff,edit,foreign_update,rejection,undelivered}.rs'":
    RUSTFLAGS="--cfg simulation" RUNS=1500 cargo mutants --package mixpanel-groups --no-default-features --features serde,tls \
        --cargo-arg=--locked --cargo-arg=--lib --minimum-test-timeout 60 {{ options }} \
        -- -- --skip dropping_the_last_clone --skip any_response --skip a_panic_of_a_lane

# Tries the changes that `just mutants` missed once more, with these tests of the workspace: `just survivors client outbox`.
survivors +tests:
    .ci/survivors {{ tests }}

# Counts instructions per update, beside those checked in; `just instructions --bless` writes them.
instructions *options:
    benches/instructions/run.sh {{ options }}

# Measures other clients and the SDKs of other languages, which it installs under target/.
peers:
    benches/peers/run.sh
    benches/chart.py

# Measures a cold build, beside mixpanel-rs.
build-cost:
    benches/build_cost.sh

# Accepts what the derive expands to and the compiler's messages about mistakes.
bless:
    BLESS=1 TRYBUILD=overwrite cargo test --workspace

# Runs the whole gate.
ci:
    .ci/run
