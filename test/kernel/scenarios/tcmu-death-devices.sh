# title: the pool's devices fail under load: the right sense data, nothing hangs, nothing that was flushed is lost when they are back
# timeout: 300
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool
declare -A LOOP
for part in data metadata; do
  truncate -s $([ $part = data ] && echo 1G || echo 8M) /tmp/$part.file
  LOOP[$part]=$(losetup --find --show /tmp/$part.file)
  dmsetup create $part --table "0 $(blockdev --getsz ${LOOP[$part]}) linear ${LOOP[$part]} 0"
done
dmsetup mknodes
# turns PART TARGET...: what device-mapper does for that part from now on; %s is its loop device.
turns() {
  local part=$1 target=$2
  dmsetup suspend --noflush --nolockfs $part
  dmsetup load $part --table "0 $(blockdev --getsz ${LOOP[$part]}) ${target//%s/${LOOP[$part]}}"
  dmsetup resume $part
}
mode() { thinlun pool status $POOL --json | json .mode; }
load() { # NAME RUNTIME: goes on whatever fails
  background $1 fio --eta=never --name=$1 --filename=$disk --offset=64M --size=64M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=4 \
    --fsync=16 --time_based --runtime=$2 --continue_on_error=all --output=/tmp/fio.$1
}
load_ends() { wait "$(cat /tmp/$1.pid)" || true; } # with errors, but it ends
# Blocks that have none yet: their flush commits.
write_new() { dd if=/dev/urandom of=$disk bs=64k count=4 seek=$((2048 + 8 * $1)) oflag=direct conv=fsync 2>&1; }
fails() { # WHAT COMMAND...: and does not hang
  local what=$1 status=0
  shift
  "$@" >/tmp/command.out 2>&1 &
  local command=$!
  wait_for 100 "the end of $what" bash -c "! kill -0 $command"
  wait $command || status=$?
  [ $status != 0 ] || fail "$what went well"
}
says() { grep -qi "$2" /tmp/command.out || { cat /tmp/command.out; fail "$1: not \"$2\""; }; }
kept() { # WHEN: what was flushed before anything failed
  echo 3 >/proc/sys/vm/drop_caches
  dd if=$disk of=/tmp/found bs=1M count=16 iflag=direct 2>/dev/null
  cmp /tmp/kept /tmp/found || fail "$1: what was flushed is not there"
}
# As docs/operations.md says: both judges are content but for the flag.
checked_start() {
  thinlun check $POOL >/tmp/check 2>&1 || { cat /tmp/check; fail 'thinlun check'; }
  thin_check /dev/mapper/metadata >/tmp/check 2>&1 || { cat /tmp/check; fail thin_check; }
  thinlun check --clear-needs-check-flag $POOL >/dev/null
  start_thinlun $POOL --tcmu --no-portal
}

thinlun pool create $POOL --data /dev/mapper/data --metadata /dev/mapper/metadata
start_thinlun $POOL --tcmu --no-portal
dir=$(tcmu_create vol thin/pool/vol 268435456 hw_max_sectors=2048,max_data_area_mb=32)
disk=$(tcm_loop_create vol $dir)
timeout=/sys/block/${disk##*/}/device/timeout
generic=/dev/$(ls /sys/block/${disk##*/}/device/scsi_generic)
head -c 16M /dev/urandom >/tmp/kept
dd if=/tmp/kept of=$disk bs=1M oflag=direct conv=fsync 2>/dev/null

load data 3
sleep 1
turns data error
echo 3 >/proc/sys/vm/drop_caches
fails 'a read of a dead device' sg_raw -r 4096 $generic 28 00 00 00 00 00 00 00 08 00
says 'the read' 'Unrecovered read error'
fails 'a flush of a dead device' write_new 0
# Read-only where a commit was due, as the kernel's.
mode=$(mode)
case $mode in write | read-only) ;; *) fail "mode: $mode" ;; esac
lines=$(grep -c 'failed to flush' /tmp/serve.log || true)
[ "$lines" -le 1 ] || fail "the log says $lines times that the data device fails"
turns data 'linear %s 0'
load_ends data
kept 'the data device is back'
stop_thinlun
checked_start
kept 'after the restart'
write_new 1 || fail 'a write after the restart'
ok "the data device fails under load: MEDIUM ERROR, mode $mode; back again nothing that was flushed is lost"

load metadata 3
sleep 1
echo 1 >$timeout # a blocked device is asked six times
turns metadata 'flakey %s 0 0 3600 1 error_writes'
fails 'a flush that cannot commit' write_new 2
load_ends metadata
# Not even the flag can be written: the pool has failed, and was the last one.
status=0
wait_for 60 "the end of the failed server" bash -c "! kill -0 $(cat /tmp/serve.pid)"
wait "$(cat /tmp/serve.pid)" || status=$?
same 'exit status of the server' 1 $status
same 'the device' blocked "$(cat $dir/action/block_dev)"
no_stuck_tasks
ok "the metadata cannot be written: the pool fails, the server ends with 1, initiators get errors and do not hang"
turns metadata error
status=0
timeout 120 node $PROJECT/bin/thinlun serve $POOL --tcmu --no-portal >/tmp/again.log 2>&1 || status=$?
same 'exit status of a start without metadata' 1 $status
grep -q 'metadata' /tmp/again.log || { cat /tmp/again.log; fail 'no reason'; }
ok "without its metadata the pool is not served: $(grep -o 'Cannot.*' /tmp/again.log | head -n 1 | cut -c 1-100)"
turns metadata 'linear %s 0'
echo 30 >$timeout
checked_start
kept 'after the failure of the metadata'
write_new 3 || fail 'a write after the restart'
ok "back again: both judges are content, nothing that was flushed is lost"

tcm_loop_remove vol
tcmu_remove $dir
stop_thinlun
check_pool $POOL
no_stuck_tasks
dmesg | grep -E 'ring is broken|BUG:|Oops|WARNING:|hung_task' && fail 'the kernel complains' || true
ok "nothing is stuck"
