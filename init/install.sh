#!/bin/sh
# Installs, upgrades and removes Orion Agent.
#
#   curl -fsSL https://install.orion.dev | bash
#   curl -fsSL https://install.orion.dev | bash -s -- --version 1.2.3
#   sh /usr/local/lib/orion-agent/current/share/install.sh --uninstall
#
# Everything is a function and runs from the last line: of a download that was cut off nothing is run.
# It reads no answers, sends nothing but the requests for its own files, and every failure has a number,
# which is the exit status too.

set -eu

BASE_URL=${ORION_BASE_URL:-https://install.orion.dev}
# Everything is put below this folder; only the running system ("/") gets its service manager told.
ROOT=${ORION_INSTALL_ROOT:-}
MIN_GLIBC_MINOR=28
NEED_UNPACKED_KB=65536
NEED_DOWNLOAD_KB=20480
COME_UP_S=${ORION_COME_UP_S:-30}

usage() {
    cat <<'EOF'
Installs, upgrades and removes Orion Agent.

usage: install.sh [--version <version>] [--dry-run]
       install.sh --rollback [--dry-run]
       install.sh (--uninstall | --purge) [--dry-run]

  --version <version>  install this version instead of the newest
  --rollback           go back to the version that was installed before
  --uninstall          stop the agent and its applications, remove the program; keep configuration and logs
  --purge              --uninstall, and remove /etc/orion, the agent's own log and unit overrides as well
  --dry-run            say what would be done and change nothing

environment: ORION_BASE_URL      where the files are (default https://install.orion.dev)
             ORION_INSTALL_ROOT  install below this folder and leave the running system alone
             ORION_COME_UP_S     how long an upgraded agent has to answer before the old one is put back (30)
EOF
}

say() { printf 'orion: %s\n' "$*"; }

warn() { printf 'orion: %s\n' "$*" >&2; }

# fail NUMBER MESSAGE
fail() {
    number=$1
    shift
    printf 'orion: error %s: %s\n' "$number" "$*" >&2
    exit "$number"
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command with the rights it needs; with --dry-run it is shown instead.
act() {
    if [ "$dry_run" = yes ]; then
        printf '  would run: %s\n' "$*"
    else
        $sudo "$@"
    fi
}

# --- what this machine is -------------------------------------------------------------------------------------

detect_system() {
    [ "$(uname -s)" = Linux ] || fail 11 "cannot install on $(uname -s): the agent is for Linux only"
    machine=$(uname -m)
    case $machine in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=aarch64 ;;
    *) fail 12 "cannot install on $machine: there are builds for x86_64 and aarch64; use the source package" ;;
    esac
    if have getconf && [ "$(getconf LONG_BIT 2>/dev/null || echo 64)" = 32 ]; then
        fail 12 "cannot install: this is a 32-bit system on a 64-bit kernel; use the source package"
    fi
    detect_libc
}

detect_libc() {
    version=
    if have getconf; then
        version=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc //p') || version=
    fi
    if [ -z "$version" ] && have ldd; then
        case $(ldd --version 2>&1 || true) in
        *musl*) fail 13 "cannot install: this system uses musl; use the source package" ;;
        esac
        version=$(ldd --version 2>/dev/null | sed -n '1s/.* \([0-9][0-9]*\.[0-9][0-9]*\)$/\1/p') || version=
    fi
    case $version in
    2.*) ;;
    '') # Nobody to ask; the trial run of the new program will tell.
        return 0 ;;
    *) fail 13 "cannot install: unknown C library $version; use the source package" ;;
    esac
    minor=${version#2.}
    minor=${minor%%.*}
    [ "$minor" -ge "$MIN_GLIBC_MINOR" ] ||
        fail 13 "cannot install: glibc $version is older than 2.$MIN_GLIBC_MINOR; upgrade the system first"
}

detect_rights() {
    sudo=
    if [ "$(id -u)" = 0 ] || [ -n "$ROOT" ]; then
        return 0
    elif have sudo; then
        sudo=sudo
    elif have doas; then
        sudo=doas
    else
        fail 14 "cannot install without root: neither sudo nor doas is here; run this as root (su -)"
    fi
    [ "$dry_run" = yes ] || $sudo true || fail 14 "cannot become root by $sudo: see its message above; run this as root"
}

