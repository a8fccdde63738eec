#!/bin/bash
# Sets up the HAProxy versions that the interop tests run against, under target/haproxy/.
#
#   tests/setup-haproxy.sh [DIR]          DIR: where to put them (default: target/haproxy)
#
# Each version becomes DIR/<major.minor>/haproxy, an executable to be called like HAProxy itself:
#   this Debian's own package   apt-get install haproxy              (2.6 on Debian 12)
#   trixie, sid                 debootstrap of that suite with haproxy in it        (3.0, 3.2)
#   experimental                that suite's haproxy package over a copy of sid     (3.4)
# The last three run without chroot, by their own dynamic loader and libraries. Nothing of the
# system changes but the packages haproxy and debootstrap, where they are missing.
#
# Safe to call again: what is there and runs is left alone. A version that cannot be had is
# named at the end; only when there is no HAProxy at all is the exit code not zero.
set -u -o pipefail

cd "$(dirname "$0")/.." || exit 1
dest=${1:-target/haproxy}
mkdir -p "$dest" && dest=$(cd "$dest" && pwd) || exit 1
work=$dest/.work
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
failed=()

say() { printf 'setup-haproxy: %s\n' "$*"; }

# Runs a command as root: directly, or by sudo when it asks for no password.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        say "root is needed for: $* (run as root, or with a sudo that asks for no password)" >&2
        return 1
    fi
}

# Installs packages with apt; the index is updated first only when the first try fails.
apt_install() {
    command -v apt-get >/dev/null || { say "no apt-get here: cannot install $*" >&2; return 1; }
    say "installing with apt: $*"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q
        --no-install-recommends "$@")
    as_root "${install[@]}" </dev/null >"$dest/apt.log" 2>&1 && return 0
    as_root apt-get update -q </dev/null >>"$dest/apt.log" 2>&1
    as_root "${install[@]}" </dev/null >>"$dest/apt.log" 2>&1 && return 0
    say "apt could not install $*; the end of $dest/apt.log:" >&2
    tail -n 5 "$dest/apt.log" >&2
    return 1
}

# haproxy_version COMMAND: its version as major.minor, or nothing.
haproxy_version() { timeout 10 "$1" -v 2>/dev/null | sed -n 's/^HAProxy version \([0-9]*\.[0-9]*\).*/\1/p'; }

