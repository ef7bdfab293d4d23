# title: open-iscsi sees a volume grow, online; a full pool is ENOSPC to the file system, which goes on when the pool has grown
# timeout: 180
. /project/test/kernel/lib.sh

POOL=/tmp/pool PORTAL=127.0.0.1:3260 MIB=1048576
thinlun pool create $POOL --data-size 128M
thinlun volume create $POOL vol --size 256M
thinlun pool set $POOL --no-space-timeout 2
start_thinlun $POOL --portal $PORTAL
start_iscsid
iscsiadm -m discovery -t st -p $PORTAL >/tmp/discovery
IQN=$(awk '{print $2; exit}' /tmp/discovery)
iscsiadm -m node -T $IQN -p $PORTAL -l >/dev/null
wait_for 30 'the disk' iscsi_disk $IQN 0
disk=$(iscsi_disk $IQN 0)
make_fs ext4 $disk
mkdir -p /tmp/mnt
mount $disk /tmp/mnt
verify_fio small /tmp/mnt 16M

thinlun volume resize $POOL vol --size 512M >/dev/null
for _ in 1 2 3; do # The first command after it may be answered with the unit attention that tells of it.
  iscsiadm -m node -T $IQN -R >/dev/null
  [ "$(blockdev --getsize64 $disk)" != $((512 * MIB)) ] || break
  sleep 0.5
done
same 'size after the rescan' $((512 * MIB)) "$(blockdev --getsize64 $disk)"
resize2fs $disk >/tmp/resize 2>&1 || { cat /tmp/resize; fail resize2fs; }
[ "$(df --output=size -B1 /tmp/mnt | tail -n 1)" -gt $((400 * MIB)) ] || fail "the file system did not grow: $(df /tmp/mnt)"
dmesg | grep -q 'Capacity data has changed' || fail 'the kernel was not told'
ok "resize: the unit attention, iscsiadm --rescan, resize2fs, all while mounted"

dd if=/dev/urandom of=/tmp/mnt/keep bs=1M count=32 conv=fsync 2>/dev/null
sum=$(md5sum </tmp/mnt/keep)
status=0
dd if=/dev/urandom of=/tmp/mnt/toomuch bs=1M count=128 oflag=direct 2>/tmp/dd.err || status=$?
[ $status != 0 ] || fail 'more was written than the pool has'
grep -q 'No space left on device' /tmp/dd.err || { cat /tmp/dd.err; dmesg | tail -n 20; fail 'it failed, but not with ENOSPC'; }
same 'mode of the pool' out-of-data-space "$(thinlun pool status $POOL --json | json .mode)"
same 'the file before' "$sum" "$(md5sum </tmp/mnt/keep)"
# A read and a write in place still work.
dd if=/dev/urandom of=/tmp/mnt/keep bs=1M count=1 conv=notrunc oflag=direct 2>/dev/null
sum=$(md5sum </tmp/mnt/keep)
ok "a full pool: ENOSPC, and what has its blocks is read and written as before"

thinlun pool grow $POOL --data-size 320M >/dev/null
same 'mode of the grown pool' write "$(thinlun pool status $POOL --json | json .mode)"
dd if=/dev/urandom of=/tmp/mnt/toomuch bs=1M count=128 oflag=direct 2>/tmp/dd.err || { cat /tmp/dd.err; fail 'no writes after the pool has grown'; }
verify_fio later /tmp/mnt 32M
same 'the file before' "$sum" "$(md5sum </tmp/mnt/keep)"
umount /tmp/mnt
check_fs ext4 $disk
ok "the pool has grown: writes go on in the same mount, ext4 is clean"

thinlun pool set $POOL --no-space-timeout 60 >/dev/null
mount $disk /tmp/mnt
background wait dd if=/dev/urandom of=/tmp/mnt/waits bs=1M count=240 oflag=direct
for _ in $(seq 60); do
  [ "$(thinlun pool status $POOL --json | json .mode)" != out-of-data-space ] || break
  sleep 0.5
done
same 'mode of the pool that is full again' out-of-data-space "$(thinlun pool status $POOL --json | json .mode)"
alive wait || fail 'the write did not wait for space'
thinlun pool grow $POOL --data-size 768M >/dev/null
ended wait 0
umount /tmp/mnt
check_fs ext4 $disk
ok "a write that waits for space ends well when the pool grows in time"

iscsiadm -m node -T $IQN -u >/dev/null
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "thin_check is content, nothing is stuck"