detect_tools() {
    for tool in tar gzip sed awk df mktemp; do
        have "$tool" || fail 16 "cannot install without $tool: install the package that has it"
    done
    have sha256sum || have openssl ||
        fail 16 "cannot check the download without sha256sum or openssl: install coreutils"
    case $BASE_URL in
    https://*) insecure=no ;;
    http://127.0.0.1 | http://localhost | 'http://[::1]') insecure=yes ;;
    http://127.0.0.1[:/]* | http://localhost[:/]* | 'http://[::1]'[:/]*) insecure=yes ;;
    *) fail 15 "cannot download from $BASE_URL: only https is safe; set ORION_BASE_URL to an https address" ;;
    esac
    have curl || have wget || fail 15 "cannot download: neither curl nor wget is here; install one of them"
}

has_systemd() { [ -z "$ROOT" ] && [ -d /run/systemd/system ] && have systemctl; }

# --- download -------------------------------------------------------------------------------------------------

# fetch NAME FILE
fetch() {
    status=0
    if have curl; then
        protocol='=https'
        [ "$insecure" = no ] || protocol='=http,https'
        curl -fsSL --proto "$protocol" --connect-timeout 15 --retry 2 -o "$2" "$BASE_URL/$1" || status=$?
        # 23: curl cannot write what it got
        [ "$status" != 23 ] || fail 20 "cannot store $1: no space in $scratch; free some or set TMPDIR"
    else
        wget -q -T 15 -O "$2" "$BASE_URL/$1" || status=$?
        [ "$status" != 3 ] || fail 20 "cannot store $1: no space in $scratch; free some or set TMPDIR"
    fi
    [ "$status" = 0 ] ||
        fail 17 "cannot download $BASE_URL/$1 (status $status): check the network, a proxy, and the address"
}

checksum_of() {
    if have sha256sum; then
        sha256sum "$1" | awk '{print $1}'
    else
        openssl dgst -sha256 "$1" | awk '{print $NF}'
    fi
}

# Reads SHA256SUMS and sets version, name and wanted_sum.
choose_version() {
    fetch SHA256SUMS "$scratch/SHA256SUMS"
    offered=$(awk '{print $2}' "$scratch/SHA256SUMS" |
        sed -n "s/^\**orion-agent-\(.*\)-linux-$arch\.tar\.gz\$/\1/p")
    if [ -n "$wanted_version" ]; then
        version=$(printf '%s\n' "$offered" | awk -v wanted="$wanted_version" '$0 == wanted' | sed -n 1p)
    else
        # The newest release; what has letters in it (1.2.0-rc1) only comes by --version.
        version=$(printf '%s\n' "$offered" | awk '/^[0-9]+\.[0-9]+\.[0-9]+$/' |
            sort -t . -k 1,1n -k 2,2n -k 3,3n | sed -n '$p')
    fi
    [ -n "$version" ] || fail 18 "cannot find ${wanted_version:-any version} for $arch at $BASE_URL;" \
        "it offers: $(echo "${offered:-nothing}" | tr '\n' ' ')"
    case $version in
    *[!A-Za-z0-9.+-]*) fail 18 "cannot install version '$version': not a version" ;;
    esac
    name=orion-agent-$version-linux-$arch.tar.gz
    wanted_sum=$(awk -v name="$name" '$2 == name || $2 == "*" name {print $1; exit}' "$scratch/SHA256SUMS")
}

download() {
    need_space "$scratch" "$NEED_DOWNLOAD_KB"
    fetch "$name" "$scratch/$name"
    found_sum=$(checksum_of "$scratch/$name")
    [ "$found_sum" = "$wanted_sum" ] ||
        fail 19 "cannot trust $name: its checksum is $found_sum, not $wanted_sum;" \
            "the download was cut off or changed on its way; try again, and tell us if it stays so"
}

# need_space FOLDER KB
need_space() {
    where=$1
    while [ ! -d "$where" ]; do where=$(dirname "$where"); done
    free=$(df -Pk "$where" | awk 'NR == 2 {print $4}')
    [ "$free" -ge "$2" ] ||
        fail 20 "cannot install: $where has $((free / 1024)) MB free, $(($2 / 1024)) are needed; free some"
}

# --- put in place ---------------------------------------------------------------------------------------------

# Sets folder: where the wanted build is or will be below $lib. Succeeds when it is there and runs.
find_build() {
    for folder in "$version" "$version.$(printf '%.8s' "$wanted_sum")"; do
        if [ "$(cat "$lib/$folder/.checksum" 2>/dev/null)" = "$wanted_sum" ]; then
            "$lib/$folder/orion" version >/dev/null 2>&1 && return 0
        fi
        # Another build of a version, or a damaged one, is replaced beside it: an agent may be running from it.
        [ -e "$lib/$folder" ] || return 1
    done
    folder=$folder.$$
    return 1
}

