#!/bin/sh
# Process 1 of the virtual machine: runs /out/command and turns the machine off.
cd "$1" || exit
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
# Tests set its sysctls; a Nomad client loads it at boot.
modprobe br_netfilter
echo "kernel $(uname -r), $(iptables --version), $(nft --version)"
sh /out/command 2>&1
echo $? >/out/status
sync
echo o >/proc/sysrq-trigger
sleep 60
