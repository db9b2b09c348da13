#!/bin/sh
# A host of one test file's own: unshare gave it network, mount and pid namespaces; here it gets its own /run (and so
# /var/run, /run/netns, the xtables lock), /etc, /var, /opt. Writes go to memory and end with the last process: nothing to clean up.
set -e
mount -t tmpfs tmpfs /run
for layer in etc var opt; do
  mkdir -p "/run/.layers/$layer/upper" "/run/.layers/$layer/work"
  mount -t overlay overlay -o "lowerdir=/$layer,upperdir=/run/.layers/$layer/upper,workdir=/run/.layers/$layer/work" "/$layer"
done
mount -t sysfs sysfs /sys
ip link set lo up
exec "$@"
