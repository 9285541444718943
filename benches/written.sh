#!/usr/bin/env bash
# Seconds and bytes written of pulls in both layouts beside rsync, all synced: a table.
#
#   benches/written.sh FOLDER [BYTES] [FILES]
#
# A release of BYTES (1 GiB) in FILES (10000) files, half of which compresses to a third, is there; then comes the same one, one of which one
# file differs, and one of which a hundredth differs. rsync runs twice: in place of the files, and to a new folder with --link-dest, as one does who keeps releases.
# Columns: seconds; MiB that the programs wrote to files (ru_oublock of all their processes: pages that became dirty); MiB that reached FOLDER's
# block device (/sys/dev/block/*/stat), names and journal included, which tells only where nobody else writes to that device. Both also as a multiple of the changed
# bytes. ROUNDS [3] gives medians. WHIT names the program [default: the release build].
set -euo pipefail

folder=$(realpath "${1:?usage: benches/written.sh FOLDER [BYTES] [FILES]}")
export BYTES=${2:-1073741824} FILES=${3:-10000} ROUNDS=${ROUNDS:-3}
export WHIT_PROGRAM=$(realpath "${WHIT:-${CARGO_TARGET_DIR:-target}/release/whit}")
aside=$(mktemp -d -p "$folder")
server=
finish() {
  [ -z "$server" ] || { kill "$server" && wait "$server" || true; } 2>/dev/null
  rm -rf "$aside"
}
trap finish EXIT
export ASIDE=$aside WHIT_STATE=$aside/state WHIT_CONFIG_HOME=$aside/config XDG_CONFIG_HOME=$aside/config
# The proxy's data may lie elsewhere, so that what it writes does not count.
"$WHIT_PROGRAM" serve --data "${DATA:-$aside/data}" --listen 127.0.0.1:0 >"$aside/said" 2>&1 &
server=$!
until grep -q 'whit login' "$aside/said"; do sleep 0.1; done
"$WHIT_PROGRAM" $(grep -o 'login whit://.*' "$aside/said") --quiet >/dev/null

python3 - <<'PYTHON'
import os, random, resource, shutil, statistics, subprocess, time
aside, whit = os.environ["ASIDE"], os.environ["WHIT_PROGRAM"]
files, size, rounds = int(os.environ["FILES"]), int(os.environ["BYTES"]), int(os.environ["ROUNDS"])
dice = random.Random(1)

def content(left):
    parts = []
    while left > 0:
        piece = min(left, 65536)
        if dice.random() < 0.5:
            parts.append(dice.randbytes(piece))
        else:
            words = [dice.randbytes(6).hex().encode() for _ in range(200)]
            parts.append(b" ".join(dice.choice(words) for _ in range(piece // 13 + 1))[:piece])
        left -= piece
    return b"".join(parts)

def write(tree, numbers):
    written = 0
    for number in numbers:
        path = f"{tree}/{number // 1000}/{number}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        data = content(size // files)
        with open(path, "wb") as file:
            file.write(data)
        written += len(data)
    return written

device = os.stat(aside).st_dev
stat = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat"
def sectors():
    return int(open(stat).read().split()[6]) if os.path.exists(stat) else 0

def measure(*command):
    subprocess.run(["sync", "-f", aside], check=True)
    before, blocks, begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock, sectors(), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["sync", "-f", aside], check=True)
    seconds = time.monotonic() - begin
    return seconds, (resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock - before) * 512, (sectors() - blocks) * 512

tree = f"{aside}/tree"
steps = [("nothing", 0), ("one file", 1), ("1 %", max(files // 100, 1))]
found = {}
for turn in range(rounds):
    app = f"app{turn}"
    for name in ["tree", "plain", ".plain.whit", "site", "rsync", "rsyncs"]:
        shutil.rmtree(f"{aside}/{name}", ignore_errors=True)
    write(tree, range(files))
    os.mkdir(f"{aside}/rsyncs")
    def push():
        subprocess.run([whit, "push", app, tree, "--effort", "time", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    push()
    tools = {
        "pull, plain": lambda step: [whit, "pull", app, f"{aside}/plain", "--quiet"],
        "pull, releases": lambda step: [whit, "pull", app, f"{aside}/site", "--layout", "releases", "--keep", "2", "--quiet"],
        "rsync -a": lambda step: ["rsync", "-a", "--delete", f"{tree}/", f"{aside}/rsync/"],
        "rsync -a --link-dest": lambda step: ["rsync", "-a", f"--link-dest={aside}/rsyncs/{max(step - 1, 0)}", f"{tree}/", f"{aside}/rsyncs/{step}/"],
    }
    for tool in tools.values():
        measure(*tool(0))
    time.sleep(1)
    # The second pull finds that times tell.
    for tool in tools.values():
        measure(*tool(1))
    for number, (step, count) in enumerate(steps):
        changed = write(tree, random.Random(turn * 10 + number).sample(range(files), count))
        push()
        for name, tool in tools.items():
            time.sleep(0.2)
            found.setdefault((step, name), []).append((*measure(*tool(number + 2)), changed))
    for copy in ["plain", "site/current/", "rsync", f"rsyncs/{len(steps) + 1}"]:
        subprocess.run(["diff", "-rq", tree, f"{aside}/{copy}"], check=True)

print("| changed | | seconds | MiB written | of what changed | MiB on the device | of what changed |")
print("|---|---|--:|--:|--:|--:|--:|")
for (step, name), figures in found.items():
    seconds, written, device, changed = (statistics.median(column) for column in zip(*figures))
    part = lambda value: f"{value / changed:.2f}" if changed else ""
    print(f"| {step} | {name} | {seconds:.2f} | {written / 2**20:.2f} | {part(written)} | {device / 2**20:.2f} | {part(device)} |")
PYTHON
