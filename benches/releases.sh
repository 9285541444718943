#!/usr/bin/env bash
# The tables of docs/BENCHMARKS.md: `whit bench` over a folder of cases.
#
#   benches/releases.sh CASES REPORTS [FLAG...]
#
# Each case is a folder CASES/CASE with `old` and `new` in it: a tree each, or a folder with one file, which
# is then taken as that file. Further flags go to `whit bench`, like `--only whit` or `--rounds 3`. Leaves
# REPORTS/CASE.json, the peers' figures in REPORTS/CASE.peers.json (taken from there the next time: delete
# them to measure peers again), a picture REPORTS/CASE.svg, and prints the tables. WHIT names the program
# [default: the release build].
set -euo pipefail

cases=${1:?usage: benches/releases.sh CASES REPORTS [FLAG...]}
reports=${2:?usage: benches/releases.sh CASES REPORTS [FLAG...]}
shift 2
whit=${WHIT:-${CARGO_TARGET_DIR:-target}/release/whit}
[ -x "$whit" ] || { echo "error: $whit is missing: cargo build --release" >&2; exit 1; }

content() {
  local entries=("$1"/*)
  if [ ${#entries[@]} -eq 1 ] && [ -f "${entries[0]}" ]; then echo "${entries[0]}"; else echo "$1"; fi
}

mkdir -p "$reports"
measured=()
for folder in "$cases"/*/; do
  case=$(basename "$folder")
  [ -e "$folder/old" ] && [ -e "$folder/new" ] || continue
  echo "== $case" >&2
  report=$reports/$case
  "$whit" bench "$(content "$folder/old")" "$(content "$folder/new")" --name "$case" --json \
    --peers "$report.peers.json" --plot "$report.svg" "$@" >"$report.json.new"
  mv "$report.json.new" "$report.json"
  measured+=("$report.json")
done
"$whit" bench --markdown "${measured[@]}"
