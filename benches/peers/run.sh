#!/usr/bin/env bash
# Sends the same companies with this library and with each peer to one server on this machine, and
# prints how fast each is. Peers take turns for ROUNDS rounds (5 unless told), and the fastest of
# each counts, as in `just bench`. What cannot be installed is left out, and said.
set -euo pipefail
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-$(cd ../.. && pwd)/target}/peers
export CARGO_TARGET_DIR=$target NODE_PATH=$target/node/node_modules
bin=$target/release
python=$target/python/bin/python
mkdir -p "$target"

# What cannot be installed.
declare -A missing

# install NAME COMMAND…
install() {
    local name=$1
    shift
    "$@" >"$target/$name.log" 2>&1 && return
    missing[$name]=yes
    printf 'Left out: %s, since this failed: %s\n' "$name" "$*" >&2
    tail -n 5 "$target/$name.log" >&2
}

build() { cargo build --locked --release --features "$1" --bin "$1"; }

python_sdk() { python3 -m venv "$target/python" && "$python" -m pip install --quiet mixpanel==5.4.1; }

node_sdk() { node --version && npm install --prefix "$target/node" --no-audit --no-fund mixpanel@0.24.0; }

for name in sink ours hand-written json-values; do build $name; done
for name in mixpanel-rs posthog-rs; do install $name build $name; done
install python python_sdk
install node node_sdk

# locked CRATE…: their names and versions, as Cargo.lock has them.
locked() {
    for name in "$@"; do
        awk -F'"' -v name="$name" '
            /^name/ { found = $2 == name }
            /^version/ && found { print name, $2 }' Cargo.lock
    done | paste -sd, | sed 's/,/, /g'
}
ours=$(locked mixpanel-groups)
plain=$(locked serde_json ureq)
gzip=$(locked serde_json flate2 ureq)
mixpanel_rs=$(locked mixpanel-rs)
posthog_rs=$(locked posthog-rs)
python_sdk="mixpanel 5.4.1, $(python3 --version || true)"
node_sdk="mixpanel 0.24.0, Node $(node --version || true)"

# peer WHAT_IT_NEEDS NAME VERSION UPDATES COMMAND…: a line of the table.
peer() {
    [ -z "${missing[$1]-}" ] || return 0
    "$bin/sink" "${@:2}" | tee -a "$target/rows"
}

round() {
    peer ours 'ours' "$ours" 1000000 "$bin/ours"
    peer ours 'ours, gzip' "$ours" 1000000 "$bin/ours" gzip
    peer hand-written 'hand-written' "$plain" 1000000 "$bin/hand-written"
    peer hand-written 'hand-written, gzip' "$gzip" 1000000 "$bin/hand-written" gzip
    peer json-values 'json! values' "$plain" 1000000 "$bin/json-values"
    peer posthog-rs 'posthog-rs, batches' "$posthog_rs" 200000 "$bin/posthog-rs"
    peer mixpanel-rs 'mixpanel-rs' "$mixpanel_rs" 20000 "$bin/mixpanel-rs" 1
    peer mixpanel-rs 'mixpanel-rs, 16 at once' "$mixpanel_rs" 60000 "$bin/mixpanel-rs" 16
    peer python 'Python SDK' "$python_sdk" 4000 "$python" python.py
    peer python 'Python SDK, buffered' "$python_sdk" 60000 "$python" python.py buffered
    peer node 'Node SDK' "$node_sdk" 20000 node node.js 1
    peer node 'Node SDK, 16 at once' "$node_sdk" 40000 node node.js 16
}

: >"$target/rows"
for _ in $(seq "${ROUNDS:-5}"); do round; done

# The best of each, the fastest first, with its ratio to the hand-written one, and the median of
# all rounds beside it: how far apart the two are is how quiet the machine was.
{
    cores=$(getconf _NPROCESSORS_ONLN)
    echo "# $(date +%F), $cores cores, $(rustc --version | cut -d' ' -f1-2), ${ROUNDS:-5} rounds"
    printf 'name\tversion\tupdates\trequests\tbytes\tseconds\tupdates/s\tratio\tmedian\n'
    sort -t$'\t' -k7,7nr "$target/rows" | awk -F'\t' '
        !rounds[$1]++ { best[++count] = $0; name[count] = $1 }
        { rate[$1, rounds[$1]] = $7 }
        END {
            for (i = 1; i <= count; i++) {
                ratio = rate[name[i], 1] / rate["hand-written", 1]
                median = rate[name[i], int((rounds[name[i]] + 1) / 2)]
                printf "%s\t%.3g\t%d\n", best[i], ratio, median
            }
        }'
} >results.tsv

# The same as a table in Markdown.
awk -F'\t' '
    function commas(number, rest) {
        for (; number >= 1000; number = int(number / 1000)) rest = sprintf(",%03d", number % 1000) rest
        return number rest
    }
    function cells(updates, requests, bytes, rate, median) {
        printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n",
            $1, $2, updates, requests, bytes, $6, rate, $8, median
    }
    NR == 2 { cells($3, $4, $5, $7, $9); print "|---|---|--:|--:|--:|--:|--:|--:|--:|" }
    NR > 2 { cells(commas($3), commas($4), commas($5), commas($7), commas($9)) }' results.tsv