# Unpacks beside the installed versions and tries the new program.
unpack() {
    fresh=$lib/.new-$$
    make_folder "$lib"
    act mkdir "$fresh"
    act tar -xzf "$scratch/$name" --no-same-owner --strip-components=1 -C "$fresh" || {
        need_space "$lib" "$NEED_UNPACKED_KB"
        fail 21 "cannot unpack $name: tar failed; see its message above"
    }
    if [ "$dry_run" = no ]; then
        [ -x "$fresh/orion" ] || fail 21 "cannot use $name: there is no program in it"
        trial=$("$fresh/orion" version 2>&1) ||
            fail 22 "cannot use $name: its program does not run here: $trial"
        echo "$wanted_sum" | $sudo tee "$fresh/.checksum" >/dev/null
    fi
    act mv "$fresh" "$lib/$folder"
    unpacked=$folder
}

# Like mkdir -p, and remembers what was not there before, for the removal.
make_folder() {
    [ ! -d "$1" ] || return 0
    make_folder "${1%/*}"
    act mkdir "$1"
    if [ "$dry_run" = no ] && [ -d "$lib" ]; then echo "$1" | $sudo tee -a "$lib/.folders" >/dev/null; fi
}

# Makes a symlink in one step: whoever looks sees the old or the new one, never none.
# link TARGET NAME
link() {
    act ln -s "$1" "$2.new-$$"
    act mv -fT "$2.new-$$" "$2"
}

current_version() { readlink "$lib/current" 2>/dev/null || true; }

# The version that a run which has not come to its end switched away from; nothing when all ran to their end.
cut_short_from() {
    came_from=$(readlink "$lib/.from" 2>/dev/null) || return 0
    [ ! -d "$lib/$came_from" ] || echo "$came_from"
}

# Without it, a run after one that was cut short would take the new version for the one before.
remember() { [ -z "$1" ] || link "$1" "$lib/.from"; }

forget() { [ ! -h "$lib/.from" ] || act rm -f "$lib/.from"; }

switch_to() {
    say "switching to $1"
    link "$1" "$lib/current"
}

# The links outside of our own folder; each names what it leads to in the tree.
links() {
    cat <<EOF
$ROOT/usr/local/bin/orion ../lib/orion-agent/current/orion
$ROOT/usr/local/share/man/man1/orion.1 ../../../lib/orion-agent/current/share/orion.1
$ROOT/usr/local/share/bash-completion/completions/orion ../../../lib/orion-agent/current/share/orion.bash
$ROOT/usr/local/share/zsh/site-functions/_orion ../../../lib/orion-agent/current/share/orion.zsh
$ROOT/usr/local/share/fish/vendor_completions.d/orion.fish ../../../lib/orion-agent/current/share/orion.fish
EOF
}

install_links() {
    links | while read -r at target; do
        case $target in
        */share/*) [ -e "$lib/current/share/${target##*/}" ] || continue ;;
        esac
        [ "$(readlink "$at" 2>/dev/null)" != "$target" ] || continue
        make_folder "${at%/*}"
        link "$target" "$at"
    done
}

