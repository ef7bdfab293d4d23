# title: what the kernel asks of a handler that is slow, stopped, killed or not alone: every answer fits, nobody waits for ever
# needs: dist native-bindings/build/Release
# timeout: 240
. /project/test/kernel/lib.sh

start() { : >/tmp/serve.log; background serve node $KERNEL_TESTS/support/serve-ram.mjs; wait_for 20 'the handler' grep -q ^ready /tmp/serve.log; }
stop() { kill -TERM "$(cat /tmp/serve.pid)"; ended serve 0; }
start

if tcmu_create no thin/absent/no 1048576 2>/dev/null; then fail 'a device without a volume was enabled'; fi
told /tmp/serve.log 'there is no such volume' 'the reason is not in the log'
ok "a volume that cannot be opened makes enable fail, and the log says why"
rmdir $CONFIGFS/core/user_*/no $CONFIGFS/core/user_* 2>/dev/null || true

dir=$(tcmu_create slow thin/slow/a 1048576)
ok "a volume that opens slowly is waited for"
echo 2097152 >$dir/attrib/dev_size
same 'size after the attribute' 2097152 "$(cat $dir/attrib/dev_size)"
if echo 1048576 >$dir/attrib/dev_size 2>/dev/null; then fail 'a shrink was accepted'; fi
same 'size after a refused shrink' 2097152 "$(cat $dir/attrib/dev_size)"
echo thin/slow/a >$dir/attrib/dev_config
if echo thin/slow/b >$dir/attrib/dev_config 2>/dev/null; then fail 'a device was turned into another'; fi
echo 0 >$dir/attrib/emulate_write_cache
ok "size changes, no-changes are agreed to, shrinking and turning into another volume are refused"
tcmu_remove $dir

dir=$(tcmu_create quiet thin/ram/quiet 1048576 nl_reply_supported=-1)
wait_for 10 'a device that asks for no answer' grep -q 'serving.*ram/quiet' /tmp/serve.log
tcmu_remove $dir
ok "a device that opted out of answers is served"

background other bash -c ". /project/test/kernel/lib.sh; tcmu_create other foreign/x 1048576"
sleep 1
alive other || fail 'somebody answered for a foreign subtype'
grep -q foreign /tmp/serve.log && fail 'a foreign device was touched'
ok "a device of another subtype is not answered for"
stop
# Its thread waits in the kernel for a handler that never comes: our start releases it.
start
wait "$(cat /tmp/other.pid)" && fail 'the foreign device was enabled' || true
ok "starting releases kernel threads that wait for nobody"
rmdir $CONFIGFS/core/user_*/other $CONFIGFS/core/user_* 2>/dev/null || true

disk_dir=$(tcmu_create used thin/ram/used 67108864)
disk=$(tcm_loop_create used $disk_dir)
fio --name=r --filename=$disk --rw=randread --bs=4k --ioengine=libaio --direct=1 --iodepth=16 --time_based --runtime=6 --output=/tmp/fio.used >/dev/null 2>&1 &
reader=$!
sleep 2
tcm_loop_remove used
tcmu_remove $disk_dir
wait $reader || true
wait_for 10 'the release' grep -q 'released ram/used' /tmp/serve.log
ok "a device is taken away under load"

# Of another name by the time that its event is read, and with another one on the same minor.
kill -STOP "$(cat /tmp/serve.pid)"
for name in first second third; do
  dir=$(tcmu_create $name thin/ram/$name 1048576 nl_reply_supported=-1)
  [ $name = third ] || tcmu_remove $dir
done
kill -CONT "$(cat /tmp/serve.pid)"
wait_for 20 'the last one' grep -q 'serving.*ram/third' /tmp/serve.log
grep -E 'serving.*ram/(first|second)' /tmp/serve.log && fail 'a device that is gone is served'
tcmu_remove $dir
wait_for 20 'its release' grep -q 'released ram/third' /tmp/serve.log
ok "events about devices that are gone, and whose minor has another device, do no harm"

