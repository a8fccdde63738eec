//! `tuning/check.sh`: silent where all is set, and naming each thing that is not.
//!
//! The script looks at a made-up `/proc` and `/sys`, in which one thing at a time is wrong.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Files of a host where nothing is missing.
const FINE: &[(&str, &str)] = &[
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
    ("proc/self/status", "Name:\tsh\nSeccomp:\t0\n"),
    (
        "proc/self/limits",
        "Max locked memory  8388608  8388608  bytes\nMax open files  1024  65536  files\n",
    ),
    ("proc/self/cgroup", "0::/a.slice\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ("proc/sys/vm/overcommit_memory", "0\n"),
    ("proc/sys/vm/swappiness", "60\n"),
    ("proc/swaps", "Filename Type Size Used Priority\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size [advise] never\n"),
    ("sys/fs/cgroup/a.slice/cpu.max", "200000 100000\n"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/cpu/cpu1/online", "1\n"),
    ("sys/devices/system/cpu/cpu2/online", "1\n"),
    ("sys/class/net/eth0/device/vendor", "x\n"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,0000000f\n"),
];

/// One file that is different, and a word of what is then said.
const WRONG: &[(&str, &str, &str)] = &[
    ("proc/sys/kernel/io_uring_disabled", "2\n", "kernel.io_uring_disabled is 2"),
    ("proc/self/status", "Seccomp:\t2\n", "io_uring_setup"),
    ("proc/self/limits", "Max open files  1024  4096  files\n", "open files is 4096"),
    ("proc/sys/kernel/osrelease", "5.10.0-28-amd64\n", "locked memory is 8388608"),
    ("proc/sys/net/core/somaxconn", "128\n", "somaxconn is 128"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512\n", "tcp_max_syn_backlog is 512"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096 131072 131072\n", "tcp_rmem"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096 16384 65536\n", "tcp_wmem"),
    ("proc/sys/vm/overcommit_memory", "2\n", "overcommit_memory is 2"),
    ("proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2\n", "swappiness is 60"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n", "/enabled is never"),
    ("sys/kernel/mm/transparent_hugepage/shmem_enabled", "advise [never]\n", "shmem_enabled"),
    ("sys/fs/cgroup/a.slice/cpu.max", "150000 100000\n", "no whole number of CPUs"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n", "is powersave"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000000\n", "eth0"),
];

fn host(change: Option<(&str, &str)>) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (file, text) in FINE {
        let text = change.filter(|(f, _)| f == file).map_or(*text, |(_, t)| t);
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    root
}

fn check(root: &Path) -> (Option<i32>, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/check.sh");
    let output = Command::new("sh").arg(script).arg(root).output().expect("sh");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn silent_where_all_is_set() {
    assert_eq!(check(host(None).path()), (Some(0), String::new()));
    let empty = tempfile::tempdir().expect("a folder");
    assert_eq!(check(empty.path()), (Some(0), String::new()), "what is not there is not asked for");
}

#[test]
fn each_thing_that_is_not_set_is_named_alone() {
    for (file, text, word) in WRONG {
        assert!(FINE.iter().any(|(f, _)| f == file), "{file}");
        let (code, said) = check(host(Some((*file, *text))).path());
        assert_eq!(code, Some(1), "{file}: {said}");
        assert!(said.contains(word) && said.lines().count() == 1, "{file}: {said}");
    }
}
