#!/bin/sh
# Says what of tuning/README.md is not set on this host, one line each, with what to do about it.
#
#   tuning/check.sh [ROOT]        ROOT: where /proc and /sys are (default: the running system)
#
# No output and exit code 0: all is fine. Otherwise exit code 1. Reads only, needs no privileges;
# what this kernel does not have is not asked for. Limits are those of the shell it runs in: for a
# service's own, look with `systemctl show stickring` or run it there (ExecStartPre=-).
set -u
root=${1:-}
wrong=0

say() { printf '%s\n' "$*"; wrong=1; }
# Prints a file's first line, or fails when it is not there.
value() { [ -r "$root$1" ] && head -n 1 "$root$1" 2>/dev/null; }
# at_least FILE FIELD LEAST SYSCTL: a number of a sysctl.
at_least() {
    v=$(value "$1") || return 0
    v=$(printf '%s\n' "$v" | awk -v f="$2" '{ print $f }')
    [ "$v" -ge "$3" ] 2>/dev/null || say "$4 is $v, at least $3 is needed (tuning/sysctl.conf)"
}

# io_uring: without it the node falls back to epoll, and says so.
if v=$(value /proc/sys/kernel/io_uring_disabled) && [ "$v" != 0 ]; then
    say "kernel.io_uring_disabled is $v, so io_uring is off: set 0 (tuning/sysctl.conf)"
fi
if grep -q '^Seccomp:[[:space:]]*2' "$root/proc/self/status" 2>/dev/null; then
    say "a seccomp filter is on here: it must allow io_uring_setup, io_uring_enter and" \
        "io_uring_register (tuning/README.md, containers)"
fi

# Huge pages: the tables' memory latency is everything.
huge=/sys/kernel/mm/transparent_hugepage
case $(value $huge/enabled || echo '[madvise]') in
*'[never]'*) say "transparent_hugepage/enabled is never: set madvise (tuning/README.md)" ;;
esac
case $(value $huge/shmem_enabled || echo '[advise]') in
*'[never]'* | *'[deny]'*)
    say "transparent_hugepage/shmem_enabled is never: set advise, or tables in memory that can" \
        "be handed over have 4 KiB pages (tuning/README.md)"
    ;;
esac

# Limits of the process.
limit() { awk -v name="$1" 'index($0, name) == 1 { print $(NF - 1) }' "$root/proc/self/limits"; }
if [ -r "$root/proc/self/limits" ]; then
    # Column before the last is the hard limit; the node raises its soft one to it.
    v=$(limit 'Max open files')
    [ "$v" = unlimited ] || [ "$v" -ge 16384 ] ||
        say "the hard limit of open files is $v, at least 16384 is needed (LimitNOFILE=)"
    v=$(limit 'Max locked memory')
    # From 5.12 on the rings are not locked memory any more.
    old=$(value /proc/sys/kernel/osrelease | awk -F. '{ print ($1 * 1000 + $2 < 5012) }')
    [ "$old" != 1 ] || [ "$v" = unlimited ] || [ "$v" -ge 67108864 ] ||
        say "the hard limit of locked memory is $v bytes, at least 64 MiB is needed" \
            "(LimitMEMLOCK=): kernels before 5.12 take the rings from it"
fi

# Network.
at_least /proc/sys/net/core/somaxconn 1 1024 net.core.somaxconn
at_least /proc/sys/net/ipv4/tcp_max_syn_backlog 1 1024 net.ipv4.tcp_max_syn_backlog
at_least /proc/sys/net/ipv4/tcp_rmem 3 6291456 'net.ipv4.tcp_rmem (its third number)'
at_least /proc/sys/net/ipv4/tcp_wmem 3 4194304 'net.ipv4.tcp_wmem (its third number)'

# Memory: tables are reserved as address space and touched as they grow.
if v=$(value /proc/sys/vm/overcommit_memory) && [ "$v" = 2 ]; then
    say "vm.overcommit_memory is 2: tables reserve address space ahead of use, set 0 or 1"
fi
if v=$(value /proc/sys/vm/swappiness) && [ -r "$root/proc/swaps" ] &&
    [ "$(wc -l <"$root/proc/swaps")" -gt 1 ] && [ "$v" -gt 10 ]; then
    say "there is swap and vm.swappiness is $v: set at most 10, or switch swap off"
fi

# CPUs.
cpus=$(ls -d "$root"/sys/devices/system/cpu/cpu[0-9]* 2>/dev/null | wc -l)
for file in "$root"/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor; do
    [ -r "$file" ] || continue
    v=$(cat "$file")
    case $v in performance | schedutil) continue ;; esac
    say "the CPU frequency governor is $v: set performance"
    break
done
group=$(sed -n 's/^0:://p' "$root/proc/self/cgroup" 2>/dev/null)
if v=$(value "/sys/fs/cgroup$group/cpu.max") && [ "${v%% *}" != max ]; then
    # A quota that is no whole number of CPUs stops all threads in the middle of their work.
    quota=${v%% *} period=${v##* }
    [ $((quota % period)) = 0 ] ||
        say "the CPU quota is $v, no whole number of CPUs: threads will stall (CPUQuota=)"
fi

# Network cards with one queue and several CPUs: receive packet steering spreads the work.
if [ "$cpus" -gt 2 ]; then
    for card in "$root"/sys/class/net/*; do
        [ -e "$card/device" ] || continue
        [ "$(ls -d "$card"/queues/rx-* 2>/dev/null | wc -l)" = 1 ] || continue
        [ -z "$(tr -d '0,\n' <"$card/queues/rx-0/rps_cpus" 2>/dev/null)" ] || continue
        say "${card##*/} has one receive queue and no rps_cpus: one CPU takes all packets" \
            "(tuning/README.md)"
    done
fi
exit $wrong
