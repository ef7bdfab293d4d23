# title: the server is stopped for longer than initiators wait: aborts, resets and time-outs end, and nothing stale is written afterwards
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool
freeze() { kill -STOP "$(cat /tmp/serve.pid)"; }
thaw() { kill -CONT "$(cat /tmp/serve.pid)"; }
# fill DISK BLOCK CHARACTER: one block of it, at once on the medium.
fill() {
  head -c 65536 /dev/zero | tr "\0" "$3" | dd of=$1 bs=64k count=1 seek=$2 iflag=fullblock oflag=direct 2>/tmp/dd.err || { cat /tmp/dd.err; dmesg | tail -n 12; return 1; }
}
# holds DISK BLOCK CHARACTER
holds() { [ "$(dd if=$1 bs=64k count=1 skip=$2 iflag=direct 2>/dev/null | tr "$3" ! | tr -d -c ! | wc -c)" = 65536 ]; }

thinlun pool create $POOL --data-size 2G
start_thinlun $POOL --tcmu --portal 127.0.0.1:3260
dir=$(tcmu_create vol thin/pool/vol 268435456 hw_max_sectors=2048,max_data_area_mb=32)
disk=$(tcm_loop_create vol $dir)
same 'cmd_time_out' 0 "$(cat $dir/attrib/cmd_time_out)"
echo 2 >/sys/block/${disk##*/}/device/timeout
echo 2 >/sys/block/${disk##*/}/device/eh_timeout 2>/dev/null || true

background load fio --eta=never --name=v --filename=$disk --offset=64M --size=64M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=16 \
  --time_based --runtime=9 --verify=crc32c --verify_backlog=256 --output=/tmp/fio.out
sleep 1
freeze
sleep 6
thaw
ended load 0
grep -q 'err= 0' /tmp/fio.out || { cat /tmp/fio.out; fail 'fio found errors'; }
ok "stopped for 6 s with an initiator that aborts after 2 s: fio --verify saw pauses"

# The initiator gives one write up and does another of the same block when it may.
fill $disk 1 a
freeze
(fill $disk 1 b; fill $disk 1 c) &
writer=$!
sleep 6
thaw
wait $writer || { cat /tmp/dd.err; fail 'a write failed'; }
sleep 1
told /tmp/serve.log 'were answered BUSY, not executed' 'what waited was not answered BUSY'
holds $disk 1 c || fail 'an earlier write came late'
ok "after aborts the block has what was written last"
tcm_loop_remove vol
tcmu_remove $dir
stop_thinlun

# Somebody sets the time-out of the kernel, and exports the device.
start_thinlun $POOL --tcmu --portal 127.0.0.1:3260
dir=$(tcmu_create vol thin/pool/vol 268435456 hw_max_sectors=2048,max_data_area_mb=32)
wait_for 30 'the service of the device' grep -q 'serving a TCMU device' /tmp/serve.log # which turns time-outs off
echo 2 >$dir/attrib/cmd_time_out
disk=$(tcm_loop_create vol $dir)
wait_for 30 'the warning' grep -q 'cmd_time_out is not 0' /tmp/serve.log
fill $disk 1 d
freeze
if fill $disk 1 e; then fail 'a write went well though nobody served'; fi
ok "cmd_time_out of 2 s: the write of a stopped server fails: $(grep -o ':.*' /tmp/dd.err | head -n 1)"
thaw
sleep 2
holds $disk 1 d || fail 'a write that was reported as failed was executed afterwards'
ok "and is not executed when the server goes on"
fill $disk 1 f
holds $disk 1 f || fail 'the disk does not go on'

# The same with a server that never wakes, and another one after it: over the portal in between.
freeze
if fill $disk 1 g; then fail 'a write went well though nobody served'; fi
kill_thinlun
start_thinlun $POOL --portal 127.0.0.1:3260
head -c 65536 /dev/zero | tr '\0' h >/tmp/newer
thinlun pool status $POOL --json | json .server.target >/tmp/target
start_iscsid
IQN=$(cat /tmp/target)
iscsiadm -m discovery -t st -p 127.0.0.1:3260 >/dev/null
iscsiadm -m node -T $IQN -p 127.0.0.1:3260 -l >/dev/null
wait_for 30 'the disk' iscsi_disk $IQN 0
other=$(iscsi_disk $IQN 0)
fill $other 1 h
iscsiadm -m node -T $IQN -u >/dev/null
stop_thinlun
start_thinlun $POOL --tcmu --portal 127.0.0.1:3260
wait_for 30 'the device' grep -q '"adopted":true' /tmp/serve.log
sleep 1
holds $disk 1 h || fail 'the next server executed a write that had failed'
ok "killed with a failed write on the ring, written by another path: the next server does not execute it"

tcm_loop_remove vol
tcmu_remove $dir
stop_thinlun
check_pool $POOL
no_stuck_tasks
dmesg | grep -E 'ring is broken|BUG:|Oops|WARNING:|hung_task' && fail 'the kernel complains' || true
ok "thin_check is content, nothing is stuck"