# Tells whether the installed unit is one that an installed version brought; a run that was cut short may have
# left either's.
is_our_unit() {
    for brought in "$lib"/*/share/orion-agent.service; do
        ! cmp -s "$unit" "$brought" || return 0
    done
    return 1
}

# Installs the unit of the current version, unless it was changed by hand since $1 installed it.
install_unit() {
    from=$lib/current/share/orion-agent.service
    [ -e "$from" ] || [ "$dry_run" = yes ] || return 0
    if [ -e "$unit" ] && [ -n "$1" ] && [ -e "$lib/$1/share/orion-agent.service" ] && ! is_our_unit; then
        warn "$unit was changed by hand and stays; the new one is $from"
    elif ! cmp -s "$unit" "$from"; then
        make_folder "${unit%/*}"
        act cp "$from" "$unit.new-$$"
        act chmod 0644 "$unit.new-$$"
        act mv -f "$unit.new-$$" "$unit"
    fi
    ! has_systemd || act systemctl daemon-reload
}

# --- the running agent ----------------------------------------------------------------------------------------

is_service() { has_systemd && systemctl is-active --quiet orion-agent; }

# Tells whether an agent answers, whoever has started it.
answers() { [ -z "$ROOT" ] && "$lib/current/orion" ping >/dev/null 2>&1; }

is_running() { is_service || answers; }

# Tells whether the running agent is the program in folder $1 and answers.
runs() {
    pid=$(cat /run/orion/agent.lock 2>/dev/null) || return 1
    [ "$($sudo readlink "/proc/${pid:-none}/exe")" = "$(readlink -f "$lib/$1/orion")" ] || return 1
    "$lib/$1/orion" ping >/dev/null 2>&1
}

# The same, within COME_UP_S seconds.
comes_up() {
    tries=$((COME_UP_S * 5))
    while ! runs "$1"; do
        [ "$tries" -gt 0 ] || return 1
        sleep 0.2 2>/dev/null || sleep 1
        tries=$((tries - 1))
    done
}

reload_agent() {
    if is_service; then
        act systemctl reload orion-agent
    else
        act "$lib/current/orion" reload
    fi
}

# Makes the running agent take up version $1, which is current; goes back to $2 when that fails.
take_up() {
    if [ "$dry_run" = yes ]; then
        [ "$1" = "$2" ] || reload_agent
        return 0
    fi
    ! runs "$1" || return 0
    service=no log=/var/log/orion-agent.log
    if is_service; then service=yes log='journalctl -u orion-agent'; fi
    say "handing over to the new version; applications go on"
    ! { reload_agent && comes_up "$1"; } || return 0
    if [ -z "$2" ] || [ "$2" = "$1" ] || [ ! -d "$lib/$2" ]; then
        fail 25 "cannot start $1 and there is no version to go back to; see $log"
    fi
    warn "$1 does not come up; going back to $2"
    switch_to "$2"
    install_unit "$1"
    # Either the old program never left, or the new one is being restarted and this is what starts next.
    comes_up "$2" || [ "$service" = no ] || act systemctl restart orion-agent || true
    forget
    [ "$unpacked" != "$1" ] || act rm -rf "$lib/$1"
    comes_up "$2" || fail 25 "cannot start $1, and $2, which is back in its place, does not answer: start it; see $log"
    fail 25 "cannot start $1: went back to $2, which runs; see $log"
}

# Keeps the current version and the one before; removes all others.
prune() {
    kept=$(readlink "$lib/previous" 2>/dev/null) || kept=
    for old in "$lib"/*; do
        case ${old##*/} in
        "$(current_version)" | "$kept") ;;
        *) [ -h "$old" ] || [ ! -d "$old" ] || act rm -rf "$old" ;;
        esac
    done
}

# Removes what a run that was killed had not finished.
sweep() {
    for left in "$lib"/.new-* "$lib"/*.new-* "$lib"/.from.new-*; do
        case ${left##*/} in
        .new-*) [ ! -d "$left" ] || act rm -rf "$left" ;;
        *) [ ! -h "$left" ] || act rm -f "$left" ;;
        esac
    done
}

install() {
    choose_version
    sweep
    now=$(current_version)
    previous=$(cut_short_from)
    if find_build; then
        [ "$folder" != "$now" ] || say "$version is installed already"
    else
        need_space "$lib" "$NEED_UNPACKED_KB"
        say "downloading $BASE_URL/$name"
        [ "$dry_run" = yes ] || download
        unpack
    fi
    if [ -z "$previous" ] || [ "$previous" = "$folder" ]; then previous=$now; fi
    if [ "$folder" != "$now" ]; then
        remember "$previous"
        # The version to go back to is current in a moment: only an unfinished rollback may look like that.
        [ "$(readlink "$lib/previous" 2>/dev/null)" != "$folder" ] || act rm -f "$lib/previous"
        switch_to "$folder"
    fi
    install_links
    install_unit "$previous"
    ! is_running || take_up "$folder" "$previous"
    [ "$folder" = "$previous" ] || [ -z "$previous" ] || link "$previous" "$lib/previous"
    forget
    prune
    [ "$dry_run" = no ] || return 0
    say "installed $version"
    next_steps
}

next_steps() {
    if [ -n "$ROOT" ] || is_running; then return 0; fi
    [ -e /etc/orion/config.json ] || say "next: sudo orion setup --server"
    if has_systemd; then
        say "next: sudo systemctl enable --now orion-agent"
    else
        say "next: there is no systemd here; let your service manager run"
        say "  /usr/local/bin/orion daemon        (in the foreground, as root; it ends on SIGTERM)"
    fi
}

rollback() {
    back=$(readlink "$lib/previous" 2>/dev/null) || back=
    now=$(current_version)
    from=$(cut_short_from)
    if [ -n "$from" ] && [ "$from" != "$now" ]; then
        # A rollback was cut short, and is brought to its end; or an upgrade was, and is undone.
        if [ "$back" = "$now" ]; then now=$from; else back=$from; fi
    fi
    [ -d "$lib/${back:-none}" ] || fail 18 "cannot go back: no earlier version is kept in $lib"
    remember "$now"
    switch_to "$back"
    install_unit "$now"
    ! is_running || take_up "$back" "$now"
    link "$now" "$lib/previous"
    forget
    [ "$dry_run" = yes ] || say "went back to $back"
}

