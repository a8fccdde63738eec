#!/bin/bash
# The test command: on a fresh Debian with Rust, installs what the tests need and runs them all.
#
#   tests/run.sh
#
# Order: what is needed (apt, rustup), HAProxy versions (tests/setup-haproxy.sh), then formatting,
# clippy and all tests. A failure of formatting or clippy does not keep the tests from running;
# the exit code is 0 only when everything passed. Needs no terminal; as root or with sudo it
# installs what is missing, else it says what to install.
set -u -o pipefail
exec </dev/null
cd "$(dirname "$0")/.." || exit 1
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
[ -d "$HOME/.cargo/bin" ] && PATH=$HOME/.cargo/bin:$PATH

say() { printf '\n== %s\n' "$*"; }
die() { printf 'tests/run.sh: %s\n' "$*" >&2; exit 1; }

command -v cargo >/dev/null || die "no cargo: install Rust first, see https://rustup.rs"
# A C compiler: mimalloc and the linker need one.
if ! command -v cc >/dev/null; then
    say "installing a C compiler (package gcc)"
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    "${root[@]}" apt-get update -q >/dev/null 2>&1
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q gcc libc6-dev ||
        die "no C compiler, and apt could not install gcc: install it and run this again"
fi
for component in rustfmt clippy; do
    case $component in rustfmt) tool=fmt ;; *) tool=clippy ;; esac
    cargo $tool --version >/dev/null 2>&1 && continue
    say "adding the Rust component $component"
    command -v rustup >/dev/null && rustup component add $component
    cargo $tool --version >/dev/null 2>&1 ||
        die "cargo $tool is missing and could not be added: install the Rust component $component"
done

say "HAProxy versions"
tests/setup-haproxy.sh || die "no HAProxy: the interop tests cannot run (see above)"

failed=()
# step NAME SECONDS COMMAND...: runs it, with a bound on its time.
step() {
    local name=$1 limit=$2 begin=$SECONDS code
    shift 2
    say "$name: $*"
    timeout --kill-after=10 "$limit" "$@"
    code=$?
    [ $code = 124 ] && echo "$name: not done in $limit s, ended" >&2
    [ $code = 0 ] || failed+=("$name")
    echo "($name: $((SECONDS - begin)) s)"
}
step formatting 120 cargo fmt --check
step clippy 900 cargo clippy --all-targets --all-features -- -D warnings
step miri 600 tests/miri.sh
step tests 1800 cargo test --all-features --no-fail-fast

if [ ${#failed[@]} != 0 ]; then
    printf 'tests/run.sh: FAILED: %s\n' "${failed[*]}" >&2
    exit 1
fi
echo "tests/run.sh: all passed"
