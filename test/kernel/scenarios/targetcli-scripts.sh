# title: an administrator creates, lists, saves, restores, resizes and removes LUNs with targetcli and the scripts
# needs: dist native-bindings/build/Release
# timeout: 180
. /project/test/kernel/lib.sh
SCRIPTS=$PROJECT/targetcli-scripts

background serve node $KERNEL_TESTS/support/serve-ram.mjs
wait_for 20 'the handler' grep -q ^ready /tmp/serve.log
grep -q 'dbus owner' /tmp/serve.log || fail 'the bus name is not ours'

targetcli ls /backstores >/tmp/ls
grep -q user:thin /tmp/ls || { cat /tmp/ls; fail 'targetcli does not show user:thin'; }
if targetcli /backstores/user:thin create name=no size=1M cfgstring=absent/no >/tmp/no 2>&1; then fail 'an absent volume was accepted'; fi
grep -q 'there is no such volume' /tmp/no || { cat /tmp/no; fail 'the reason is not shown'; }
ok "targetcli shows user:thin and says why a configuration is refused"

$SCRIPTS/thinlun-create-lun --size 64M ram/one | tee /tmp/create
disk=$(sed -n 's/^disk: //p' /tmp/create)
[ -b "$disk" ] || fail "no disk: $disk"
same 'size' 67108864 "$(blockdev --getsize64 $disk)"
$SCRIPTS/thinlun-create-lun --size 64M ram/one >/tmp/again
grep -q "disk: $disk" /tmp/again || { cat /tmp/again; fail 'the second time is not the same'; }
if $SCRIPTS/thinlun-create-lun --size 128M ram/one 2>/dev/null; then fail 'another size was accepted'; fi
ok "thinlun-create-lun makes a disk, twice is once, another size is refused"

IQN=iqn.2026-11.org.example:pool
$SCRIPTS/thinlun-create-lun --size 64M --iscsi $IQN --portal 127.0.0.1:3260 --acl iqn.2026-11.org.example:initiator ram/two
$SCRIPTS/thinlun-create-lun --iscsi $IQN --portal 127.0.0.1:3260 --acl iqn.2026-11.org.example:initiator ram/two
start_iscsid
iscsiadm -m discovery -t st -p 127.0.0.1:3260 | grep $IQN
iscsiadm -m node -T $IQN -p 127.0.0.1:3260 -l
wait_for 30 'the disk' iscsi_disk $IQN 0
two=$(iscsi_disk $IQN 0)
mkfs.ext4 -q -F $two
mkdir -p /tmp/two
mount $two /tmp/two
fio --name=v --directory=/tmp/two --size=16M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=16 --verify=crc32c --output=/tmp/fio.two ||
  { cat /tmp/fio.two; fail fio; }
umount /tmp/two
fsck.ext4 -fn $two >/dev/null
ok "a LUN over LIO's iSCSI with open-iscsi: login, mkfs, fio --verify, fsck"

$SCRIPTS/thinlun-list-luns
same 'LUNs listed' '["ram/one","ram/two"] ["served","served"] ["loopback","iscsi"]' \
  "$($SCRIPTS/thinlun-list-luns --json | node -e 'const l=JSON.parse(require("fs").readFileSync(0)); console.log(JSON.stringify(l.map(x=>x.volume)), JSON.stringify(l.map(x=>x.state)), JSON.stringify(l.map(x=>x.exports[0].fabric)))')"
ok "thinlun-list-luns shows both"

if $SCRIPTS/thinlun-remove-lun ram/two 2>/tmp/err; then fail 'a LUN in use was removed'; fi
grep -q 'logged in' /tmp/err || { cat /tmp/err; fail 'the reason is not shown'; }
mkdir -p /tmp/one
mkfs.ext4 -q -F $disk
mount $disk /tmp/one
if $SCRIPTS/thinlun-remove-lun ram/one 2>/tmp/err; then fail 'a mounted LUN was removed'; fi
umount /tmp/one
ok "what is in use is not removed"

targetcli /backstores/user:thin/ram-one set attribute dev_size=134217728 >/dev/null
echo 1 >/sys/block/${disk##*/}/device/rescan
same 'size after growing' 134217728 "$(blockdev --getsize64 $disk)"
ok "targetcli set attribute dev_size grows the disk"

iscsiadm -m node -T $IQN -u
targetcli saveconfig /tmp/saved.json >/dev/null
targetcli clearconfig confirm=True >/dev/null
wait_for 10 'both to be released' bash -c '[ "$(grep -c ^released /tmp/serve.log)" = 2 ]'
targetcli restoreconfig /tmp/saved.json >/tmp/restore 2>&1
cat /tmp/restore
grep -q -i 'cannot set\|skipped\|error' /tmp/restore && fail 'restore complained'
$SCRIPTS/thinlun-list-luns
wait_for 20 'the restored disk' bash -c "$SCRIPTS/thinlun-list-luns --json | grep -q /dev/sd"
disk=$($SCRIPTS/thinlun-list-luns --json | json '[0].exports[0].disk')
fsck.ext4 -fn $disk >/dev/null
ok "saveconfig, clearconfig, restoreconfig: the LUNs are back with their data, without a complaint"

$SCRIPTS/thinlun-remove-lun --dry-run ram/one >/tmp/dry
grep -q 'targetcli /backstores/user:thin delete' /tmp/dry || fail 'the dry run is silent'
$SCRIPTS/thinlun-list-luns | grep -c ram/ | grep -qx 2 || fail 'the dry run did something'
$SCRIPTS/thinlun-remove-lun ram/one
$SCRIPTS/thinlun-remove-lun ram/one
$SCRIPTS/thinlun-remove-lun ram/two
same 'what is left' '[]' "$($SCRIPTS/thinlun-list-luns --json)"
same 'targets left' '' "$(ls -d $CONFIGFS/iscsi/iqn* $CONFIGFS/loopback/naa* 2>/dev/null || true)"
ok "thinlun-remove-lun leaves nothing behind, twice is once"

kill -TERM "$(cat /tmp/serve.pid)"
ended serve 0
no_stuck_tasks
kernel_log_clean
ok "nothing is stuck, the kernel's log is clean"
