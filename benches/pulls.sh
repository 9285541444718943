#!/usr/bin/env bash
# What a pull costs beside rsync, where the target holds the release before: a table, one row a case.
#
#   benches/pulls.sh CASES [CASE...]
#
# Each case is a folder CASES/CASE with `old` and `new` in it; without names all that end in `.tree`. OLD is pushed
# and pulled, then NEW pushed and pulled into the same directory, told `--link 20mbit`: bytes of the second pull's UDP payload, handshake
# included. rsync brings NEW from a daemon on a loopback port to a copy of OLD, every file of which has another
# modification time, as a build leaves it: bytes of `--stats`. WHIT names the program [default: the release build].
set -euo pipefail

cases=$(realpath "${1:?usage: benches/pulls.sh CASES [CASE...]}")
shift
whit=$(realpath "${WHIT:-${CARGO_TARGET_DIR:-target}/release/whit}")
[ $# -gt 0 ] || set -- $(cd "$cases" && ls -d -- *.tree)
command -v rsync >/dev/null || echo "note: rsync is missing: its columns stay empty" >&2

aside=$(mktemp -d)
started=()
finish() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  rm -rf "$aside"
}
trap finish EXIT

content() { cp -r --preserve=mode,links "$1" "$2"; }
field() { python3 -c 'import json,sys; d=json.load(sys.stdin)
for key in sys.argv[1].split("."): d=d[key]
print(d)' "$1"; }

# Bytes both ways of an rsync of NEW over a copy of OLD, with these flags.
rsync_bytes() {
  rm -rf "$aside/copy"
  content "$aside/old" "$aside/copy"
  find "$aside/copy" -exec touch -h -d '1 hour ago' {} +
  RSYNC_PROXY= rsync -a --delete --stats "$@" "rsync://127.0.0.1:$port/new/" "$aside/copy/" |
    awk '/^Total bytes (sent|received)/ { gsub(",", "", $4); all += $4 } END { print all }'
  diff -r --no-dereference "$aside/new" "$aside/copy" >&2
}

echo '| case | pull, up | down | both | rsync -az | rsync -acz |'
echo '|---|--:|--:|--:|--:|--:|'
for case in "$@"; do
  rm -rf "${aside:?}"/*
  content "$cases/$case/old" "$aside/old"
  content "$cases/$case/new" "$aside/new"
  export WHIT_STATE=$aside/state WHIT_CONFIG_HOME=$aside/config XDG_CONFIG_HOME=$aside/config
  "$whit" serve --data "$aside/data" --listen 127.0.0.1:0 >"$aside/said" 2>&1 &
  server=$!
  started=("$server")
  until grep -q 'whit login' "$aside/said"; do sleep 0.1; done
  $whit $(grep -o 'login whit://.*' "$aside/said") --quiet >/dev/null
  mv "$aside/old" "$aside/build"
  "$whit" push app "$aside/build" --effort bytes --quiet >/dev/null
  "$whit" pull app "$aside/target" --quiet >/dev/null
  mv "$aside/build" "$aside/old"
  content "$aside/new" "$aside/build"
  "$whit" push app "$aside/build" --effort bytes --quiet >/dev/null
  pulled=$("$whit" pull app "$aside/target" --quiet --json --link 20mbit)
  diff -r --no-dereference "$aside/new" "$aside/target" >&2
  up=$(field wire.up <<<"$pulled") down=$(field wire.down <<<"$pulled")
  az='' acz=''
  if command -v rsync >/dev/null; then
    port=$((20000 + RANDOM % 20000))
    printf 'port = %s\naddress = 127.0.0.1\nuse chroot = no\npid file = %s\n[new]\npath = %s\nread only = yes\n' \
      "$port" "$aside/rsyncd.pid" "$aside/new" >"$aside/rsyncd.conf"
    rsync --daemon --no-detach --config "$aside/rsyncd.conf" >/dev/null 2>&1 &
    started+=("$!")
    until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do sleep 0.1; done
    az=$(rsync_bytes -z --zc=zstd)
    acz=$(rsync_bytes -c -z --zc=zstd)
  fi
  echo "| $case | $up | $down | $((up + down)) | $az | $acz |"
  for pid in "${started[@]}"; do kill "$pid"; wait "$pid" 2>/dev/null || true; done
  started=()
done
