#!/usr/bin/env bash
# What crosses the link when a release follows another: a Markdown table over a folder of cases.
#
#   benches/releases.sh FOLDER [WHIT]
#
# Each case is a folder FOLDER/CASE with `old` and `new` in it, each a file's folder or a tree. For each,
# WHIT (default: the release build) serves with fresh data on a free loopback port and takes OLD, then NEW,
# from an agent that keeps nothing. The table tells of NEW alone; bytes are those of the receipt
# (docs/RECEIPT.md), wire bytes are UDP payload, the handshake included.
set -euo pipefail

cases=${1:?usage: benches/releases.sh FOLDER [WHIT]}
whit=${2:-${CARGO_TARGET_DIR:-target}/release/whit}
command -v python3 >/dev/null || { echo "error: python3 is needed to read receipts" >&2; exit 1; }
[ -x "$whit" ] || { echo "error: $whit is missing: cargo build --release" >&2; exit 1; }

work=$(mktemp -d)
server=
stop() {
  # Only the proxy that this script started.
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
  fi
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
# Neither a login nor a proxy of the user's own takes part.
unset WHIT_PROXY WHIT_TOKEN WHIT_TOKEN_FILE WHIT_DATA
export XDG_CONFIG_HOME=$work/config

# What is pushed: the one file where there is only one, else the folder.
content() {
  local entries=("$1"/*)
  if [ ${#entries[@]} -eq 1 ] && [ -f "${entries[0]}" ]; then echo "${entries[0]}"; else echo "$1"; fi
}

echo "| case | new bytes | unseen | sent | wire up | wire down | round trips | seconds |"
echo "|---|--:|--:|--:|--:|--:|--:|--:|"
for folder in "$cases"/*/; do
  case=$(basename "$folder")
  [ -e "$folder/old" ] && [ -e "$folder/new" ] || continue
  rm -rf "$work/data"
  "$whit" --json --quiet serve --data "$work/data" --listen 127.0.0.1:0 >"$work/serve" 2>"$work/log" &
  server=$!
  # The first line says the address, once the proxy listens.
  for _ in $(seq 100); do [ -s "$work/serve" ] && break; sleep 0.1; done
  [ -s "$work/serve" ] || { echo "error: the proxy did not start" >&2; cat "$work/log" >&2; exit 1; }
  url=$(python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())["url"])' <"$work/serve")
  "$whit" --quiet token create --user bench --data "$work/data" >"$work/token"
  for release in old new; do
    "$whit" --json --quiet push bench "$(content "$folder$release")" --proxy "$url" --token-file "$work/token" >"$work/$release"
  done
  python3 - "$case" "$work/new" <<'PYTHON'
import json, sys

receipt = json.load(open(sys.argv[2]))
content, wire = receipt["bytes"], receipt["wire"]
numbers = content["logical"], content["unseen"], content["sent"], wire["up"], wire["down"], receipt["round_trips"]
print("|", sys.argv[1], "|", " | ".join(f"{number:,}" for number in numbers), f"| {receipt['seconds']:.2f} |")
PYTHON
  stop
done
