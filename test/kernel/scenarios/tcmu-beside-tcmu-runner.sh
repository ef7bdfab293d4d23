# title: beside a running tcmu-runner: listed by targetcli, devices that opt out of answers are served, its own stay its own
# needs: dist native-bindings/build/Release
. /project/test/kernel/lib.sh

owner() { dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner string:org.kernel.TCMUService1; }
background runner tcmu-runner
wait_for 20 tcmu-runner owner
background serve node $KERNEL_TESTS/support/serve-ram.mjs
wait_for 20 'the handler' grep -q ^ready /tmp/serve.log
grep -q 'dbus guest' /tmp/serve.log || fail 'we did not register with tcmu-runner'
targetcli ls /backstores >/tmp/ls
grep -q user:thin /tmp/ls && grep -q user:qcow /tmp/ls || { cat /tmp/ls; fail 'one of the two is not listed'; }
ok "targetcli lists our handler beside those of tcmu-runner"

if targetcli /backstores/user:thin create name=no size=1M cfgstring=absent/no >/tmp/no 2>&1; then fail 'an absent volume was accepted'; fi
grep -q 'there is no such volume' /tmp/no || { cat /tmp/no; fail 'the reason is not passed on'; }
ok "tcmu-runner passes our refusal on"

$PROJECT/targetcli-scripts/thinlun-create-lun --size 64M ram/x | tee /tmp/create
disk=$(sed -n 's/^disk: //p' /tmp/create)
fio --eta=never --name=v --filename=$disk --size=16M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=16 --verify=crc32c \
  --output=/tmp/fio.out || { cat /tmp/fio.out; fail fio; }
ok "thinlun-create-lun makes a disk that works"

truncate -s 16M /tmp/raw.img
dir=$(tcmu_create raw qcow//tmp/raw.img 16777216)
tcmu_remove $dir
ok "a device of tcmu-runner is made and removed as ever"

kill "$(cat /tmp/runner.pid)"
wait_for 10 'the name to be ours' grep -q 'targetcli finds us by our own name' /tmp/serve.log
targetcli ls /backstores >/tmp/ls
grep -q user:thin /tmp/ls || fail 'not listed any more'
$PROJECT/targetcli-scripts/thinlun-remove-lun ram/x
ok "when tcmu-runner ends, the name is ours"
kill -TERM "$(cat /tmp/serve.pid)"
ended serve 0
no_stuck_tasks
ok "nothing is stuck"
