#!/bin/busybox sh
# First process of the virtual machine that `cargo xtask vm` boots.
#
# Makes the machine look like an ordinary one, runs /vm/command and reports on the second serial line; the
# first one belongs to the kernel. What xtask reads there starts with `enforcer-vm-`.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root USER=root LOGNAME=root SHELL=/bin/bash TERM=dumb LANG=C.UTF-8

[ "$1" = second ] || busybox mount -t devtmpfs dev /dev

# The line is raw: a test's output must arrive as it was written.
busybox stty -F /dev/ttyS1 raw 115200
exec </dev/null >/dev/ttyS1 2>&1

finish() {
    echo "enforcer-vm-exit: $1"
    busybox stty -F /dev/ttyS1 drain 2>/dev/null
    busybox poweroff -f
}

fail() {
    echo "enforcer-vm-error: $*"
    finish 125
}

if [ "$1" != second ]; then
    # The initramfs is the one file system that cannot be pivoted away from; a bind mount of it can.
    busybox mkdir -p /vm/root
    busybox mount --bind / /vm/root || fail "cannot bind the root file system"
    busybox mount --move /dev /vm/root/dev
    cd /vm/root || fail "no new root"
    busybox mount --move . / || fail "cannot move the root file system"
    exec busybox chroot . /init second
fi

mount_new() { # type, place, options
    busybox mkdir -p "$2"
    busybox mount -t "$1" -o "${3:-nosuid}" "$1" "$2" || fail "cannot mount $1 on $2"
}
mount_new proc /proc nosuid,nodev,noexec
mount_new sysfs /sys nosuid,nodev,noexec
mount_new devpts /dev/pts nosuid,noexec,gid=5,mode=620,ptmxmode=666
mount_new tmpfs /dev/shm nosuid,nodev
mount_new tmpfs /run nosuid,nodev,mode=755
# Nothing on /tmp: the repository, which the guest sees at its own place, may lie below it.
mount_new cgroup2 /sys/fs/cgroup nosuid,nodev,noexec,nsdelegate
mount_new bpf /sys/fs/bpf nosuid,nodev,noexec,mode=700
mount_new securityfs /sys/kernel/security nosuid,nodev,noexec
mount_new tracefs /sys/kernel/tracing nosuid,nodev,noexec
busybox ln -sf /proc/self/fd /dev/fd
busybox ln -sf /proc/self/fd/0 /dev/stdin
busybox ln -sf /proc/self/fd/1 /dev/stdout
busybox ln -sf /proc/self/fd/2 /dev/stderr

while read -r module; do
    busybox insmod "$module" || fail "cannot load $module"
done </vm/modules

busybox hostname enforcer-vm
busybox chmod 700 /root
busybox chown -R agent:agent /home/agent
busybox ip link set lo up || fail "no loopback"
# As systemd sets it: `ping` needs no privileges.
busybox sysctl -qw net.ipv4.ping_group_range='0 2147483647' || fail "no ping"

# Should the program that watches us be killed, the machine must not run on for ever.
(
    read -r limit </vm/limit
    busybox sleep "$limit"
    busybox poweroff -f
) &

echo "enforcer-vm-start: $(busybox uname -r)"
# As a login session would: not in the root cgroup, which cannot have limits and which agents never live in.
busybox mkdir -p /sys/fs/cgroup/session
echo $$ >/sys/fs/cgroup/session/cgroup.procs
busybox setsid bash /vm/command
finish $?
