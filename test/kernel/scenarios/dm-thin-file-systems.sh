# title: ext4 and xfs on volumes and snapshots, discards by mount option and fstrim, a pool that grows under a write without space
# timeout: 240
# memory: 3G
# Of the kernel's tests: thin_overwrite_ext4 thin_overwrite_xfs create_snap_ext4 create_snap_xfs break_sharing_ext4 break_sharing_xfs
#   fs_discard_ext4 fs_discard_xfs discard_with_fstrim_passdown ext4_weirdness resize_after_OODS_held_io_ext4
. /project/test/kernel/lib.sh

POOL=/tmp/pool
SIZE=$((320 << 20)) # the least that xfs takes
mkdir -p /tmp/mnt /tmp/snap

# attach VOLUME: makes it or takes it as it is, and prints its disk.
attach() { tcm_loop_create $1 "$(tcmu_create $1 thin/pool/$1 $SIZE)"; }
detach() {
  tcm_loop_remove $1
  tcmu_remove $CONFIGFS/core/user_*/$1
}
options() { case $1 in xfs) echo nouuid ;; *) echo defaults ;; esac; }
data_used() { du -k $POOL/data | cut -f 1; }

# gives_back WHAT MIB COMMAND...: until the command has brought the pool's use down by so much.
gives_back() {
  local what=$1 wanted=$2 before now
  shift 2
  before=$(pool_used $POOL)
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    "$@"
    sleep 1
    now=$(pool_used $POOL)
    [ $((before - now)) -lt $((wanted << 20)) ] || return 0
  done
  fail "$what gave back too little: $before, then $now"
}

thinlun pool create $POOL --data-size 2G
start_thinlun $POOL --tcmu --no-portal
for kind in ext4 xfs; do
  disk=$(attach $kind)
  dd if=/dev/urandom of=$disk bs=1M oflag=direct status=none || true # to the end
  same 'MiB in use' $((SIZE >> 20)) $(($(thinlun volume list $POOL --json | json ".find(v => v.name === '$kind').mappedBytes") >> 20))
  make_fs $kind $disk
  mount $disk /tmp/mnt
  verify_fio over /tmp/mnt 32M
  rm /tmp/mnt/over*
  umount /tmp/mnt
  check_fs $kind $disk
  mount $disk /tmp/mnt
  ok "thin_overwrite_$kind: a file system on a device that was full of something else"

  dd if=/dev/urandom of=/tmp/mnt/before bs=1M count=20 conv=fsync status=none
  (cd /tmp/mnt && md5sum before >/tmp/$kind.md5)
  dd if=/dev/urandom of=/tmp/mnt/meanwhile bs=64K count=640 status=none &
  writer=$!
  thinlun volume snapshot $POOL $kind $kind-snap
  wait $writer
  snap=$(attach $kind-snap)
  mount -o $(options $kind) $snap /tmp/snap
  (cd /tmp/snap && md5sum -c --quiet /tmp/$kind.md5)
  umount /tmp/snap
  check_fs $kind $snap
  mount -o $(options $kind) $snap /tmp/snap
  ok "create_snap_$kind: taken while it was written, it mounts, holds what was synced, and is clean"

  before=$(pool_used $POOL)
  dd if=/dev/urandom of=/tmp/snap/before bs=1M count=20 conv=notrunc,fsync status=none
  (cd /tmp/mnt && md5sum -c --quiet /tmp/$kind.md5)
  (cd /tmp/snap && md5sum before >/tmp/$kind-snap.md5)
  [ $(($(pool_used $POOL) - before)) -ge $((19 << 20)) ] || fail 'breaking 20 MiB took less space'
  dd if=/dev/urandom of=/tmp/mnt/before bs=1M count=20 conv=notrunc,fsync status=none
  echo 3 >/proc/sys/vm/drop_caches
  (cd /tmp/snap && md5sum -c --quiet /tmp/$kind-snap.md5)
  umount /tmp/snap /tmp/mnt
  check_fs $kind $snap
  check_fs $kind $disk
  detach $kind-snap
  thinlun volume delete $POOL $kind-snap
  ok "break_sharing_$kind: each side writes, neither sees it of the other, both are clean"

  mount -o discard $disk /tmp/mnt
  dd if=/dev/urandom of=/tmp/mnt/big bs=1M count=64 conv=fsync status=none
  gives_back "mount -o discard on $kind" 50 sh -c 'rm -f /tmp/mnt/big; sync -f /tmp/mnt'
  umount /tmp/mnt
  ok "fs_discard_$kind: what a file had is free soon after it is removed"
done

mount $disk /tmp/mnt
dd if=/dev/urandom of=/tmp/mnt/big bs=1M count=64 conv=fsync status=none
before=$(data_used)
rm /tmp/mnt/big
gives_back fstrim 50 sh -c 'sync; fstrim /tmp/mnt'
sleep 1
[ $((before - $(data_used))) -ge $((50 << 10)) ] || fail "the data file had $before KiB and has $(data_used)"
umount /tmp/mnt
ok "discard_with_fstrim_passdown: the data device is given back what the volume is"

SIZE=$((64 << 20))
disk=$(attach weird)
make_fs ext4 $disk
thinlun volume snapshot $POOL weird weird-snap
fio --eta=never --name=dt --filename=$disk --rw=randwrite --bs=4k-256k --ioengine=libaio --direct=1 --iodepth=16 --verify=crc32c \
  --do_verify=1 --output=/tmp/fio.dt || { cat /tmp/fio.dt; fail 'data test'; }
snap=$(attach weird-snap)
check_fs ext4 $snap
ok "ext4_weirdness: every block of a formatted volume is written over after a snapshot, which stays clean"
for volume in weird-snap weird ext4 xfs; do
  detach $volume
  thinlun volume delete $POOL $volume
done
stop_thinlun
check_pool $POOL

rm -r $POOL
SIZE=$((256 << 20))
thinlun pool create $POOL --data-size 64M
start_thinlun $POOL --tcmu --no-portal
disk=$(attach vol)
make_fs ext4 $disk
mount $disk /tmp/mnt
dd if=/dev/urandom of=/tmp/random bs=1M count=100 status=none
dd if=/tmp/random of=/tmp/mnt/file bs=1M conv=fsync status=none &
writer=$!
in_mode() { [ "$(thinlun pool status $POOL --json | json .mode)" = "$1" ]; }
wait_for 30 'the pool to be full' in_mode out-of-data-space
kill -0 $writer || fail 'the writer did not wait'
thinlun pool grow $POOL --data-size 256M
wait $writer
in_mode write || fail 'the pool does not write'
umount /tmp/mnt
check_fs ext4 $disk
mount $disk /tmp/mnt
cmp /tmp/random /tmp/mnt/file
umount /tmp/mnt
detach vol
ok "resize_after_OODS_held_io_ext4: the writer waits for the growth and sees no error, the file system is whole"
stop_thinlun
check_pool $POOL
no_stuck_tasks
kernel_log_clean
