#!/bin/bash
# The files with unsafe code under Miri, which finds undefined behaviour that a test would not see.
# Needs a nightly toolchain with the miri component; says so and leaves where there is none.
set -u
cd "$(dirname "$0")/.." || exit 1
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    rustup +nightly component add miri rust-src >/dev/null 2>&1
fi
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "tests/miri.sh: not run: no Miri (rustup toolchain install nightly --component miri)"
    exit 0
fi
export MIRIFLAGS=-Zmiri-disable-isolation
exec cargo +nightly miri test --lib --target-dir target/miri -- \
    table::memory table::index table::blobs
