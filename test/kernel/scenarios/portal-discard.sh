# title: ext4, xfs and btrfs mounted with discard give space back by themselves; LVM on top grows, snapshots and gives back; over open-iscsi
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool PORTAL=127.0.0.1:3260 MIB=1048576
thinlun pool create $POOL --data-size 2G
for name in ext4 xfs btrfs one two; do thinlun volume create $POOL $name --size 512M; done
start_thinlun $POOL --portal $PORTAL
start_iscsid
iscsiadm -m discovery -t st -p $PORTAL >/tmp/discovery
IQN=$(awk '{print $2; exit}' /tmp/discovery)
iscsiadm -m node -T $IQN -p $PORTAL -l >/dev/null
wait_for 30 'the disks' iscsi_disk $IQN 4
mkdir -p /tmp/mnt

uses_at_most() { [ "$(pool_used $POOL)" -le "$1" ]; }

lun=0
for kind in ext4 xfs btrfs; do
  disk=$(iscsi_disk $IQN $lun)
  make_fs $kind $disk
  options=discard
  [ $kind != btrfs ] || options=discard=sync
  mount -o $options $disk /tmp/mnt
  dd if=/dev/urandom of=/tmp/mnt/keep bs=1M count=8 conv=fsync 2>/dev/null
  sum=$(md5sum </tmp/mnt/keep)
  verify_fio $kind /tmp/mnt 32M
  before=$(pool_used $POOL)
  dd if=/dev/urandom of=/tmp/mnt/big bs=1M count=96 conv=fsync 2>/dev/null
  filled=$(pool_used $POOL)
  [ "$filled" -ge $((before + 90 * MIB)) ] || fail "$kind: 96 MiB were written, the pool grew from $before to $filled"
  rm /tmp/mnt/big
  # No fstrim: the file system discards what is freed when its transaction is committed.
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    sync -f /tmp/mnt
    sleep 1
    ! uses_at_most $((filled - 80 * MIB)) || break
  done
  uses_at_most $((filled - 80 * MIB)) || fail "$kind gave back too little: $filled, then $(pool_used $POOL)"
  same "$kind: the file that stayed" "$sum" "$(md5sum </tmp/mnt/keep)"
  umount /tmp/mnt
  check_fs $kind $disk
  ok "$kind -o $options: $((filled / MIB)) MiB used, then $(($(pool_used $POOL) / MIB)); what stayed is the same, and it is clean"
  lun=$((lun + 1))
done

cat >/etc/lvm/lvmlocal.conf <<'CONF'
activation { udev_sync = 0 udev_rules = 0 }
devices { use_devicesfile = 0 obtain_device_list_from_udev = 0 external_device_info_source = "none" issue_discards = 1 }
CONF
one=$(iscsi_disk $IQN 3) two=$(iscsi_disk $IQN 4)
empty=$(pool_used $POOL)
{
  pvcreate -q $one $two
  vgcreate -q --physicalextentsize 4M vg $one $two
  lvcreate -q -y -L 256M -n data vg
} >/tmp/lvm.out 2>&1 || { cat /tmp/lvm.out; fail 'LVM'; }
make_fs ext4 /dev/vg/data
mount -o discard /dev/vg/data /tmp/mnt
verify_fio lvm /tmp/mnt 32M
dd if=/dev/urandom of=/tmp/mnt/keep bs=1M count=32 conv=fsync 2>/dev/null
sum=$(md5sum </tmp/mnt/keep)
lvcreate -q -y -s -L 64M -n before vg/data >/tmp/lvm.out 2>&1 || { cat /tmp/lvm.out; fail 'lvcreate --snapshot'; }
dd if=/dev/urandom of=/tmp/mnt/keep bs=1M count=8 conv=fsync,notrunc 2>/dev/null
changed=$(md5sum </tmp/mnt/keep)
umount /tmp/mnt
mount -o ro,noload /dev/vg/before /tmp/mnt
same 'the file in the LVM snapshot' "$sum" "$(md5sum </tmp/mnt/keep)"
umount /tmp/mnt
lvremove -q -y vg/before >/tmp/lvm.out 2>&1 || { cat /tmp/lvm.out; fail lvremove; }
lvextend -q -L 640M vg/data >/tmp/lvm.out 2>&1 || { cat /tmp/lvm.out; fail lvextend; }
check_fs ext4 /dev/vg/data
mount /dev/vg/data /tmp/mnt
resize2fs /dev/vg/data >/tmp/lvm.out 2>&1 || { cat /tmp/lvm.out; fail resize2fs; }
dd if=/dev/urandom of=/tmp/mnt/more bs=1M count=400 conv=fsync 2>/dev/null
same 'the file after growing' "$changed" "$(md5sum </tmp/mnt/keep)"
umount /tmp/mnt
check_fs ext4 /dev/vg/data
ok "LVM over two volumes: snapshot, growth over both, ext4 clean, the data as it was"

lvremove -q -y vg/data >/tmp/lvm.out 2>&1 || { cat /tmp/lvm.out; fail lvremove; }
for _ in 1 2 3 4 5; do
  ! uses_at_most $((empty + 4 * MIB)) || break
  sleep 1
done
uses_at_most $((empty + 4 * MIB)) || fail "lvremove with issue_discards: $empty before, $(pool_used $POOL) after"
vgremove -q -y vg >/dev/null 2>&1
ok "lvremove gives everything back"

iscsiadm -m node -T $IQN -u >/dev/null
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "thin_check is content, nothing is stuck"
