# title: a hundred devices made and removed at once, again and again, while ten have I/O: no event lost, nothing leaked, losses made good
# needs: dist native-bindings/build/Release
# timeout: 400
# memory: 2G
. /project/test/kernel/lib.sh

start() { : >/tmp/serve.log; background serve node $KERNEL_TESTS/support/serve-ram.mjs; wait_for 40 'the handler' grep -q ^ready /tmp/serve.log; }
stop() { kill -TERM "$(cat /tmp/serve.pid)"; ended serve 0; }
pid() { cat /tmp/serve.pid; }
uio_count() { ls /sys/class/uio | wc -l; }
serves() { [ "$(ls -l /proc/$(pid)/fd | grep -c /dev/uio)" = "$1" ]; }

# in_parallel FUNCTION: calls it with 1 to 100 from four shells at once; prints how many calls failed.
in_parallel() {
  local shell pids=()
  rm -f /tmp/failed.*
  for shell in 0 1 2 3; do
    ( set +e; trap - ERR; for i in $(seq $((shell * 25 + 1)) $((shell * 25 + 25))); do $1 $i || echo $i >>/tmp/failed.$shell; done ) & pids+=($!)
  done
  wait "${pids[@]}" || true
  sort /tmp/failed.* 2>/dev/null | wc -l || true
}
CONTROL=hw_max_sectors=128
make() {
  local d=$CONFIGFS/core/user_$((100 + $1))/h$1
  mkdir -p $d && echo -n dev_config=thin/ram/h$1 >$d/control && echo -n dev_size=1048576 >$d/control && echo -n $CONTROL >$d/control && echo 1 >$d/enable
} 2>/dev/null
drop() { rmdir $CONFIGFS/core/user_$((100 + $1))/h$1 $CONFIGFS/core/user_$((100 + $1)); }

start
disks=
for i in 0 1 2 3 4 5 6 7 8 9; do
  dir=$(tcmu_create io$i thin/ram/io$i 16777216)
  disks+=:$(tcm_loop_create io$i $dir)
done
background load fio --eta=never --name=v --filename=${disks#:} --size=4M --rw=randwrite --bs=4k --ioengine=libaio --direct=1 --iodepth=8 --time_based --runtime=600 \
  --rate_iops=100,100 --verify=crc32c --verify_backlog=256 --verify_fatal=1 --output=/tmp/fio.load

# What must not grow: open files, maps of devices, what waits in the socket; and what the process has of memory.
measure() {
  local fds maps queue
  fds=$(ls /proc/$(pid)/fd | wc -l)
  maps=$(grep -c /dev/uio /proc/$(pid)/maps)
  queue=$(awk '$2 == 16 && $4 != "00000000" { print $5 "/" $9 }' /proc/net/netlink)
  echo "descriptors $fds, maps $maps, queue/drops $queue"
}
rss() { awk '/VmRSS/ { print $2 }' /proc/$(pid)/status; }

round() {
  same 'devices that could not be made' 0 "$(in_parallel make)"
  same 'uio devices' 110 "$(uio_count)"
  serves 110 || fail 'not all are open'
  same 'devices that could not be removed' 0 "$(in_parallel drop)"
  same 'uio devices' 10 "$(uio_count)"
  wait_for 20 'all to be closed' serves 10
}
round
before=$(measure)
for n in 1 2; do
  round
  rss_now=$(rss)
  [ $n != 1 ] || rss_first=$rss_now
  echo "round $n: $(measure), RSS $rss_now KiB"
done
same 'after two rounds' "$before" "$(measure)"
[ $((rss_now - rss_first)) -lt 32768 ] || fail "RSS grew from $rss_first to $rss_now KiB"
if grep -E 'were lost|refused' /tmp/serve.log; then fail 'an event was lost or refused'; fi
alive load || { cat /tmp/fio.load; fail 'the load has ended'; }
no_stuck_tasks
ok "a hundred devices at once, three times: every event answered, nothing left open, nothing grown"

# By targetcli, as fast as one can; two of them at once choose the same folder for their backstores now and then, and one is refused.
for i in $(seq 10); do echo "/backstores/user:thin create name=t$i size=1M cfgstring=ram/t$i"; done >/tmp/batch
for i in $(seq 10); do echo "/backstores/user:thin delete t$i"; done >>/tmp/batch
targetcli </tmp/batch >/tmp/batch.out 2>&1 || { cat /tmp/batch.out; fail targetcli; }
same 'uio devices' 10 "$(uio_count)"
served_ten() { [ "$(grep -cE 'serving.*ram/t[0-9]+' /tmp/serve.log)" = 10 ]; }
wait_for 30 'ten devices that targetcli made' served_ten
ok "targetcli makes and deletes ten, one after the other"

# A buffer for a dozen events, and a server that does not look for a while.
stop
export EVENT_BUFFER=8192
start
kill -STOP $(pid)
CONTROL=nl_reply_supported=-1
same 'devices that could not be made' 0 "$(in_parallel make)"
kill -CONT $(pid)
wait_for 60 'all to be found' serves 110
told /tmp/serve.log 'events did not fit' 'no event was lost'
kill -STOP $(pid)
same 'devices that could not be removed' 0 "$(in_parallel drop)"
kill -CONT $(pid)
wait_for 60 'all to be let go' serves 10
same 'uio devices' 10 "$(uio_count)"
ok "events that were lost are made good from sysfs: a hundred devices that wait for nobody"

# Those who wait for an answer to an event that was lost are told, and do not hang.
kill -STOP $(pid)
CONTROL=hw_max_sectors=128
for i in $(seq 100); do (make $i && echo made || echo not made) & done >/tmp/made 2>/dev/null
wait_for 60 'a hundred to wait' bash -c '[ "$(ls /sys/class/uio | wc -l)" = 110 ]'
kill -CONT $(pid)
wait_for 90 'all to have their answer' bash -c '[ "$(wc -l </tmp/made)" = 100 ]'
echo "made: $(grep -cx made /tmp/made), told that they could not: $(grep -c not /tmp/made || true)"
no_stuck_tasks
in_parallel drop >/dev/null
wait_for 90 'all to go' bash -c '[ "$(ls /sys/class/uio | wc -l)" = 10 ]'
wait_for 20 'all to be let go' serves 10
no_stuck_tasks
ok "of a hundred threads that wait while events are lost, none is left behind"

kill "$(cat /tmp/load.pid)"
wait "$(cat /tmp/load.pid)" || true
grep -q 'err= 0' /tmp/fio.load || { cat /tmp/fio.load; fail 'the load saw errors'; }
for i in 0 1 2 3 4 5 6 7 8 9; do tcm_loop_remove io$i; done
for i in 0 1 2 3 4 5 6 7 8 9; do rmdir $CONFIGFS/core/user_$i/io$i $CONFIGFS/core/user_$i; done
stop
same 'uio devices' 0 "$(uio_count)"
no_stuck_tasks
kernel_log_clean
if dmesg | grep 'Mismatched commands'; then fail 'a wrong answer was given'; fi
ok "the ten had no error all the time; nothing is stuck, the kernel's log is clean"
