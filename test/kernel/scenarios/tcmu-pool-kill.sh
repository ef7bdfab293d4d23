# title: kill -9 of thinlun under load and restart, again and again: I/O goes on, file system and metadata are clean
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool
thinlun pool create $POOL --data-size 2G
start_thinlun $POOL --tcmu --no-portal
dir=$(tcmu_create vol thin/pool/vol 536870912 hw_max_sectors=2048,max_data_area_mb=32)
disk=$(tcm_loop_create vol $dir)
make_fs ext4 $disk
mkdir -p /tmp/mnt
mount $disk /tmp/mnt

# Most writes are not flushed when the server is killed: what was acknowledged outlives the process all the same.
background load fio --eta=never --name=v --directory=/tmp/mnt --size=128M --rw=randwrite --bs=4k-128k --ioengine=libaio --direct=1 --iodepth=16 \
  --fsync=32 --time_based --runtime=40 --verify=crc32c --verify_backlog=512 --output=/tmp/fio.out
for round in 1 2 3 4 5; do
  sleep 3.$round
  kill_thinlun
  thin_check $POOL/metadata >/tmp/check 2>&1 || { cat /tmp/check; fail "thin_check after kill $round"; }
  start_thinlun $POOL --tcmu --no-portal
done
ok "killed five times under load, thin_check content each time"
ended load 0
grep -q 'err= 0' /tmp/fio.out || { cat /tmp/fio.out; fail 'fio found errors'; }
ok "fio --verify saw nothing but pauses"
umount /tmp/mnt
check_fs ext4 $disk
ok "the file system is clean"

# What was flushed is there after a kill at the next moment.
mount $disk /tmp/mnt
for i in $(seq 20); do
  dd if=/dev/urandom of=/tmp/mnt/file$i bs=64k count=5 conv=fsync 2>/dev/null
  md5sum /tmp/mnt/file$i >>/tmp/sums
  [ $((i % 5)) != 0 ] || { kill_thinlun; start_thinlun $POOL --tcmu --no-portal; }
done
umount /tmp/mnt
mount $disk /tmp/mnt
md5sum --quiet -c /tmp/sums || fail 'a file that was flushed is not there'
umount /tmp/mnt
ok "every file that was flushed is there"

tcm_loop_remove vol
tcmu_remove $dir
stop_thinlun
check_pool $POOL
no_stuck_tasks
kernel_log_clean
ok "thin_check is content, nothing is stuck, the kernel's log is clean"
