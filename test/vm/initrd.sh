#!/bin/sh
# First program of the virtual machine, run by busybox from the initial RAM disk: loads what the root file system needs and
# continues there with init.sh. The kernel's command line has weft.root=FOLDER, the repository on the host.
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do /bin/busybox insmod "/modules/$module"; done </modules/order
until [ -b /dev/vda ] || [ "$((tries += 1))" -gt 100 ]; do /bin/busybox sleep 0.1; done
repository=$(/bin/busybox sed 's/.*weft\.root=\([^ ]*\).*/\1/' /proc/cmdline)
options=trans=virtio,version=9p2000.L,msize=512000
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mkdir -p "/root$repository" /root/out
/bin/busybox mount -t 9p -o "$options,ro,cache=loose" repository "/root$repository"
/bin/busybox mount -t 9p -o "$options" out /root/out
/bin/busybox umount /proc /sys
/bin/busybox mount -o move /dev /root/dev
exec /bin/busybox switch_root /root /bin/sh "$repository/test/vm/init.sh" "$repository"
