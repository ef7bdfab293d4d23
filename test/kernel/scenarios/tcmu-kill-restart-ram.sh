# title: the handler is killed under load and started again: initiators see a pause, ring and file system are whole (RAM disk)
# needs: dist native-bindings/build/Release
. /project/test/kernel/lib.sh

start() { : >/tmp/serve.log; background serve node $KERNEL_TESTS/support/serve-ram.mjs; wait_for 20 'the handler' grep -q ^ready /tmp/serve.log; }
start
dir=$(tcmu_create vol thin/ram/vol 268435456 hw_max_sectors=1024,max_data_area_mb=64)
disk=$(tcm_loop_create vol $dir)
mkfs.ext4 -q -F $disk
mkdir -p /tmp/mnt
mount $disk /tmp/mnt

background load fio --name=v --directory=/tmp/mnt --size=64M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=16 \
  --time_based --runtime=25 --verify=crc32c --verify_backlog=256 --output=/tmp/fio.out
for round in 1 2 3 4 5; do
  sleep 1.$round
  kill -9 "$(cat /tmp/serve.pid)"
  sleep 0.5
  start
  told /tmp/serve.log '"adopted":true' "round $round: the device was not adopted"
done
ok "killed and started five times under load"
ended load 0
grep -q 'err= 0' /tmp/fio.out || { cat /tmp/fio.out; fail 'fio found errors'; }
ok "fio --verify saw nothing but pauses"

umount /tmp/mnt
fsck.ext4 -fn $disk >/dev/null
ok "the file system is clean"

# A clean restart: block, drain, unblock; what comes in between waits.
kill -TERM "$(cat /tmp/serve.pid)"
ended serve 0
dd if=$disk of=/dev/null bs=4k count=1 iflag=direct skip=77 2>/dev/null &
reader=$!
sleep 1
kill -0 $reader || fail 'a read ended though nobody served'
start
wait $reader || fail 'the read that waited has failed'
ok "a command that came while nobody served is served after the restart"

tcm_loop_remove vol
tcmu_remove $dir
kill -TERM "$(cat /tmp/serve.pid)"
ended serve 0
no_stuck_tasks
kernel_log_clean
ok "nothing is stuck, the kernel's log is clean"
