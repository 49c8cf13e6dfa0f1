#!/bin/busybox sh
# The first program of the virtual machine: loads what is needed to see the disk with the system and the folders that
# the host shares, mounts them, and hands over to systemd. What goes wrong is written to the console, which
# `cargo xtask vm` shows when no command was run.
b=/bin/busybox
fail() { echo "bale-vm: $*"; $b poweroff -f; }
$b mkdir -p /dev /proc /system
$b mount -t devtmpfs dev /dev && $b mount -t proc proc /proc || fail "no /dev or /proc"
for module in /modules/*; do $b insmod "$module" || fail "insmod $module"; done
$b mount -t ext4 -o noatime /dev/vda /system || fail "no disk with the system"
share() { # tag, options, mount point
    $b mkdir -p "/system$3"
    $b mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$2" "$1" "/system$3" || fail "no share $1"
}
share vm rw,cache=none /vm
while read -r tag path; do share "$tag" ro,cache=loose "$path"; done </system/vm/shares
$b umount /proc; $b umount /dev
exec $b switch_root /system /lib/systemd/systemd
