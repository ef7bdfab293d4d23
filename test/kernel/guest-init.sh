#!/bin/bash
# Process 1 of the guest: mounts, modules, DBus; then the command; then power-off. With on-host.sh, whose kernel goes on, it has some of that already.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
if [ ! -e /lab/on-host ]; then
  mount -t proc proc /proc
  mount -t sysfs sys /sys
  mountpoint -q /dev || mount -t devtmpfs dev /dev
  mkdir -p /dev/shm /dev/pts
  ln -sfn /proc/self/fd /dev/fd
  mount -t tmpfs tmpfs /dev/shm
  mount -t devpts pts /dev/pts
  mount -t tmpfs -o size=75% tmpfs /tmp
  hostname lab
  ip link set lo up
fi
# The root folder is read-only and shared: what programs want to write gets a copy in memory.
# Not what lies in /var/tmp and in caches: it may be more than the guest has.
for folder in etc var root; do
  mkdir "/tmp/.$folder"
  find "/$folder" -mindepth 1 -maxdepth 1 ! -path /var/tmp ! -path /var/cache \
    -exec cp -a --no-preserve=xattr -t "/tmp/.$folder/" {} + 2>/dev/null
  [ $folder != var ] || mkdir -p /tmp/.var/tmp /tmp/.var/cache
  mount --bind "/tmp/.$folder" "/$folder"
done
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/lock/iscsi /var/log /etc/target/{pr,alua} /etc/rtslib-fb-target/{pr,alua}
for module in configfs sd_mod sg loop target_core_mod target_core_user target_core_iblock target_core_file \
  tcm_loop iscsi_target_mod iscsi_tcp dm_thin_pool; do
  modprobe "$module" || echo "guest-init: no module $module"
done
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
dbus-daemon --system --fork
[ ! -e /lab/systemd ] || . /project/test/kernel/guest-systemd.sh
if [ -e /lab/interactive ]; then bash /lab/command; else bash /lab/command </dev/null; fi
echo $? >/lab/status
[ ! -e /lab/on-host ] || exit 0
sync
echo o >/proc/sysrq-trigger
while :; do sleep 1; done
