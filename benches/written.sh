#!/usr/bin/env bash
# Seconds and data blocks written of pulls in both layouts beside rsync, all synced: a table.
#
#   benches/written.sh FOLDER [BYTES] [FILES]
#
# A release of BYTES (1 GiB) in FILES (10000) files, half of which compresses to a third, is there; then comes the same one, one of which one
# file differs, and one of which a hundredth differs. rsync runs twice: in place of the files, and to a new folder with --link-dest, as one does who keeps releases.
# Columns: seconds; seconds less those of `cat` of the changed files into new ones, synced, in µs for each unchanged file; seconds of processors, without the
# proxy's; data blocks: content of files in blocks of 4 KiB, by ru_oublock of all processes, and as a multiple of those of the changed files; MiB that reached FOLDER's block device (/sys/dev/block/*/stat): with
# inodes, folders and journal, which tells only where nobody else writes to that device. Names and inodes of hard links are no data blocks. Where the file system has
# a journal, ru_oublock holds content alone, as the journal's thread writes the rest; where it has none, they are in it, and a line above the table says how many
# blocks links of as many files take. `truncate -s 4G image; mkfs.ext4 image; mount -o loop image FOLDER` makes a file system that has one.
# ROUNDS [3] gives medians. WHIT names the program [default: the release build]. DATA names the proxy's folder, which may lie elsewhere.
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
    for number in numbers:
        path = f"{tree}/{number // 1000}/{number}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        data = content(size // files)
        with open(path, "wb") as file:
            file.write(data)

device = os.stat(aside).st_dev
stat = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat"
def sectors():
    return int(open(stat).read().split()[6]) if os.path.exists(stat) else 0

def measure(*command):
    subprocess.run(["sync", "-f", aside], check=True)
    before, blocks, begin = resource.getrusage(resource.RUSAGE_CHILDREN), sectors(), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["sync", "-f", aside], check=True)
    seconds = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, (after.ru_oublock - before.ru_oublock) // 8, (sectors() - blocks) * 512

def blocks_of_links():
    """Returns the blocks that count as written for as many hard links as there are files."""
    os.makedirs(f"{aside}/links/new")
    for number in range(files):
        open(f"{aside}/links/{number}", "w").close()
    script = "import os, sys; [os.link(f'{sys.argv[1]}/{n}', f'{sys.argv[1]}/new/{n}') for n in range(int(sys.argv[2]))]"
    written = measure("python3", "-c", script, f"{aside}/links", str(files))[2]
    shutil.rmtree(f"{aside}/links")
    return written

def copied(changed):
    """Returns the seconds in which the changed files are copied, synced."""
    os.mkdir(f"{aside}/copied")
    names = "".join(f"{name}\n" for name in changed)
    script = "import shutil, sys; [shutil.copyfile(name.strip(), f'{sys.argv[1]}/{n}') for n, name in enumerate(open(sys.argv[2]))]"
    open(f"{aside}/names", "w").write(names)
    seconds = measure("python3", "-c", script, f"{aside}/copied", f"{aside}/names")[0] - measure("python3", "-c", "import shutil")[0]
    shutil.rmtree(f"{aside}/copied")
    return max(seconds, 0)

links = blocks_of_links()
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
        chosen = random.Random(turn * 10 + number).sample(range(files), count)
        write(tree, chosen)
        changed = count * (-(-(size // files) // 4096))
        floor = copied([f"{tree}/{number // 1000}/{number}" for number in chosen])
        push()
        for name, tool in tools.items():
            time.sleep(0.2)
            found.setdefault((step, name), []).append((*measure(*tool(number + 2)), changed, floor))
    for copy in ["plain", "site/current/", "rsync", f"rsyncs/{len(steps) + 1}"]:
        subprocess.run(["diff", "-rq", tree, f"{aside}/{copy}"], check=True)

if links > 10:
    print(f"No journal: {files} links alone count as {links} blocks.\n")
print("| changed | | seconds | µs for each unchanged file | of processors | data blocks | of what changed | MiB on the device |")
print("|---|---|--:|--:|--:|--:|--:|--:|")
counts = dict(steps)
for (step, name), figures in found.items():
    seconds, busy, written, device, changed, floor = (statistics.median(column) for column in zip(*figures))
    part = f"{written / changed:.3f}" if changed else ""
    each = (seconds - floor) / (files - counts[step]) * 1e6
    print(f"| {step} | {name} | {seconds:.2f} | {each:.0f} | {busy:.2f} | {written:.0f} | {part} | {device / 2**20:.2f} |")
PYTHON
