# title: a TCMU device over tcm_loop is formatted, verified, trimmed and removed (RAM disk)
# needs: dist native-bindings/build/Release
. /project/test/kernel/lib.sh

background serve node $KERNEL_TESTS/support/serve-ram.mjs
wait_for 20 'the handler' grep -q ready /tmp/serve.log
dir=$(tcmu_create vol thin/ram/vol 402653184 hw_max_sectors=1024,max_data_area_mb=64)
ok "a device is added and answered for"
same 'cmd_time_out' 0 "$(cat $dir/attrib/cmd_time_out)"
same 'tmr_notification' 1 "$(cat $dir/attrib/tmr_notification)"
disk=$(tcm_loop_create vol $dir)
same 'size' 402653184 "$(blockdev --getsize64 $disk)"
sg_inq $disk | grep -q THINLUN || fail 'INQUIRY does not say who we are'
ok "the disk is there with its size and identity: $disk"

for fs in ext4 xfs; do
  case $fs in ext4) mkfs.ext4 -q -F $disk ;; xfs) mkfs.xfs -q -f $disk ;; esac
  mkdir -p /tmp/mnt
  mount $disk /tmp/mnt
  fio --name=v --directory=/tmp/mnt --size=32M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=16 --verify=crc32c \
    --do_verify=1 --fsync=64 --output=/tmp/fio.$fs || { cat /tmp/fio.$fs; fail "fio on $fs"; }
  grep -q 'err= 0' /tmp/fio.$fs
  rm /tmp/mnt/v*
  fstrim -v /tmp/mnt
  umount /tmp/mnt
  case $fs in ext4) fsck.ext4 -fn $disk >/dev/null ;; xfs) xfs_repair -n $disk >/dev/null 2>&1 ;; esac
  ok "$fs: mkfs, mount, fio --verify=crc32c, fstrim, umount, fsck"
done

kill -HUP "$(cat /tmp/serve.pid)"
wait_for 5 'the status' grep -q '^status' /tmp/serve.log
grep '^status' /tmp/serve.log
tcm_loop_remove vol
tcmu_remove $dir
wait_for 5 'the release' grep -q 'released ram/vol' /tmp/serve.log
ok "the device is removed"
kill -TERM "$(cat /tmp/serve.pid)"
ended serve 0
no_stuck_tasks
kernel_log_clean
ok "the handler ends, nothing is stuck, the kernel's log is clean"
