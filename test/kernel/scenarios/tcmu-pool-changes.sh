# title: a volume grows from LIO's side and from ours, its device is reconfigured and taken away while in use
# timeout: 180
. /project/test/kernel/lib.sh

POOL=/tmp/pool
thinlun pool create $POOL --data-size 1G
start_thinlun $POOL --tcmu --no-portal
dir=$(tcmu_create vol thin/pool/vol 67108864)
disk=$(tcm_loop_create vol $dir)
make_fs ext4 $disk
mkdir -p /tmp/mnt
mount $disk /tmp/mnt
verify_fio a /tmp/mnt 16M

echo 134217728 >$dir/attrib/dev_size
echo 1 >/sys/block/${disk##*/}/device/rescan
same 'size of the disk' 134217728 "$(blockdev --getsize64 $disk)"
same 'size of the volume' 134217728 "$(thinlun volume list $POOL --json | json '[0].sizeBytes')"
resize2fs $disk >/dev/null 2>&1
ok "LIO's dev_size grows the volume, the mounted file system follows"

thinlun volume resize $POOL vol --size 256M
wait_for 10 'LIO to show the size' grep -qx 268435456 $dir/attrib/dev_size
echo 1 >/sys/block/${disk##*/}/device/rescan
same 'size of the disk' 268435456 "$(blockdev --getsize64 $disk)"
resize2fs $disk >/dev/null 2>&1
verify_fio b /tmp/mnt 64M
ok "thinlun volume resize grows the disk, LIO shows it"

if echo thin/pool/other >$dir/attrib/dev_config 2>/dev/null; then fail 'a device was turned into another'; fi
if echo 1048576 >$dir/attrib/dev_size 2>/dev/null; then fail 'a mounted disk was shrunk'; fi
if thinlun volume delete $POOL vol 2>/tmp/err; then fail 'a volume under a device was deleted'; fi
cat /tmp/err
ok "turning into another volume, shrinking and deleting it underneath are refused"
umount /tmp/mnt
check_fs ext4 $disk

fio --eta=never --name=r --filename=$disk --rw=randrw --bs=4k --ioengine=libaio --direct=1 --iodepth=16 --time_based --runtime=5 --output=/tmp/fio.r >/dev/null 2>&1 &
load=$!
sleep 2
tcm_loop_remove vol
tcmu_remove $dir
wait $load || true
ok "the device is taken away under load"
thinlun volume delete $POOL vol
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "thin_check is content, nothing is stuck"
