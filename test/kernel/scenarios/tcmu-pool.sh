# title: targetcli makes volumes in a pool: tcm_loop and LIO's iSCSI, mkfs, fio --verify, fstrim gives space back, fsck, delete
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool
thinlun pool create $POOL --data-size 2G
start_thinlun $POOL --tcmu --no-portal
targetcli /backstores/user:thin create name=vol size=512M cfgstring=pool/vol
same 'size of the volume' 536870912 "$(thinlun volume list $POOL --json | json '[0].sizeBytes')"
ok "targetcli makes a volume that was not there"
if targetcli /backstores/user:thin create name=no size=1M cfgstring=elsewhere/vol >/tmp/no 2>&1; then fail 'another pool was accepted'; fi
grep -q 'elsewhere' /tmp/no || { cat /tmp/no; fail 'the reason is not shown'; }
ok "a pool that is not served is refused with a reason"

disk=$(tcm_loop_create vol $CONFIGFS/core/user_*/vol)
mkdir -p /tmp/mnt
for kind in ext4 xfs; do
  make_fs $kind $disk
  mount $disk /tmp/mnt
  before=$(pool_used $POOL)
  verify_fio $kind /tmp/mnt 32M
  dd if=/dev/urandom of=/tmp/mnt/$kind.big bs=1M count=96 conv=fsync 2>/dev/null
  filled=$(pool_used $POOL)
  [ "$filled" -ge $((before + 90 * 1048576)) ] || fail "96 MiB were written, the pool grew from $before to $filled"
  rm /tmp/mnt/$kind*
  # xfs frees the extents of a removed file in the background, and trims none that its log still holds.
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    sync
    fstrim -v /tmp/mnt
    sleep 1
    trimmed=$(pool_used $POOL)
    [ "$trimmed" -gt $((filled - 80 * 1048576)) ] || break
  done
  [ "$trimmed" -le $((filled - 80 * 1048576)) ] || fail "fstrim gave back too little: $filled, then $trimmed"
  umount /tmp/mnt
  check_fs $kind $disk
  ok "$kind over tcm_loop: written, verified, trimmed ($((filled >> 20)) MiB used, then $((trimmed >> 20))), clean"
done

stop_thinlun
check_pool $POOL
start_thinlun $POOL --tcmu --no-portal
mount $disk /tmp/mnt
umount /tmp/mnt
ok "after a clean restart the disk is the same; thin_check is content in between"

IQN=iqn.2026-11.org.example:pool
$PROJECT/targetcli-scripts/thinlun-create-lun --size 512M --iscsi $IQN --portal 127.0.0.1:3260 --acl iqn.2026-11.org.example:initiator pool/two
start_iscsid
iscsiadm -m discovery -t st -p 127.0.0.1:3260 | grep -q $IQN
iscsiadm -m node -T $IQN -p 127.0.0.1:3260 -l
wait_for 30 'the disk' iscsi_disk $IQN 0
two=$(iscsi_disk $IQN 0)
make_fs ext4 $two
mount $two /tmp/mnt
before=$(pool_used $POOL)
verify_fio two /tmp/mnt 64M
rm /tmp/mnt/two*
fstrim /tmp/mnt
umount /tmp/mnt
check_fs ext4 $two
iscsiadm -m node -T $IQN -u
ok "ext4 over LIO's iSCSI with open-iscsi: written, verified, trimmed, clean"

$PROJECT/targetcli-scripts/thinlun-remove-lun pool/two
tcm_loop_remove vol
targetcli /backstores/user:thin delete vol >/dev/null
thinlun volume delete $POOL vol
thinlun volume delete $POOL two
sleep 1
same 'data in use at the end' 0 "$(pool_used $POOL)"
ok "LUNs and volumes are deleted, the pool is empty again"
stop_thinlun
check_pool $POOL
no_stuck_tasks
kernel_log_clean
ok "thin_check is content, nothing is stuck, the kernel's log is clean"
