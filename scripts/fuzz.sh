#!/bin/sh
# Runs the fuzz targets (all, or those named), one after the other, each for FUZZ_SECONDS. Fails if one of them fails.
# Without a sanitizer, because those need nightly Rust, and what they would find takes `unsafe`, of which `protocol` has
# none. Coverage works on stable.
set -eu
cd "$(dirname "$0")/.."

seconds="${FUZZ_SECONDS:-120}"
version=0.13.2

if ! command -v cargo-fuzz >/dev/null; then
    cargo install cargo-fuzz --locked --version "$version"
fi
# Never the workspace's own: these builds have other flags.
export CARGO_TARGET_DIR="$PWD/fuzz/target"

targets="${*:-$(cargo fuzz list)}"
python3 scripts/fuzz_corpus.py $targets
cargo fuzz build --sanitizer none

failed=""
mkdir -p fuzz/artifacts
for target in $targets; do
    echo "== $target, $seconds seconds"
    log="fuzz/artifacts/$target.log"
    # An input of this size takes about a millisecond.
    if cargo fuzz run --sanitizer none "$target" -- -max_total_time="$seconds" -dict="fuzz/corpus/$target.dict" \
        -max_len=16384 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1; then
        grep "DONE " "$log"
    else
        tail -n 60 "$log"
        failed="$failed $target"
    fi
done

if [ -n "$failed" ]; then
    echo "Failed:$failed. The inputs are in fuzz/artifacts; mend it, and put them into fuzz/seeds." >&2
    exit 1
fi