# already SUITE: there is a folder made from SUITE whose haproxy runs.
already() {
    local mark version
    for mark in "$dest"/*/suite; do
        [ -f "$mark" ] && [ "$(cat "$mark")" = "$1" ] || continue
        version=$(haproxy_version "${mark%/suite}/haproxy")
        if [ -n "$version" ]; then
            say "$version ($1) is there"
            return 0
        fi
    done
    return 1
}

# adopt SUITE TREE: makes DEST/<version>/ of an unpacked tree and wraps its haproxy.
adopt() {
    local suite=$1 tree=$2 triplet loader wrapper=$2/run version
    triplet=$(basename "$(dirname "$(find "$tree/usr/lib" -name 'libc.so.6' | head -n 1)")")
    loader=$(cd "$tree" && ls lib64/ld-linux-*.so.* lib/ld-linux-*.so.* 2>/dev/null | head -n 1)
    if [ -z "$loader" ] || [ ! -x "$tree/usr/sbin/haproxy" ]; then
        say "no haproxy or no dynamic loader in $tree" >&2
        return 1
    fi
    write_wrapper() { # FOLDER FILE, the folder as seen from the file
        printf '#!/bin/sh\nD=%s\nexec "$D/%s" --library-path "$D/usr/lib/%s" "$D/usr/sbin/haproxy" "$@"\n' \
            "$1" "$loader" "$triplet" >"$2" && chmod 755 "$2"
    }
    write_wrapper '${0%/*}' "$wrapper"
    version=$(haproxy_version "$wrapper")
    if [ -z "$version" ]; then
        say "the haproxy of $suite does not run:" >&2
        timeout 10 "$wrapper" -v >&2
        return 1
    fi
    rm -f "$wrapper"
    if [ -e "$dest/$version/suite" ] && [ "$(cat "$dest/$version/suite")" != "$suite" ] &&
        [ -n "$(haproxy_version "$dest/$version/haproxy")" ]; then
        say "$suite has $version too, which is there already: nothing more to test"
        return 0
    fi
    rm -rf "${dest:?}/$version" && mkdir "$dest/$version" && mv "$tree" "$dest/$version/root" || return 1
    write_wrapper '${0%/*}/root' "$dest/$version/haproxy"
    echo "$suite" >"$dest/$version/suite"
    say "$version ($suite) is ready: $dest/$version/haproxy"
}

# The mirror that this system's apt uses for Debian itself; nothing when there is none that
# debootstrap can read (it then takes its own default).
mirror() {
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sed -n 's#^Debian|Debian|\(https\{0,1\}://.*[^/]\)/\{0,1\}$#\1#p' | head -n 1
}

# From this Debian's own package.
setup_system() {
    local command version
    already system && return 0
    command=$(PATH=$PATH:/usr/sbin command -v haproxy)
    if [ -z "$command" ]; then
        apt_install haproxy || return 1
        command=$(PATH=$PATH:/usr/sbin command -v haproxy)
    fi
    version=$(haproxy_version "$command")
    [ -n "$version" ] || { say "$command does not run" >&2; return 1; }
    mkdir -p "$dest/$version"
    printf '#!/bin/sh\nexec %s "$@"\n' "$command" >"$dest/$version/haproxy"
    chmod 755 "$dest/$version/haproxy"
    echo system >"$dest/$version/suite"
    say "$version ($command) is ready"
}

# bootstrap SUITE TREE: a minimal Debian of that suite with haproxy, pruned to what runs it.
bootstrap() {
    local suite=$1 tree=$2 script=/usr/share/debootstrap/scripts/$1 from arguments log=$dest/$1.log
    command -v debootstrap >/dev/null || [ -x /usr/sbin/debootstrap ] ||
        apt_install debootstrap || return 1
    [ -f "$keyring" ] || apt_install debian-archive-keyring || return 1
    from=$(mirror)
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    arguments=(--variant=minbase --include=haproxy "--keyring=$keyring" "$suite" "$tree")
    # A script can only be named behind a mirror.
    [ -n "$from" ] && arguments+=("$from" "$script")
    say "debootstrap of $suite from ${from:-its default mirror} (about half a minute)"
    for _ in 1 2; do
        as_root rm -rf "$tree"
        if as_root env PATH="$PATH:/usr/sbin:/sbin" timeout 600 debootstrap "${arguments[@]}" \
            </dev/null >"$log" 2>&1; then
            as_root chown -R "$(id -u):$(id -g)" "$tree"
            # Only the binary, the loader and the libraries are ever used.
            find "$tree" -mindepth 1 -maxdepth 1 ! -name usr ! -name 'lib*' -exec rm -rf {} +
            find "$tree/usr" -mindepth 1 -maxdepth 1 ! -name 'lib*' ! -name sbin -exec rm -rf {} +
            find "$tree/usr/sbin" -mindepth 1 ! -name haproxy -delete
            return 0
        fi
    done
    say "debootstrap of $suite failed; the end of $log:" >&2
    tail -n 5 "$log" >&2
    return 1
}

setup_suite() {
    already "$1" && return 0
    bootstrap "$1" "$work/$1" && adopt "$1" "$work/$1"
}

# Experimental is not a whole suite: its haproxy goes over a copy of sid's folder.
setup_experimental() {
    local mark sid='' state=$work/apt from apt options
    already experimental && return 0
    for mark in "$dest"/*/suite; do
        [ -f "$mark" ] && [ "$(cat "$mark")" = sid ] && sid=${mark%/suite}/root
    done
    [ -n "$sid" ] || { say "experimental needs the folder of sid, which is not there" >&2; return 1; }
    from=$(mirror)
    rm -rf "$state" "$work/experimental"
    mkdir -p "$state"/{lists/partial,cache/archives/partial,deb}
    : >"$state/status"
    echo "deb [signed-by=$keyring] ${from:-http://deb.debian.org/debian} experimental main" \
        >"$state/sources.list"
    # All of apt's state in a folder of our own: the system's sources and lists stay as they are.
    options=(-q -o "Dir::State=$state" -o "Dir::State::status=$state/status"
        -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state/cache"
        -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=-
        -o Dir::Etc::preferences=- -o Dir::Etc::preferencesparts=-
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=2
        # A mirror that lags behind is good enough for tests, as it is for debootstrap.
        -o Acquire::Check-Valid-Until=false)
    say "fetching haproxy from experimental"
    apt=(timeout 300 apt-get "${options[@]}")
    if ! { "${apt[@]}" update && cd "$state/deb" && "${apt[@]}" download haproxy; } \
        </dev/null >"$dest/experimental.log" 2>&1; then
        say "could not fetch haproxy from experimental; the end of $dest/experimental.log:" >&2
        tail -n 5 "$dest/experimental.log" >&2
        return 1
    fi
    cp -a "$sid" "$work/experimental" && rm -f "$work/experimental/usr/sbin/haproxy" &&
        dpkg-deb -x "$state"/deb/haproxy_*.deb "$work/experimental" || return 1
    adopt experimental "$work/experimental"
}

setup_system || failed+=("this system's own (package haproxy)")
setup_suite trixie || failed+=('3.0 (trixie)')
setup_suite sid || failed+=('3.2 (sid)')
(setup_experimental) || failed+=('3.4 (experimental)')
rm -rf "$work" 2>/dev/null || as_root rm -rf "$work"

found=()
for wrapper in "$dest"/*/haproxy; do
    [ -x "$wrapper" ] && version=$(haproxy_version "$wrapper") && [ -n "$version" ] &&
        found+=("$version")
done
for name in ${failed[@]+"${failed[@]}"}; do say "MISSING: HAProxy $name" >&2; done
if [ ${#found[@]} = 0 ]; then
    say "no HAProxy at all could be set up: the interop tests cannot run" >&2
    exit 1
fi
say "HAProxy versions ready: ${found[*]}"