# Gone again while it is still being opened, twice.
for round in 1 2; do
  dir=$(tcmu_create brief thin/slow/brief 1048576 nl_reply_supported=-1)
  sleep 0.5
  tcmu_remove $dir
done
dir=$(tcmu_create brief thin/slow/brief 1048576 nl_reply_supported=-1)
wait_for 30 'the device' grep -q 'serving.*slow/brief' /tmp/serve.log
tcmu_remove $dir
wait_for 30 'all to be released' bash -c '[ $(grep -c "released slow/brief" /tmp/serve.log) = 3 ]'
same 'maps left' 0 "$(grep -c uio /proc/$(cat /tmp/serve.pid)/maps || true)"
same 'descriptors left' 0 "$(ls -l /proc/$(cat /tmp/serve.pid)/fd | grep -c /dev/uio || true)"
ok "a device that goes while it is being opened leaves nothing behind"

# Another handler of ours, with devices of its own.
SUBTYPE=other background friend node $KERNEL_TESTS/support/serve-ram.mjs
wait_for 20 'the other handler' grep -q ^ready /tmp/friend.log
gone=$(tcmu_create gone thin/ram/gone 1048576)
kill -STOP "$(cat /tmp/serve.pid)"
background removal rmdir $gone
background creation bash -c ". $KERNEL_TESTS/lib.sh; tcmu_create waits thin/ram/waits 1048576"
sleep 1
alive removal && alive creation || fail 'nobody waits for the handler that was stopped'
kill -9 "$(cat /tmp/serve.pid)"
wait "$(cat /tmp/serve.pid)" 2>/dev/null || true
background theirs bash -c ". $KERNEL_TESTS/lib.sh; tcmu_create theirs other/slow/theirs 1048576"
start
ended theirs 0
ended removal 0
wait "$(cat /tmp/creation.pid)" && fail 'a device was made though its handler was killed' || true
told /tmp/serve.log 'releasing threads' 'the log does not say it'
rmdir $(dirname $gone)
rmdir $CONFIGFS/core/user_*/waits $CONFIGFS/core/user_* 2>/dev/null || true
no_stuck_tasks
ok "started again after a kill -9 it releases who waits for it, and nobody who waits for the other handler"

# An answer that nobody waits for.
node --input-type=module -e "
  const { native } = await import('/project/dist/base/native.js');
  const { GenlClient } = await import('/project/dist/tcmu/genl-client.js');
  const { SYSTEM_PATHS } = await import('/project/dist/tcmu/configfs.js');
  const client = new GenlClient(native, SYSTEM_PATHS, { tcmuEvent() {}, eventsLost() {} }, 65536);
  client.open();
  for (const kind of [1, 2, 3]) client.answer({ kind, deviceId: 4711, uioName: '' }, -2);
  client.close();"
dir=$(tcmu_create after thin/ram/after 1048576)
tcmu_remove $dir
tcmu_remove $(echo $CONFIGFS/core/user_*/theirs)
kill -TERM "$(cat /tmp/friend.pid)"
ended friend 0
dir=$(tcmu_create alone thin/ram/alone 1048576)
same 'answers awaited' 1 "$(cat $dir/attrib/nl_reply_supported)"
tcmu_remove $dir
ok "stray answers and the end of the other handler change nothing"

# A device made while nobody runs is found at the start.
stop
dir=$(tcmu_create early thin/ram/early 1048576)
start
told /tmp/serve.log 'serving.*ram/early.*"adopted":true' 'the device was not found'
same 'nl_reply_supported' 1 "$(cat $dir/attrib/nl_reply_supported)"
stop
tcmu_remove $dir # and does not hang, though nobody answers
ok "devices made and removed while nobody runs"
no_stuck_tasks
kernel_log_clean
if dmesg | grep 'Mismatched commands'; then fail 'a wrong answer was given'; fi
ok "nothing is stuck, the kernel's log is clean"
