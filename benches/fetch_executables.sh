#!/usr/bin/env bash
# Brings consecutive releases of programs, libraries and addons from npm and PyPI, for benches/releases.sh.
#
#   benches/fetch_executables.sh DIR [CASE...]
#
# Leaves DIR/CASE/{old,new}/, expanded. A case that is there already is left alone. Needs npm, pip, tar and python3.
set -euo pipefail

root=${1:?usage: benches/fetch_executables.sh DIR [CASE...]}
shift
mkdir -p "$root"
root=$(cd "$root" && pwd)

# case, registry, name, older release, newer release
pairs="
esbuild        npm  @esbuild/linux-x64                0.28.1   0.28.2
esbuild-arm    npm  @esbuild/linux-arm64              0.28.1   0.28.2
swc            npm  @swc/core-linux-x64-gnu           1.16.21  1.16.22
rollup         npm  @rollup/rollup-linux-x64-gnu      4.68.7   4.68.8
lightningcss   npm  lightningcss-linux-x64-gnu        1.32.0   1.33.0
tailwind       npm  @tailwindcss/oxide-linux-x64-gnu  4.3.4    4.3.5
turbo          npm  turbo-linux-64                    2.8.15   2.8.16
libvips        npm  @img/sharp-libvips-linux-x64      1.3.3    1.3.4
libvips-arm    npm  @img/sharp-libvips-linux-arm64    1.3.3    1.3.4
oxlint-arm     npm  @oxlint/linux-arm64-gnu           1.42.0   1.43.0
ruff           pypi ruff                              0.17.5   0.17.6
uv             pypi uv                                0.13.8   0.13.9
scipy          pypi scipy                             1.17.0   1.17.1
cryptography   pypi cryptography                      50.0.1   50.0.2
"

npm_package() { (cd "$1" && npm pack --silent "$2@$3" >/dev/null && tar -xzf ./*.tgz && rm ./*.tgz); }
pypi_package() {
    pip download -q --no-deps --only-binary :all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "$1" "$2==$3"
    (cd "$1" && python3 -m zipfile -e ./*.whl . && rm ./*.whl)
}

while read -r case registry name old new; do
    [[ -n $case ]] || continue
    [[ $# -eq 0 || " $* " == *" $case "* ]] || continue
    [[ ! -e $root/$case ]] || continue
    rm -rf "$root/.part"
    mkdir -p "$root/.part/old" "$root/.part/new"
    "${registry}_package" "$root/.part/old" "$name" "$old"
    "${registry}_package" "$root/.part/new" "$name" "$new"
    mv "$root/.part" "$root/$case"
    du -sb "$root/$case/new" | cut -f 1 | xargs echo "$case $name $old -> $new:"
done <<<"$pairs"
