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

# The documentation, without warnings.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --locked

# Ours beside hand-written code: the ratios as one table.
bench:
    cargo bench --quiet --bench ratios

# Instructions an update, beside those checked in; `just instructions --bless` writes them.
instructions *options:
    benches/instructions.sh {{ options }}

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
