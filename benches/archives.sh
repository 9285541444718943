#!/usr/bin/env bash
# Whether archives come back bit for bit, and what taking them apart costs: a table, one row a folder.
#
#   benches/archives.sh FOLDER...
#
# Each folder, of wheels, jars, packages or whatever, is pushed as an application, pulled into an empty directory, and
# compared file by file; it ends with 1 where anything differs. One proxy takes all, so that what an earlier folder
# brought is not sent again. WHIT names the program [default: the release build].
set -euo pipefail

whit=$(realpath "${WHIT:-${CARGO_TARGET_DIR:-target}/release/whit}")
[ $# -gt 0 ] || { echo "usage: benches/archives.sh FOLDER..." >&2; exit 2; }

aside=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || { kill "$server" && wait "$server" || true; } 2>/dev/null
  rm -rf "$aside"
}
trap finish EXIT

export WHIT_STATE=$aside/state WHIT_CONFIG_HOME=$aside/config XDG_CONFIG_HOME=$aside/config
"$whit" serve --data "$aside/data" --listen 127.0.0.1:0 >"$aside/said" 2>&1 &
server=$!
until grep -q 'whit login' "$aside/said"; do sleep 0.1; done
$whit $(grep -o 'login whit://.*' "$aside/said") --quiet >/dev/null

field() { python3 -c 'import json,sys; d=json.load(sys.stdin)
for key in sys.argv[1].split("."): d=d[key]
print(d)' "$1"; }

echo '| folder | files | bytes | taken apart | bytes of them | sent | push, s | pull, s | differ |'
echo '|---|--:|--:|--:|--:|--:|--:|--:|--:|'
differ=0
number=0
for folder in "$@"; do
  number=$((number + 1))
  begin=$(date +%s.%N)
  receipt=$("$whit" push "archives$number" "$folder" --effort bytes --quiet --json)
  pushed=$(date +%s.%N)
  "$whit" pull "archives$number" "$aside/copy" --quiet >/dev/null
  pulled=$(date +%s.%N)
  wrong=$(diff -rq --no-dereference "$folder" "$aside/copy" | wc -l) || true
  differ=$((differ + wrong))
  rm -rf "$aside/copy"
  files=$(find "$folder" -type f | wc -l)
  bytes=$(find "$folder" -type f -printf '%s\n' | awk '{ all += $1 } END { printf "%d", all }')
  seconds() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.1f", to - from }'; }
  echo "| $(basename "$folder") | $files | $bytes | $(field archives.files <<<"$receipt") |" \
    "$(field archives.bytes <<<"$receipt") | $(field bytes.sent <<<"$receipt") |" \
    "$(seconds "$begin" "$pushed") | $(seconds "$pushed" "$pulled") | $wrong |"
done
[ "$differ" -eq 0 ]
