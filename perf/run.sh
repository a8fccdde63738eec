#!/bin/bash
# Everything that perf/ measures, in one command, kept under perf/results/<date>-all/.
#
#   perf/run.sh                       all of it: hours with four HAProxys and 10 M entries
#   perf/run.sh --quick               the same works on small tables in a few minutes: a rehearsal
#   perf/run.sh learn --keys 100000   one subcommand with options of its own (stickring-load --help)
#
# Sets up HAProxy (tests/setup-haproxy.sh), builds release, measures. Options for the load tool may
# follow: --rounds 3, --only 3.4,stickring. Nothing else should run on the machine meanwhile. It ends
# by itself: each single run has a limit (--limit, --reload-limit), behind which it has failed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
[ -d "$HOME/.cargo/bin" ] && PATH=$HOME/.cargo/bin:$PATH

tests/setup-haproxy.sh || echo "perf/run.sh: no HAProxy: stickring alone is measured" >&2
cargo build --release --features perf --bins || exit 1
tuning/check.sh | sed 's/^/not set on this host: /'
[ "$(cut -d. -f1 </proc/loadavg)" -lt 1 ] ||
    echo "perf/run.sh: the machine is busy (load $(cut -d' ' -f1 </proc/loadavg)): ratios only" >&2

# Huge pages for memfds, as tuning/ has them, where we may; result.json says what was in effect.
# STICKRING_PERF_HUGE=no measures without.
huge=/sys/kernel/mm/transparent_hugepage/shmem_enabled
if [ "${STICKRING_PERF_HUGE:-yes}" = yes ] && [ -w $huge ] && grep -q '\[never\]' $huge; then
    echo advise >$huge && trap 'echo never >$huge' EXIT
fi

load=(target/release/stickring-load)
case ${1:-} in
--quick)
    shift
    # No HAProxy in all rounds, as in the reloads of all of it. What is said last counts.
    "${load[@]}" all --small 20000 --large 50000 --seconds 1 --rounds 2 --haproxy-rounds 1 "$@"
    ;;
'' | --*) "${load[@]}" all --keep "$@" ;;
*) "${load[@]}" "$@" --keep ;;
esac
