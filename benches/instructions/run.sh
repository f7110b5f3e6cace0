#!/usr/bin/env bash
# Instructions per update, beside the numbers that are checked in; fails where one grew by over 5 %.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")"

program=$(cargo build --quiet --locked --release --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)

# Of that many rounds of 200 updates.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

measured=$(for what in changes_since encode hand_written; do
    few=$(count $what 10); many=$(count $what 110)
    echo "$what $(((many - few) / 20000))"
done)
if [ "${1:-}" = --bless ]; then
    echo "$measured" >checked_in.txt
fi
echo "$measured" | join -a1 - checked_in.txt | awk '
    $2 < 100 || !$3 { print $1 ": " $2 " is no count to compare"; grew = 1; next }
    { printf "%-16s %6d instructions an update, %6d checked in\n", $1, $2, $3 }
    $1 != "hand_written" && $2 > $3 * 1.05 { grew = 1; print "  more than 5 % more" }
    { of[$1] = $2 }
    END { printf "encode is %.2f of hand_written\n", of["encode"] / of["hand_written"]; exit grew }'
