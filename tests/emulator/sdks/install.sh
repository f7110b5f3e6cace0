#!/bin/sh
# Installs one of Mixpanel's official SDKs into a folder of its own, unless it is there:
#   install.sh python|node|browser FOLDER
# Says on its last line what is missing if it cannot.
set -eu
sdk=$1 folder=$2
[ -e "$folder/installed" ] && exit 0
mkdir -p "$folder"

fail() { echo "$1" >&2; exit 1; }

case $sdk in
python)
    command -v python3 >/dev/null || fail "there is no python3"
    python3 -m venv "$folder/venv" || fail "python3 cannot make a venv (Debian: python3-venv)"
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check mixpanel==5.4.1 ||
        fail "pip cannot install mixpanel"
    ;;
node)
    command -v npm >/dev/null || fail "there is no npm"
    npm install --silent --no-audit --no-fund --prefix "$folder" mixpanel@0.24.0 ||
        fail "npm cannot install mixpanel"
    ;;
browser)
    command -v npm >/dev/null || fail "there is no npm"
    npm install --silent --no-audit --no-fund --prefix "$folder" mixpanel-browser@2.83.0 ||
        fail "npm cannot install mixpanel-browser"
    ;;
*) fail "no such SDK: $sdk" ;;
esac
touch "$folder/installed"
