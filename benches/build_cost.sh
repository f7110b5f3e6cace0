#!/usr/bin/env bash
# What a user's cold `cargo build` costs: CPU time and crates of a tiny program, in one run.
# Sources are fetched before anything is timed.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=${CARGO_TARGET_DIR:-$root/target}/build-cost
unset CARGO_TARGET_DIR
mkdir -p "$work"

# program NAME DEPENDENCY: a program that has the dependency.
program() {
    mkdir -p "$work/$1/src"
    printf '[package]\nname = "%s"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[dependencies]\n%s\n' \
        "$1" "$2" >"$work/$1/Cargo.toml"
    echo 'fn main() {}' >"$work/$1/src/main.rs"
    (cd "$work/$1" && cargo fetch --quiet)
}

# cost NAME: seconds of CPU time, and crates without the program itself.
cost() (
    cd "$work/$1"
    rm -rf target
    TIMEFORMAT='%U %S'
    seconds=$({ time cargo build --quiet --offline; } 2>&1 | awk '{ print $1 + $2 }')
    crates=$(cargo tree --offline --edges normal,build --prefix none --no-dedupe |
        sed 's/ (.*//' | sort -u | grep -vc "^$1 ")
    echo "$1 $seconds $crates"
)

program mixpanel-rs-program 'mixpanel-rs = "=0.3.1"'
program ours "mixpanel-groups = { path = \"$root/groups-core\" }"
program ours-small "mixpanel-groups = { path = \"$root/groups-core\", default-features = false }"

for name in mixpanel-rs-program ours ours-small; do cost $name; done | awk '
    NR == 1 { base = $2; printf "%-22s %8s %7s %6s\n", "", "CPU s", "crates", "ratio" }
    { printf "%-22s %8.1f %7d %6.2f\n", $1, $2, $3, $2 / base }'
