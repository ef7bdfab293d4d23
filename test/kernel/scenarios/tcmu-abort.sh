# title: an initiator gives up on a frozen disk: aborts and a LUN reset end, nothing hangs, the disk goes on
# needs: dist native-bindings/build/Release
# timeout: 200
. /project/test/kernel/lib.sh

# tell SIGNAL WORD: sends it to the server, until that has said WORD once more.
tell() {
  local said
  said=$(grep -c "^$2" /tmp/serve.log || true)
  kill -"$1" "$(cat /tmp/serve.pid)"
  wait_for 30 "$2" bash -c "[ \$(grep -c '^$2' /tmp/serve.log) -gt $said ]"
}
freeze() { tell USR1 frozen; }
thaw() { tell USR2 thawed; }
# status_of FIELD: of the one device that is served.
status_of() {
  tell HUP status
  grep '^status' /tmp/serve.log | tail -n 1 | sed 's/^status //; s/ rss.*//' | json ".devices[0].$1"
}

background serve node $KERNEL_TESTS/support/serve-ram.mjs
wait_for 60 'the handler' grep -q ^ready /tmp/serve.log
dir=$(tcmu_create vol thin/ram/vol 67108864)
disk=$(tcm_loop_create vol $dir)
echo 3 >/sys/block/${disk##*/}/device/timeout

freeze
dd if=$disk of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/dd.err &
reader=$!
sleep 5 # the initiator's time is over; its abort waits until we answer
thaw
wait $reader || { cat /tmp/dd.err; fail 'the read failed'; }
aborts=$(status_of aborts)
[ "$aborts" -ge 1 ] || fail "the ring saw no abort: $(grep ^status /tmp/serve.log)"
ok "the abort of a command reached the ring ($aborts), and the command was tried again"

# A LUN reset, with commands in flight that the disk does not end for now.
before=$(status_of aborts)
freeze
echo 60 >/sys/block/${disk##*/}/device/timeout
fio --name=r --filename=$disk --size=16M --rw=randrw --bs=4k --ioengine=libaio --direct=1 --iodepth=16 --number_ios=400 --output=/tmp/fio.reset &
load=$!
wait_for 60 'commands in flight' bash -c "[ \"\$(cat /sys/block/${disk##*/}/inflight | awk '{ print \$1 + \$2 }')\" -ge 16 ]"
sg_reset --device --no-escalate $disk >/tmp/reset.out 2>&1 &
resetter=$!
reset_seen() { [ "$(status_of aborts)" -gt $before ]; }
wait_for 60 'the reset' reset_seen
kill -0 $resetter 2>/dev/null || { cat /tmp/reset.out; fail 'the reset ended before the commands that it ends'; }
thaw
wait $resetter || { cat /tmp/reset.out; fail 'the reset failed'; }
wait $load || { cat /tmp/fio.reset; fail 'commands that were reset did not get another try'; }
same 'commands in flight after all' 0 "$(status_of inFlight)"
ok "a LUN reset reaches the ring, ends when the commands in flight have, and they are tried again"

fio --name=v --filename=$disk --size=16M --rw=randwrite --bs=4k --ioengine=libaio --direct=1 --iodepth=8 --verify=crc32c --output=/tmp/fio.out ||
  { cat /tmp/fio.out; fail fio; }
ok "the disk goes on"
tcm_loop_remove vol
tcmu_remove $dir
kill -TERM "$(cat /tmp/serve.pid)"
ended serve 0
no_stuck_tasks
ok "nothing is stuck"
