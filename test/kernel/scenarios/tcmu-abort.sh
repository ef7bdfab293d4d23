# title: an initiator gives up on a frozen disk: aborts and a LUN reset end, nothing hangs, the disk goes on
# needs: dist native-bindings/build/Release
# timeout: 180
. /project/test/kernel/lib.sh

background serve node $KERNEL_TESTS/support/serve-ram.mjs
wait_for 20 'the handler' grep -q ^ready /tmp/serve.log
dir=$(tcmu_create vol thin/ram/vol 67108864)
disk=$(tcm_loop_create vol $dir)
echo 3 >/sys/block/${disk##*/}/device/timeout

kill -USR1 "$(cat /tmp/serve.pid)"
dd if=$disk of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/dd.err &
reader=$!
sleep 5 # the initiator's time is over; its abort waits until we answer
kill -USR2 "$(cat /tmp/serve.pid)"
wait $reader || { cat /tmp/dd.err; fail 'the read failed'; }
kill -HUP "$(cat /tmp/serve.pid)"
wait_for 5 'the status' grep -q '^status' /tmp/serve.log
aborts=$(grep '^status' /tmp/serve.log | sed 's/^status //; s/ rss.*//' | json '[0].aborts')
[ "$aborts" -ge 1 ] || fail "the ring saw no abort: $(grep ^status /tmp/serve.log)"
ok "the abort of a command reached the ring ($aborts), and the command was tried again"

fio --name=v --filename=$disk --size=16M --rw=randwrite --bs=4k --ioengine=libaio --direct=1 --iodepth=8 --verify=crc32c --output=/tmp/fio.out ||
  { cat /tmp/fio.out; fail fio; }
ok "the disk goes on"
tcm_loop_remove vol
tcmu_remove $dir
kill -TERM "$(cat /tmp/serve.pid)"
ended serve 0
no_stuck_tasks
ok "nothing is stuck"
