#!/usr/bin/env bash
# What deltas bring, and which rule found what they build on: two tables.
#
#   benches/deltas.sh CASES [CASE...]
#
# Each case is a folder CASES/CASE with `old` and `new` in it; without names all. OLD is pushed, then replaced by NEW
# at the same path, which is pushed by an agent without memory (fresh) and by the one that pushed OLD (kept), both told
# `--effort bytes`: UDP payload both ways, handshake included. Without deltas: a dry run of the fresh push, with what it
# says that its chunks take compressed. NEW is also pushed as another application, whose first release it is, to a proxy whose
# sketches are gone and to one that has them. Rules are those of `push --explain`. WHIT names the program [default: the
# release build].
set -euo pipefail

cases=$(realpath "${1:?usage: benches/deltas.sh CASES [CASE...]}")
shift
whit=$(realpath "${WHIT:-${CARGO_TARGET_DIR:-target}/release/whit}")
[ $# -gt 0 ] || set -- $(cd "$cases" && ls)

aside=$(mktemp -d)
server=
stop() {
  [ -z "$server" ] || { kill "$server" && wait "$server" || true; } 2>/dev/null
  server=
}
trap 'stop; rm -rf "$aside"' EXIT

# Puts a release in the place of the build.
build() {
  rm -rf "$aside/build"
  cp -r --preserve=mode,links "$1" "$aside/build"
  # One artifact keeps its name from release to release.
  local files=("$aside/build"/*)
  if [ ${#files[@]} -eq 1 ] && [ -f "${files[0]}" ]; then mv "${files[0]}" "$aside/build/artifact"; fi
  # What was written just now is read again by the next push.
  sleep 2.2
}

push() {
  local state=$1 app=${app:-app}
  shift
  WHIT_STATE=$aside/$state "$whit" push "$app" "$aside/build" --effort bytes --json "$@" 2>/dev/null
}

# Starts the proxy on the port it had before, if any.
serve() {
  "$whit" serve --data "$aside/data" --listen "127.0.0.1:$1" >"$aside/said" 2>&1 &
  server=$!
  until grep -q 'whit://' "$aside/said"; do sleep 0.05; done
}

pushes() {
  local case=$1 way
  rm -rf "$aside"/{data,old,kept,fresh,blind,elsewhere,config}
  export XDG_CONFIG_HOME=$aside/config
  serve 0
  until grep -q "login whit://" "$aside/said"; do sleep 0.05; done
  "$whit" $(grep -o 'login whit://.*' "$aside/said") --quiet >/dev/null
  local port
  port=$(grep -o 'whit://[^#]*' "$aside/said" | head -1)
  build "$cases/$case/old"
  push kept >/dev/null
  stop
  mv "$aside/data" "$aside/old"
  build "$cases/$case/new"
  for way in none fresh kept blind elsewhere; do
    rm -rf "$aside/data"
    cp -r "$aside/old" "$aside/data"
    [ "$way" != blind ] || rm -f "$aside"/data/spaces/*/sketches
    serve "${port##*:}"
    case $way in
      blind | elsewhere) app=other push "$way" --explain ;;
      none) push fresh --dry-run ;;
      *) push "$way" --explain ;;
    esac | sed "s/^{/{\"case\":\"$case\",\"way\":\"$way\",/"
    stop
  done
}

for case in "$@"; do
  echo "== $case" >&2
  pushes "$case" >>"$aside/receipts"
done
python3 - "$aside/receipts" <<'TABLES'
import json, sys
from collections import defaultdict

receipts = [json.loads(line) for line in open(sys.argv[1]) if line.strip()]
totals, rules = {}, defaultdict(lambda: defaultdict(lambda: [0, 0, 0, 0]))
for receipt in receipts:
    case, way, wire = receipt["case"], receipt["way"], receipt["wire"]
    total = wire["up"] + wire["down"] + (receipt["bytes"]["sent"] if way == "none" else 0)
    totals.setdefault(case, {})[way] = total
    for part in receipt.get("explained", []):
        if way in ("blind", "elsewhere"):
            continue
        rule = rules[case][part["reason"]]
        rule[0] += way == "fresh" and part["regions"]
        rule[1] += way == "fresh" and part["plain"]
        rule[2] += way == "fresh" and part["sent"]
        rule[3] += way == "kept" and part["sent"]

print("| case | no delta | signatures (fresh) | kept basis | another application | by sketches |\n|---|--:|--:|--:|--:|--:|")
for case, ways in totals.items():
    columns = " | ".join(f"{ways[way]:,}" for way in ("none", "fresh", "kept", "blind", "elsewhere"))
    print(f"| {case} | {columns} |")
print("\n| case | rule | regions | plain bytes | sent, fresh | sent, kept |\n|---|---|--:|--:|--:|--:|")
for case, found in rules.items():
    for rule, (regions, plain, fresh, kept) in sorted(found.items(), key=lambda entry: -entry[1][1]):
        print(f"| {case} | {rule} | {regions:,} | {plain:,} | {fresh:,} | {kept:,} |")
TABLES
