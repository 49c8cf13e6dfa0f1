#!/bin/bash
# weaken.sh FILE: builds a bale that is made to be broken, for the escape suite, and puts it at FILE.
#
# The checkout is seen through an overlay in a mount namespace of this script's own, weaken.patch is applied there, and
# cargo builds there: neither the sources nor target/ of the checkout change. In that build BALE_WEAKEN names rules that
# are out of force (docs/escape-suite.md):
#
#   BALE_WEAKEN=links RUNTIME=FILE cargo test -p bale --test escape
set -euo pipefail
out=$(realpath -m "${1:?usage: weaken.sh FILE}")
top=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
mkdir -p "$(dirname "$out")"
exec unshare --mount --propagation private bash -euc '
    mount -t tmpfs -o size=4g tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/out
    mount --bind "$(dirname "$1")" /mnt/out
    mount -t overlay overlay -o "lowerdir=$2,upperdir=/mnt/upper,workdir=/mnt/work" "$2"
    cd "$2"
    git apply crates/bale/tests/escape/weaken.patch
    cargo build --quiet -p bale
    cp target/x86_64-unknown-linux-gnu/debug/bale "/mnt/out/$(basename "$1")"
' weaken "$out" "$top"
