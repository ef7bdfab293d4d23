# title: a pool on a LUN of its own process is refused, whatever lies in between; on a LUN of another process it is served
# timeout: 180
# memory: 2G
. /project/test/kernel/lib.sh

OUTER=/tmp/outer
refused() { # WHAT CHAIN
  grep -q "wait for itself: .*$2.*which is the volume \\\\*\"vol\\\\*\" of the pool \\\\*\"outer\\\\*\"" /tmp/serve.log || fail "$1: not refused, or not with its reason"
  ok "$1: $(grep -o 'wait for itself: [^,]*' /tmp/serve.log | head -n 1 | cut -c 18-)"
}
# serve_both DIR: the outer pool is served all the same.
serve_both() { start_thinlun $OUTER $1 --tcmu --portal 127.0.0.1:3260; }
stop_failed() { kill -TERM "$(cat /tmp/serve.pid)"; ended serve 1; }

thinlun pool create $OUTER --data-size 1G
start_thinlun $OUTER --tcmu --portal 127.0.0.1:3260
dir=$(tcmu_create vol thin/outer/vol 536870912)
disk=$(tcm_loop_create vol $dir)
make_fs ext4 $disk
mkdir -p /tmp/on-lun /tmp/on-loop
mount $disk /tmp/on-lun
thinlun pool create /tmp/on-lun/inner --data-size 64M >/dev/null
truncate -s 128M /tmp/on-lun/image
loop=$(losetup --find --show /tmp/on-lun/image)
mkfs.ext4 -q -F $loop
mount $loop /tmp/on-loop
thinlun pool create /tmp/on-loop/inner --data-size 64M >/dev/null
thinlun pool create /tmp/linked --data-size 64M >/dev/null
cp --sparse=always /tmp/linked/data /tmp/on-lun/linked-data
rm /tmp/linked/data
ln -s ../on-lun/linked-data /tmp/linked/data
sync
stop_thinlun

# While nobody serves the disk, a look at a file on it could wait for ever.
serve_both /tmp/on-lun/inner
refused 'a file system on the disk' "/tmp/on-lun/inner is on $disk"
stop_failed
serve_both /tmp/on-loop/inner
refused 'a loop device in between' "/tmp/on-loop/inner is on $loop is on /tmp/on-lun/image is on $disk"
stop_failed
serve_both /tmp/linked
refused 'only its data is there' "/tmp/linked/data is on $disk"

# The others go on, and another process may have the inner one.
verify_fio outer /tmp/on-lun 16M
background inner node $PROJECT/bin/thinlun serve /tmp/on-lun/inner --portal 127.0.0.1:3261
wait_for 30 'the inner server' grep -q '^Ready' /tmp/inner.log
thinlun volume create /tmp/on-lun/inner vol --size 32M
kill -TERM "$(cat /tmp/inner.pid)"
ended inner 0
check_pool /tmp/on-lun/inner
ok "the outer pool is served meanwhile; another process serves the inner one"
umount /tmp/on-loop
losetup -d $loop
umount /tmp/on-lun

# LVM's way, and a pool whose devices are the disk itself.
dmsetup create mapped --table "0 131072 linear $disk 262144"
dmsetup mknodes
thinlun pool create /tmp/devices --data /dev/mapper/mapped >/dev/null
stop_failed
serve_both /tmp/devices
refused 'device-mapper in between' "/tmp/devices/data is on /dev/mapper/mapped is on $disk"
dmsetup remove mapped
tcm_loop_remove vol
tcmu_remove $dir

# The same by the portal.
start_iscsid
IQN=$(thinlun pool status $OUTER --json | json .server.target)
iscsiadm -m discovery -t st -p 127.0.0.1:3260 >/dev/null
iscsiadm -m node -T $IQN -p 127.0.0.1:3260 -l >/dev/null
wait_for 30 'the disk' iscsi_disk $IQN 0
disk=$(iscsi_disk $IQN 0)
make_fs ext4 $disk
mount $disk /tmp/on-lun
thinlun pool create /tmp/on-lun/inner --data-size 64M >/dev/null
sync
stop_failed
serve_both /tmp/on-lun/inner
refused 'open-iscsi and the portal' "/tmp/on-lun/inner is on $disk"
umount /tmp/on-lun
check_fs ext4 $disk
iscsiadm -m node -T $IQN -u >/dev/null
stop_failed
check_pool $OUTER
no_stuck_tasks
kernel_log_clean
ok "nothing is stuck, the kernel's log is clean"
