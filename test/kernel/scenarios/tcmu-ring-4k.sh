# title: logical blocks of 4 KiB over LIO: mkfs, fio --verify, fstrim, fsck, and whoever thinks of 512 bytes is refused
# timeout: 200
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool
thinlun pool create $POOL --data-size 2G
start_thinlun $POOL --tcmu --no-portal
dir=$(tcmu_create four thin/pool/four 402653184 hw_block_size=4096,hw_max_sectors=1024,max_data_area_mb=8)
disk=$(tcm_loop_create four $dir)
same 'logical block' 4096 "$(blockdev --getss $disk)"
same 'size' 402653184 "$(blockdev --getsize64 $disk)"
same 'blocks' 98304 "$(sg_readcap $disk | sed -n 's/.*Number of .*blocks=\([0-9]*\).*/\1/p')"
ok "the disk has blocks of 4 KiB and its size"

mkdir -p /tmp/mnt
for kind in ext4 xfs; do
  make_fs $kind $disk
  mount $disk /tmp/mnt
  verify_fio $kind /tmp/mnt 16M
  dd if=/dev/urandom of=/tmp/mnt/$kind.big bs=1M count=48 conv=fsync 2>/dev/null
  filled=$(pool_used $POOL)
  rm /tmp/mnt/$kind*
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    sync
    fstrim /tmp/mnt
    trimmed=$(pool_used $POOL)
    [ "$trimmed" -gt $((filled - 40 * 1048576)) ] || break
    sleep 1
  done
  [ "$trimmed" -le $((filled - 40 * 1048576)) ] || fail "fstrim gave back too little: $filled, then $trimmed"
  umount /tmp/mnt
  check_fs $kind $disk
  ok "$kind: written, verified, trimmed, clean"
done

head -c 8192 /dev/urandom >/tmp/new
dd if=/tmp/new of=$disk bs=4k count=1 oflag=direct 2>/dev/null
sg_raw -s 4096 -i /tmp/new $disk 2a 00 00 00 00 08 00 00 01 00 >/tmp/raw.out 2>&1 || { cat /tmp/raw.out; fail 'a WRITE of one block'; }
same 'block 8' "$(head -c 4096 /tmp/new | md5sum)" "$(dd if=$disk bs=4k skip=8 count=1 iflag=direct 2>/dev/null | md5sum)"
status=0
sg_raw -s 512 -i /tmp/new $disk 2a 00 00 00 00 09 00 00 01 00 >/tmp/raw.out 2>&1 || status=$?
same 'status of a WRITE of 512 bytes' 5 $status
sg_raw -r 4096 -o /tmp/got $disk 28 00 00 00 00 08 00 00 02 00 >/dev/null 2>&1
same 'the first block of two' "$(head -c 4096 /tmp/new | md5sum)" "$(md5sum </tmp/got)"
ok "lengths count in blocks of 4 KiB"

tcm_loop_remove four
tcmu_remove $dir
if tcmu_create four thin/pool/four 402653184 2>/dev/null; then fail 'the volume was taken for one with blocks of 512 bytes'; fi
told /tmp/serve.log 'has blocks of 4096 bytes' 'the reason is not in the log'
ok "a volume of 4 KiB blocks is not served with 512"
rmdir $CONFIGFS/core/user_*/four $CONFIGFS/core/user_* 2>/dev/null || true
stop_thinlun
check_pool $POOL
no_stuck_tasks
kernel_log_clean
ok "thin_check is content, nothing is stuck, the kernel's log is clean"
