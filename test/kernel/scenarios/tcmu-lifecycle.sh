# title: devices are added, refused, resized, reconfigured, opted out, missed and removed, alone and many at once
# needs: dist native-bindings/build/Release
# timeout: 180
. /project/test/kernel/lib.sh

start() { : >/tmp/serve.log; background serve node $KERNEL_TESTS/support/serve-ram.mjs; wait_for 20 'the handler' grep -q ^ready /tmp/serve.log; }
stop() { kill -TERM "$(cat /tmp/serve.pid)"; ended serve 0; }
start

if tcmu_create no thin/absent/no 1048576 2>/dev/null; then fail 'a device without a volume was enabled'; fi
grep -q 'there is no such volume' /tmp/serve.log
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

pids=()
for i in $(seq 1 40); do
  ( d=$CONFIGFS/core/user_$((100 + i))/many; mkdir -p $d; echo -n dev_config=thin/ram/many$i >$d/control; echo -n dev_size=1048576 >$d/control
    echo 1 >$d/enable ) & pids+=($!)
done
for pid in "${pids[@]}"; do wait $pid || fail 'one of many was not enabled'; done
same 'devices' 40 "$(ls /sys/class/uio | wc -l)"
kill -HUP "$(cat /tmp/serve.pid)"
pids=()
for i in $(seq 1 40); do rmdir $CONFIGFS/core/user_$((100 + i))/many & pids+=($!); done
for pid in "${pids[@]}"; do wait $pid || fail 'one of many was not removed'; done
for i in $(seq 1 40); do rmdir $CONFIGFS/core/user_$((100 + i)); done
wait_for 10 'all to be released' bash -c '[ "$(grep -c "released ram/many" /tmp/serve.log)" = 40 ]'
same 'maps left' 0 "$(grep -c uio /proc/$(cat /tmp/serve.pid)/maps || true)"
same 'descriptors left' 0 "$(ls -l /proc/$(cat /tmp/serve.pid)/fd | grep -c /dev/uio || true)"
ok "forty devices are made and removed at once, nothing is left open"

# A device made while nobody runs is found at the start.
stop
dir=$(tcmu_create early thin/ram/early 1048576)
start
grep -q 'serving.*ram/early.*"adopted":true' /tmp/serve.log || fail 'the device was not found'
same 'nl_reply_supported' 1 "$(cat $dir/attrib/nl_reply_supported)"
stop
tcmu_remove $dir # and does not hang, though nobody answers
ok "devices made and removed while nobody runs"
no_stuck_tasks
kernel_log_clean
ok "nothing is stuck, the kernel's log is clean"
