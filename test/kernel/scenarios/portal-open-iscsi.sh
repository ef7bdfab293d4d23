# title: open-iscsi against the portal: login, mkfs, mount, write, fstrim, fsck, logout, restart, login again, the data is the same
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool PORTAL=127.0.0.1:3260
thinlun pool create $POOL --data-size 2G
thinlun volume create $POOL ext --size 512M
thinlun volume create $POOL xfs --size 512M
start_thinlun $POOL --portal $PORTAL
start_iscsid
iscsiadm -m discovery -t st -p $PORTAL >/tmp/discovery
cat /tmp/discovery
IQN=$(awk '{print $2; exit}' /tmp/discovery)
iscsiadm -m node -T $IQN -p $PORTAL -l
wait_for 30 'the disks' iscsi_disk $IQN 1
ok "discovery and login show both volumes of $IQN"

mkdir -p /tmp/mnt
lun=0
for kind in ext4 xfs; do
  disk=$(iscsi_disk $IQN $lun)
  make_fs $kind $disk
  mount $disk /tmp/mnt
  verify_fio $kind /tmp/mnt 64M
  filled=$(pool_used $POOL)
  rm /tmp/mnt/$kind*
  fstrim /tmp/mnt
  sleep 2
  trimmed=$(pool_used $POOL)
  [ "$trimmed" -lt "$filled" ] || fail "fstrim gave nothing back: $filled, then $trimmed"
  dd if=/dev/urandom of=/tmp/mnt/keep bs=1M count=20 conv=fsync 2>/dev/null
  md5sum </tmp/mnt/keep >/tmp/sum.$kind
  umount /tmp/mnt
  check_fs $kind $disk
  ok "$kind: mkfs, mount, fio --verify, fstrim ($((filled >> 20)) MiB used, then $((trimmed >> 20))), umount, fsck"
  lun=$((lun + 1))
done

iscsiadm -m node -T $IQN -u
stop_thinlun
check_pool $POOL
ok "logout and a clean stop; thin_check is content"
start_thinlun $POOL --portal $PORTAL
iscsiadm -m node -T $IQN -p $PORTAL -l
wait_for 30 'the disks' iscsi_disk $IQN 1
lun=0
for kind in ext4 xfs; do
  disk=$(iscsi_disk $IQN $lun)
  check_fs $kind $disk
  mount $disk /tmp/mnt
  same "$kind: the file after the restart" "$(cat /tmp/sum.$kind)" "$(md5sum </tmp/mnt/keep)"
  umount /tmp/mnt
  lun=$((lun + 1))
done
ok "after a restart and a login the data is the same"

disk=$(iscsi_disk $IQN 0)
mount $disk /tmp/mnt
# Most writes are not flushed when the server is killed: what was acknowledged outlives the process all the same.
background load fio --eta=never --name=v --directory=/tmp/mnt --size=64M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=16 \
  --fsync=32 --time_based --runtime=20 --verify=crc32c --verify_backlog=512 --output=/tmp/fio.out
for round in 1 2 3; do
  sleep 3
  kill_thinlun
  start_thinlun $POOL --portal $PORTAL
done
ended load 0
umount /tmp/mnt
check_fs ext4 $disk
ok "killed three times under load: sessions come back, fio --verify and fsck find nothing"

iscsiadm -m node -T $IQN -u
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "thin_check is content, nothing is stuck"