uninstall() {
    if has_systemd && systemctl cat orion-agent >/dev/null 2>&1; then
        act systemctl disable --now orion-agent ||
            fail 26 "cannot stop the agent: systemctl failed; look at systemctl status orion-agent"
    fi
    if [ "$dry_run" = no ] && answers; then
        fail 26 "cannot remove a running agent: stop it first, by what has started it"
    fi
    act rm -f "$unit"
    links | while read -r at target; do
        [ "$(readlink "$at" 2>/dev/null)" != "$target" ] || act rm -f "$at"
    done
    if [ "$purge" = yes ]; then
        act rm -rf "$ROOT/etc/orion" "$unit.d"
        for file in "$ROOT/var/log/orion-agent.log"*; do [ ! -e "$file" ] || act rm -f "$file"; done
    fi
    folders=$(cat "$lib/.folders" 2>/dev/null) || folders=
    act rm -rf "$lib" "$ROOT/run/orion"
    # Those that we made, the innermost first, where nobody else has put anything since.
    printf '%s\n' "$folders" | sed -n '1!G;h;$p' | while read -r at; do
        [ ! -d "$at" ] || [ -n "$(ls -A "$at")" ] || act rmdir "$at"
    done
    if has_systemd; then
        act systemctl daemon-reload
        act systemctl reset-failed orion-agent 2>/dev/null || true
    fi
    [ "$dry_run" = no ] || return 0
    if [ "$purge" = yes ]; then
        say "removed; each application's own .orion/config.json is left in its folder"
    else
        say "removed; configuration and logs are left in $ROOT/etc/orion and $ROOT/var/log (--purge removes them)"
    fi
}

# Process numbers begin anew with every boot, so a lock tells its boot, too.
boot() { cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo unknown; }

# One installation at a time; the lock of one that was killed is taken over.
take_lock() {
    lock=$lib.lock
    $sudo mkdir -p "${lib%/*}" || fail 23 "cannot write to ${lib%/*}: is it mounted read-only?"
    if ! $sudo mkdir "$lock" 2>/dev/null; then
        owner=$(cat "$lock/pid" 2>/dev/null) || owner=
        of_boot=$(cat "$lock/boot" 2>/dev/null) || of_boot=$(boot)
        if [ -n "$owner" ] && [ "$of_boot" = "$(boot)" ] && [ -d "/proc/$owner" ]; then
            fail 24 "cannot install: another installation (process $owner) is under way; wait for it"
        fi
        [ -d "$lock" ] || fail 23 "cannot write to ${lib%/*}: is it mounted read-only?"
    fi
    locked=yes
    boot | $sudo tee "$lock/boot" >/dev/null
    echo $$ | $sudo tee "$lock/pid" >/dev/null
}

clean_up() {
    status=$?
    trap - EXIT
    [ -z "$scratch" ] || rm -rf "$scratch"
    if [ "$locked" = yes ]; then
        $sudo rm -rf "$lib/.new-$$" "$lock"
        [ -h "$lib/current" ] || $sudo rm -rf "$lib" # nothing was installed
    fi
    case $status in
    [1-9]) fail 23 "a step failed, see above: is the disk full or mounted read-only?" ;;
    esac
    exit "$status"
}

main() {
    what=install wanted_version='' dry_run=no purge=no scratch='' locked=no unpacked=''
    while [ $# -gt 0 ]; do
        case $1 in
        --version)
            [ $# -ge 2 ] || fail 10 "--version needs a version; see --help"
            wanted_version=$2
            shift
            ;;
        --version=*) wanted_version=${1#--version=} ;;
        --rollback) what=rollback ;;
        --uninstall) what=uninstall ;;
        --purge) what=uninstall purge=yes ;;
        --dry-run) dry_run=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail 10 "unknown option $1; see --help" ;;
        esac
        shift
    done
    lib=$ROOT/usr/local/lib/orion-agent
    unit=$ROOT/etc/systemd/system/orion-agent.service
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    umask 022
    [ "$what" != install ] || detect_system
    detect_rights
    [ "$what" != install ] || detect_tools
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/orion-install.XXXXXX") ||
        fail 20 "cannot make a temporary folder in ${TMPDIR:-/tmp}: free some space or set TMPDIR"
    [ "$dry_run" = yes ] || take_lock
    "$what"
    [ "$dry_run" = no ] || say "this was a dry run: nothing was changed"
}

# The braces make this one command: a shell that got only a part of it runs none of it. And nothing that is
# started here can swallow the rest of the script from the pipe.
{ main "$@" </dev/null; exit; }
