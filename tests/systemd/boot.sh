#!/bin/sh
# Boots systemd as PID 1 of namespaces of its own. The host's /usr is shared read-only; everything else is
# made here and vanishes with the last process.
#
#   boot.sh outer CGROUP ROOT LOCAL STATE   called on the host, as root
#   boot.sh inner ROOT LOCAL STATE          called by itself inside the new namespaces
#
# CGROUP is the name of a cgroup of our own, ROOT an empty folder, LOCAL what becomes /usr/local, STATE a folder
# that survives a reboot of the machine: it holds etc and var.
set -eu

outer() {
    umount -R -l /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir "/sys/fs/cgroup/$1"
    echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
    shift
    exec unshare --fork --kill-child=SIGKILL --pid --mount --uts --ipc --net --cgroup "$0" inner "$@"
}

inner() {
    root=$1 local=$2 state=$3
    mount -t tmpfs -o mode=0755 tmpfs "$root"
    cd "$root"
    mkdir usr proc sys dev run tmp etc var root old
    for name in bin sbin lib lib64 lib32 libx32; do
        [ -L "/$name" ] && ln -s "usr/$name" "$name"
    done
    mount --rbind /usr usr
    mount -o remount,bind,ro usr
    mount --bind "$local" usr/local
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=0755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    mount --bind "$state/etc" etc
    mount --bind "$state/var" var
    devices
    hostname machine
    pivot_root . old
    umount -l old
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin container=orion-test \
        /usr/lib/systemd/systemd --unit=multi-user.target --log-target=journal
}

devices() {
    mount -t tmpfs -o mode=0755 tmpfs dev
    for name in null zero full random urandom tty; do
        : >"dev/$name"
        mount --bind "/dev/$name" "dev/$name"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    ln -s /proc/self/fd/0 dev/stdin
    ln -s /proc/self/fd/1 dev/stdout
    ln -s /proc/self/fd/2 dev/stderr
}

"$@"
