#!/usr/bin/env bash
# Seconds of deliveries to a directory and of pulls beside cp and rsync, all synced: a table.
#
#   benches/copies.sh FOLDER [BYTES] [FILES...]
#
# Of each number of files (1, 10000, 100000) with BYTES (1 GiB) in all, half of which compresses to a third: a first copy, one of a release of
# which a hundredth of the files changed (of one file: one byte in each of a hundred places), and one of the same release again. The
# release is at the proxy already. Work is done in FOLDER, on the file system to be measured. ROUNDS [3] gives medians. WHIT names the program
# [default: the release build].
set -euo pipefail

folder=$(realpath "${1:?usage: benches/copies.sh FOLDER [BYTES] [FILES...]}")
bytes=${2:-1073741824}
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- 1 10000 100000
whit=$(realpath "${WHIT:-${CARGO_TARGET_DIR:-target}/release/whit}")
rounds=${ROUNDS:-3}
aside=$(mktemp -d -p "$folder")
server=
finish() {
  [ -z "$server" ] || { kill "$server" && wait "$server" || true; } 2>/dev/null
  rm -rf "$aside"
}
trap finish EXIT

# Writes FILES of BYTES in all to TREE.
write() {
  python3 - "$@" <<'PYTHON'
import os, random, sys
tree, files, total = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dice = random.Random(files)
def content(size):
    parts = []
    while size > 0:
        piece = min(size, 65536)
        if dice.random() < 0.5:
            parts.append(dice.randbytes(piece))
        else:
            words = [dice.randbytes(6).hex().encode() for _ in range(200)]
            text = b" ".join(dice.choice(words) for _ in range(piece // 13 + 1))
            parts.append(text[:piece])
        size -= piece
    return b"".join(parts)
for number in range(files):
    path = f"{tree}/{number // 1000}/{number}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content(total // files))
PYTHON
}

# Changes a hundredth of TREE's files, or of one file a hundred bytes.
change() {
  python3 - "$@" <<'PYTHON'
import os, sys
tree, files = sys.argv[1], int(sys.argv[2])
places = [(f"{tree}/0/0", part) for part in range(100)] if files == 1 else [
    (f"{tree}/{number // 1000}/{number}", 50) for number in range(0, files, 100)]
for path, part in places:
    at = os.path.getsize(path) * part // 100
    with open(path, "r+b") as file:
        file.seek(at); byte = file.read(1); file.seek(at); file.write(bytes([byte[0] ^ 1]))
PYTHON
}

# Prints the seconds of a command and of a sync of the file system.
time_of() {
  local begin end
  sync -f "$aside"
  begin=$(date +%s.%N)
  "$@" >/dev/null 2>"$aside/errors" || { cat "$aside/errors" >&2; return 1; }
  sync -f "$aside"
  end=$(date +%s.%N)
  awk -v from="$begin" -v to="$end" 'BEGIN { printf "%.2f\n", to - from }'
}

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

printf '[destinations.d]\nkind = "dir"\npath = "%s/dest"\nkeep = 2\n' "$aside" >"$aside/whit.toml"
export WHIT_STATE=$aside/state WHIT_CONFIG_HOME=$aside/config XDG_CONFIG_HOME=$aside/config
"$whit" serve --config "$aside/whit.toml" --data "$aside/data" --listen 127.0.0.1:0 >"$aside/said" 2>&1 &
server=$!
until grep -q 'whit login' "$aside/said"; do sleep 0.1; done
$whit $(grep -o 'login whit://.*' "$aside/said") --quiet >/dev/null

# Runs one round of a tree and appends each time to a file named after what was timed.
round() {
  local app=$1 files=$2
  rm -rf "$aside/dest" "$aside/copy" "$aside/.copy.whit" "$aside/cp" "$aside/rsync" "$aside/tree"
  cp -a "$aside/tree-$files" "$aside/tree"
  for step in first changed same; do
    if [ "$step" = changed ]; then change "$aside/tree" "$files"; fi
    "$whit" push "$app" "$aside/tree" --effort time --quiet >/dev/null
    time_of "$whit" deliver "$app@latest" --to d --quiet >>"$aside/$files.$step.deliver"
    time_of "$whit" pull "$app" "$aside/copy" --quiet >>"$aside/$files.$step.pull"
    rm -rf "$aside/cp"
    time_of cp -a "$aside/tree" "$aside/cp" >>"$aside/$files.$step.cp"
    time_of rsync -a --delete "$aside/tree/" "$aside/rsync/" >>"$aside/$files.$step.rsync"
    diff -rq "$aside/tree" "$aside/copy" && diff -rq "$aside/tree" "$aside/dest/current/"
  done
}

echo '| files | | deliver | pull | cp -a | rsync -a |'
echo '|--:|---|--:|--:|--:|--:|'
for files in "$@"; do
  write "$aside/tree-$files" "$files" "$bytes"
  for number in $(seq "$rounds"); do round "app$files-$number" "$files"; done
  for step in first changed same; do
    echo "| $files | $step | $(median <"$aside/$files.$step.deliver") | $(median <"$aside/$files.$step.pull") |" \
      "$(median <"$aside/$files.$step.cp") | $(median <"$aside/$files.$step.rsync") |"
  done
  rm -rf "$aside/tree-$files"
done
