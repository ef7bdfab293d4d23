# title: beside tcmu-runner, started before or after it, stopped and started: both serve, restoreconfig works, nobody hangs
# needs: dist native-bindings/build/Release
# timeout: 240
. /project/test/kernel/lib.sh

owner() { dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner string:org.kernel.TCMUService1; }
start_runner() {
  background runner tcmu-runner
  wait_for 20 'tcmu-runner to listen' listens "$(cat /tmp/runner.pid)"
}
stop_runner() {
  kill "$(cat /tmp/runner.pid)"
  wait "$(cat /tmp/runner.pid)" || true
}
# Its sockets have its process id in the lower bits of their port ids.
listens() { awk -v pid="$1" '$2 == 16 && $4 != "00000000" && $3 % 4194304 == pid { found = 1 } END { exit !found }' /proc/net/netlink; }
start() { : >/tmp/serve.log; background serve node $KERNEL_TESTS/support/serve-ram.mjs; wait_for 20 'the handler' grep -q ^ready /tmp/serve.log; }
stop() { kill -TERM "$(cat /tmp/serve.pid)"; ended serve 0; }
write_and_verify() { # DISK
  fio --eta=never --name=v --filename=$1 --size=8M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=16 --verify=crc32c \
    --output=/tmp/fio.out || { cat /tmp/fio.out; fail fio; }
}

start_runner
wait_for 20 'the name of tcmu-runner' owner
start
told /tmp/serve.log 'dbus guest' 'we did not register with tcmu-runner'
targetcli ls /backstores >/tmp/ls
grep -q user:thin /tmp/ls && grep -q user:qcow /tmp/ls || { cat /tmp/ls; fail 'one of the two is not listed'; }
if targetcli /backstores/user:thin create name=no size=1M cfgstring=absent/no >/tmp/no 2>&1; then fail 'an absent volume was accepted'; fi
grep -q 'there is no such volume' /tmp/no || { cat /tmp/no; fail 'the reason is not passed on'; }
ok "targetcli lists our handler beside those of tcmu-runner, which passes our refusals on"

targetcli >/tmp/create 2>&1 <<'END' || true
/backstores/user:thin create name=a size=64M cfgstring=ram/a
/backstores/user:thin create name=b size=64M cfgstring=ram/b control=nl_reply_supported=-1
END
wait_for 20 'both to be served' bash -c '[ $(grep -c "serving a TCMU device" /tmp/serve.log) = 2 ]'
disk=$(tcm_loop_create a $CONFIGFS/core/user_*/a)
write_and_verify $disk
same 'answers awaited about a' 0 "$(cat $CONFIGFS/core/user_*/a/attrib/nl_reply_supported)"
same 'answers awaited about b' -1 "$(cat $CONFIGFS/core/user_*/b/attrib/nl_reply_supported)"
echo 134217728 >$(echo $CONFIGFS/core/user_*/a)/attrib/dev_size
wait_for 20 'the disk to grow' bash -c "echo 1 >/sys/block/${disk##*/}/device/rescan; [ \$(blockdev --getsize64 $disk) = 134217728 ]"
echo 1048576 >$(echo $CONFIGFS/core/user_*/a)/attrib/dev_size
wait_for 20 'LIO to show the size that is' grep -qx 134217728 $(echo $CONFIGFS/core/user_*/a)/attrib/dev_size
truncate -s 16M /tmp/raw.img
raw=$(tcmu_create raw qcow//tmp/raw.img 16777216)
raw_disk=$(tcm_loop_create raw $raw)
write_and_verify $raw_disk
ok "plain targetcli makes ours, with nl_reply_supported=-1 and without; sizes follow, what was refused is shown as it is; theirs works as ever"

targetcli saveconfig /tmp/saved.json >/dev/null
targetcli clearconfig confirm=True >/dev/null
wait_for 20 'the devices to go' bash -c '[ -z "$(ls /sys/class/uio)" ]'
targetcli restoreconfig /tmp/saved.json >/tmp/restore 2>&1
wait_for 20 'both to be served' bash -c '[ $(grep -c "serving a TCMU device" /tmp/serve.log) = 4 ]'
address=$(cat $CONFIGFS/loopback/naa.5001405$(printf a | md5sum | cut -c1-9)/tpgt_1/address)
wait_for 30 'the disk' compgen -G "/sys/bus/scsi/devices/$address:0/block/*"
# While its handler runs: a disk is flushed before it goes.
targetcli "/loopback delete naa.5001405$(printf raw | md5sum | cut -c1-9)" >/dev/null
targetcli /backstores/user:qcow delete raw >/dev/null
no_stuck_tasks
ok "clearconfig and restoreconfig bring the devices of both back"

targetcli /backstores/user:thin delete b >/dev/null
stop_runner
wait_for 20 'the name to be ours' grep -q 'targetcli finds us by our own name' /tmp/serve.log
wait_for 30 'answers to be awaited' grep -qx 1 $(echo $CONFIGFS/core/user_*/a)/attrib/nl_reply_supported
dir=$(tcmu_create c thin/ram/c 1048576)
tcmu_remove $dir
if tcmu_create no thin/absent/no 1048576 2>/dev/null; then fail 'a device without a volume was enabled'; fi
rmdir $CONFIGFS/core/user_*/no 2>/dev/null || true
ok "when tcmu-runner ends, the name and the answers are ours"

# The first creations fall into the moment before we know of it: refused by it or not, nothing hangs.
for round in 1 2; do
  start_runner
  for i in 1 2 3; do
    if dir=$(tcmu_create early$i thin/ram/early$i 1048576 2>/dev/null); then tcmu_remove $dir; fi
  done
  wait_for 30 'us to know' grep -qx 0 $(echo $CONFIGFS/core/user_*/a)/attrib/nl_reply_supported
  for i in 1 2 3; do
    dir=$(tcmu_create late$round$i thin/ram/late$round$i 1048576)
    wait_for 20 'it to be served' grep -q "serving.*ram/late$round$i" /tmp/serve.log
    tcmu_remove $dir
  done
  stop_runner
  wait_for 30 'us to know' grep -qx 1 $(echo $CONFIGFS/core/user_*/a)/attrib/nl_reply_supported
done
no_stuck_tasks
ok "tcmu-runner starts and stops while ours serves: devices are made and removed, no thread hangs"

start_runner
stop
start
wait_for 20 'the device' grep -q 'serving.*ram/a' /tmp/serve.log
stop
dir=$(tcmu_create raw2 qcow//tmp/raw.img 16777216)
tcmu_remove $dir
stop_runner
start # a disk is flushed before it goes
ok "we start and stop while tcmu-runner runs, and leave it as it was"

targetcli clearconfig confirm=True >/dev/null
same 'devices left' '' "$(ls /sys/class/uio)"
stop
no_stuck_tasks
if dmesg | grep 'Mismatched commands'; then fail 'a wrong answer was given'; fi
ok "nothing is stuck, no answer met the wrong question"
