#!/usr/bin/env bash
# What the derive costs to compile: `cargo check` of 200 structs of 10 fields each with
# `#[derive(MixpanelGroup)]`, next to the same structs with `#[derive(serde::Serialize)]` and
# without any. The two derives' own cost is what they take beyond the last; the ratio is printed.
#
# Each is checked ROUNDS times (5 unless told), in turns, and the fastest counts.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}/compile-time
rounds=${ROUNDS:-5}

# structs NAME DERIVE OF_STRUCT OF_ID
structs() {
    local crate=$target/crates/$1
    mkdir -p "$crate/src"
    cat >"$crate/Cargo.toml" <<TOML
[package]
name = "$1"
version = "0.0.0"
edition = "2024"

[dependencies]
serde = { version = "1.0.220", features = ["derive"] }
mixpanel-groups = { path = "$root/groups-core", default-features = false, features = ["derive"] }

[workspace]
TOML
    cp "$root/Cargo.lock" "$crate/"
    {
        echo '#![allow(missing_docs)]'
        for i in $(seq 200); do
            cat <<RUST
$2
$3
pub struct Company$i {
    $4
    pub id: u64,
    pub name: String,
    pub plan: String,
    pub industry: Option<String>,
    pub founding_year: u16,
    pub integrations: Vec<String>,
    pub seats: u32,
    pub revenue: f64,
    pub is_public: bool,
    pub country: Option<String>,
}
RUST
        done
    } >"$crate/src/lib.rs"
}

# check NAME: the milliseconds that a check of the crate alone takes.
check() {
    local manifest=$target/crates/$1/Cargo.toml start end
    touch "$target/crates/$1/src/lib.rs"
    start=$(date +%s%N)
    CARGO_INCREMENTAL=0 cargo check --quiet --manifest-path "$manifest" --target-dir "$target/build"
    end=$(date +%s%N)
    echo $(((end - start) / 1000000))
}

structs plain '' '' ''
structs serialize '#[derive(serde::Serialize)]' '' ''
structs mixpanel '#[derive(mixpanel_groups::MixpanelGroup)]' \
    '#[mixpanel(group_key = "company")]' '#[mixpanel(group_id)]'

declare -A best
for name in plain serialize mixpanel; do
    check $name >/dev/null # The dependencies, which are not what is measured.
done
for _ in $(seq "$rounds"); do
    for name in plain serialize mixpanel; do
        time=$(check $name)
        if [[ -z ${best[$name]:-} || $time -lt ${best[$name]} ]]; then
            best[$name]=$time
        fi
    done
done

awk -v plain="${best[plain]}" -v serde="${best[serialize]}" -v ours="${best[mixpanel]}" 'BEGIN {
    printf "no derive         %5d ms\n", plain
    printf "serde::Serialize  %5d ms\n", serde
    printf "MixpanelGroup     %5d ms\n", ours
    printf "MixpanelGroup takes %.2f of the time, %.2f without what both have to do\n",
        ours / serde, (ours - plain) / (serde - plain)
}'
