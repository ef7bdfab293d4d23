# title: kill -9 of thinlun under load over tcm_loop and LIO's iSCSI, again and again: I/O goes on, file systems and metadata are clean
# timeout: 300
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool
thinlun pool create $POOL --data-size 2G
start_thinlun $POOL --tcmu --no-portal
dir=$(tcmu_create vol thin/pool/vol 536870912 hw_max_sectors=2048,max_data_area_mb=32)
disk=$(tcm_loop_create vol $dir)
IQN=iqn.2026-11.org.example:kill
$PROJECT/targetcli-scripts/thinlun-create-lun --size 256M --iscsi $IQN --portal 127.0.0.1:3260 --acl iqn.2026-11.org.example:initiator pool/net >/dev/null
start_iscsid
iscsiadm -m discovery -t st -p 127.0.0.1:3260 >/dev/null
iscsiadm -m node -T $IQN -p 127.0.0.1:3260 -l >/dev/null
wait_for 30 'the disk' iscsi_disk $IQN 0
net=$(iscsi_disk $IQN 0)
mkdir -p /tmp/mnt /tmp/net
make_fs ext4 $disk
mount $disk /tmp/mnt
make_fs ext4 $net
mount $net /tmp/net

# Most writes are not flushed when the server is killed: what was acknowledged outlives the process all the same.
load() { # NAME FOLDER
  background $1 fio --eta=never --name=$1 --directory=$2 --size=96M --rw=randwrite --bs=4k-128k --ioengine=libaio --direct=1 --iodepth=16 \
    --fsync=32 --time_based --runtime=16 --verify=crc32c --verify_backlog=512 --output=/tmp/fio.$1
}
load loop /tmp/mnt
load net /tmp/net
for round in 1 2 3 4; do
  sleep 1.$((round * 17))
  kill_thinlun
  thin_check $POOL/metadata >/tmp/check 2>&1 || { cat /tmp/check; fail "thin_check after kill $round"; }
  start_thinlun $POOL --tcmu --no-portal
done
ok "killed four times under load, thin_check content each time"
for name in loop net; do
  ended $name 0
  grep -q 'err= 0' /tmp/fio.$name || { cat /tmp/fio.$name; fail "fio found errors: $name"; }
done
ok "fio --verify saw nothing but pauses, over tcm_loop and over LIO's iSCSI"
umount /tmp/mnt /tmp/net
check_fs ext4 $disk
check_fs ext4 $net
iscsiadm -m node -T $IQN -u >/dev/null
$PROJECT/targetcli-scripts/thinlun-remove-lun pool/net >/dev/null
ok "the file systems are clean"

# What was flushed is there after a kill at the next moment.
mount $disk /tmp/mnt
for i in $(seq 9); do
  dd if=/dev/urandom of=/tmp/mnt/file$i bs=64k count=5 conv=fsync 2>/dev/null
  md5sum /tmp/mnt/file$i >>/tmp/sums
  [ $((i % 3)) != 0 ] || { kill_thinlun; start_thinlun $POOL --tcmu --no-portal; }
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
