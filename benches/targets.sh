#!/usr/bin/env bash
# Seconds from `whit push` until targets that watch show the release, beside rsync to as many directories: a table.
#
#   benches/targets.sh FOLDER [TARGETS] [BYTES] [FILES]
#
# A release of BYTES (500 MiB) in FILES files (1000) is at TARGETS (10) targets; one file changes. Then: `whit push`, until all of them show it;
# `rsync -a` and `rsync -az` from a daemon's side to as many directories, one beside the other, until the last has ended. Across a link, set
# HERE and THERE to what runs a command at the build host and at the proxy with its targets (like `ip netns exec a`), and HOST to the
# address of the latter [127.0.0.1]. ROUNDS [3] gives medians. WHIT names the program [default: the release build].
set -euo pipefail

folder=$(realpath "${1:?usage: benches/targets.sh FOLDER [TARGETS] [BYTES] [FILES]}")
targets=${2:-10} bytes=${3:-524288000} files=${4:-1000}
whit=$(realpath "${WHIT:-${CARGO_TARGET_DIR:-target}/release/whit}")
rounds=${ROUNDS:-3} host=${HOST:-127.0.0.1}
aside=$(mktemp -d -p "$folder")
pids=()
finish() {
  [ ${#pids[@]} -eq 0 ] || { kill "${pids[@]}" && wait "${pids[@]}" || true; } 2>/dev/null
  rm -rf "$aside"
}
trap finish EXIT
here() { ${HERE:-} "$@"; }

python3 - "$aside/tree" "$files" "$bytes" <<'PYTHON'
import os, random, sys
tree, files, total = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dice = random.Random(files)
for number in range(files):
    path = f"{tree}/{number // 100}/{number}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(dice.randbytes(total // files))
PYTHON

# Rewrites one file, and the one that says which release this is.
change() {
  python3 -c 'import os, sys; path = sys.argv[1]; open(path, "wb").write(os.urandom(os.path.getsize(path)))' "$aside/tree/0/1"
  echo "$1" >"$aside/tree/number"
}

# Waits until every target shows the release of this number.
all_show() {
  local number
  for number in $(seq "$targets"); do
    until [ "$(cat "$aside/at/$number/current/number" 2>/dev/null)" = "$1" ]; do sleep 0.005; done
  done
}

seconds_since() { awk -v from="$1" -v to="$(date +%s.%N)" 'BEGIN { printf "%.2f\n", to - from }'; }
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

export WHIT_STATE=$aside/state XDG_CONFIG_HOME=$aside/config
${THERE:-} "$whit" serve --data "$aside/data" --listen 0.0.0.0:0 --public-host "$host" >"$aside/log" 2>&1 &
pids+=($!)
until url=$(grep -o -m 1 'whit://[^ ]*' "$aside/log"); do sleep 0.05; done
export WHIT_PROXY=$url
WHIT_TOKEN=$("$whit" token create --data "$aside/data" --user ci | tail -n 1)
mkdir "$aside/at"
for number in $(seq "$targets"); do
  token=$("$whit" token create --data "$aside/data" --user web --target "web-$number" | tail -n 1)
  WHIT_TOKEN=$token ${THERE:-} "$whit" pull --watch app "$aside/at/$number" --quiet >"$aside/watch-$number" 2>&1 &
  pids+=($!)
done
export WHIT_TOKEN

{
  printf 'use chroot = no\nport = 8730\naddress = %s\n' "$host"
  for number in $(seq "$targets"); do
    mkdir -p "$aside/rsync/$number"
    printf '[%s]\npath = %s/rsync/%s\nread only = no\nuid = %s\ngid = %s\n' "$number" "$aside" "$number" "$(id -u)" "$(id -g)"
  done
} >"$aside/rsyncd.conf"
${THERE:-} rsync --daemon --no-detach --config="$aside/rsyncd.conf" >"$aside/rsyncd" 2>&1 &
pids+=($!)
sleep 0.5

rsync_to_all() {
  local jobs=() number
  for number in $(seq "$targets"); do
    here rsync "$1" --delete "$aside/tree/" "rsync://$host:8730/$number" &
    jobs+=($!)
  done
  wait "${jobs[@]}"
}

change 0
here "$whit" push app "$aside/tree" --quiet >/dev/null
all_show 0
for number in $(seq "$targets"); do cp -a "$aside/tree/." "$aside/rsync/$number"; done
for round in $(seq "$rounds"); do
  for tool in push -a -az; do
    change "$round$tool"
    begin=$(date +%s.%N)
    if [ "$tool" = push ]; then
      here "$whit" push app "$aside/tree" --quiet >/dev/null
      all_show "$round$tool"
    else
      rsync_to_all "$tool"
    fi
    seconds_since "$begin" >>"$aside/seconds$tool"
  done
done
echo "| targets | whit | rsync -a | rsync -az |"
echo "|--:|--:|--:|--:|"
echo "| $targets | $(median <"$aside/secondspush") | $(median <"$aside/seconds-a") | $(median <"$aside/seconds-az") |"
