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
[ -n "$WEFT_TEST_AGENT" ] || exec "$@"
# With a node agent for the launchers under test. A file whose calls it never served proves nothing about it.
"$WEFT_TEST_AGENT" agent --warm-up 0 2>/run/.agent.log &
export WEFT_TEST_AGENT_PID=$!
while [ ! -S /run/weft/agent.sock ]; do kill -0 $! && sleep 0.02; done
"$@"
if grep -A9 "a call failed:" /run/.agent.log; then exit 1; fi
grep -Eq ' (ok|declined: .*)$' /run/.agent.log || { echo 'the node agent served no call:'; cat /run/.agent.log; exit 1; }
