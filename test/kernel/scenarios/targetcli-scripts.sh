# title: the scripts for LIO: create, grow, snapshot, clone, list and remove LUNs, twice each, dry, interrupted, with CHAP, and when things fail
# timeout: 400
# memory: 2G
. /project/test/kernel/lib.sh
PATH=$PROJECT/targetcli-scripts:$PATH
export IQN=iqn.2026-11.org.example:pool CLIENT=iqn.2026-11.org.example:initiator; POOL=/tmp/pool PORTAL=127.0.0.1:3260 SAVED=/etc/target/saveconfig.json
mkdir -p /tmp/mnt /tmp/clone /tmp/bin

# Between the scripts and targetcli: notes each command that is done, and fails or waits at the one that is asked for.
real=$(command -v targetcli)
cat >/tmp/bin/targetcli <<END
#!/bin/bash
echo >>/tmp/count
n=\$(wc -l </tmp/count)
[ "\$n" != "\${FAIL_AT:-}" ] || { echo 'made to fail' >&2; exit 1; }
[ "\$n" != "\${SLOW_AT:-}" ] || { touch /tmp/slow; sleep 2; }
echo "targetcli \$*" >>/tmp/commands
exec $real "\$@"
END
chmod +x /tmp/bin/targetcli
count_anew() { : >/tmp/count; }
PATH=/tmp/bin:$PATH
# All that LIO is told to be, what is saved of it, and the pool's volumes.
state() {
  (
    cd $CONFIGFS
    find . -name statistics -prune -o -name discovery_auth -prune -o \( -type d -o -type l \) -printf '%p %l\n' | sort
    find . -name statistics -prune -o -type f \( -path '*/attrib/*' -o -path '*/auth/*' -o -name enable -o -name vpd_unit_serial \) -print0 |
      sort -z | xargs -0 grep -s ''
  ) || true
  [ ! -e $SAVED ] || cat $SAVED
  sed 's/"transactionId": *[0-9]*//' $POOL/pool.json
}
# unchanged WHAT STATE: that is the state now.
unchanged() {
  echo "$2" >/tmp/expected
  state | diff /tmp/expected - >/tmp/changed || { cat /tmp/changed; fail "$1: the state has changed"; }
}
# What differs each time: names of links, numbers of HBAs.
forget_links() { sed -E 's/\b[0-9a-f]{10}\b//g; s/user_[0-9]+/user/g'; }
# refuses STATUS WORDS COMMAND...: with that exit status and those words, and nothing is changed.
refuses() {
  local wanted=$1 words=$2 status=0
  shift 2
  "$@" >/tmp/out 2>/tmp/err </dev/null || status=$?
  [ $status = "$wanted" ] && grep -qF -- "$words" /tmp/err || { cat /tmp/out /tmp/err; fail "$*: status $status, not $wanted with '$words'"; }
}
luns() { thinlun-list-luns --json | json "$1"; }

# As installed: nobody starts tcmu-runner while there is no server.
mountpoint -q /usr/local || mount -t tmpfs tmpfs /usr/local
thinlun-service --no-start install >/dev/null
dbus-send --system --type=method_call --dest=org.freedesktop.DBus / org.freedesktop.DBus.ReloadConfig
thinlun pool create $POOL --data-size 192M
start_thinlun $POOL --tcmu --no-portal
# Settled before commands are counted.
TARGETCLI_HOME=/run/thinlun-targetcli targetcli set global color_mode=false auto_add_default_portal=false auto_enable_tpgt=false auto_add_mapped_luns=false >/dev/null
touch /run/thinlun-targetcli/ready
targetcli saveconfig >/dev/null
[ -e $SAVED ] || SAVED=/etc/rtslib-fb-target/saveconfig.json

# Made by the first who looks, and never removed.
mkdir -p $CONFIGFS/loopback $CONFIGFS/iscsi
empty=$(state)
same 'nothing to list' '[]' "$(thinlun-list-luns --json)"

# ---- a local disk
refuses 2 '--size is needed' thinlun-create-lun pool/one
refuses 1 "no server has a pool 'absent' open" thinlun-create-lun --size 64M absent/one
refuses 1 'there is no volume' thinlun-grow-lun pool/one 64M
refuses 1 'there is no volume' thinlun-clone-lun pool/one two
thinlun-create-lun --dry-run --size 64M pool/one >/tmp/dry
unchanged 'state after refusals and a dry run' "$empty"
: >/tmp/commands
thinlun-create-lun --size 64M pool/one >/tmp/create
one=$(sed -n 's/^disk: //p' /tmp/create)
[ -b "$one" ] || { cat /tmp/create; fail "no disk: $one"; }
same 'size' 67108864 "$(blockdev --getsize64 $one)"
serial=$(thinlun volume list $POOL --json | json '[0].serial')
same 'commands of the dry run' "$(sed "s/wwn=$serial/wwn=SERIAL/" /tmp/commands)" "$(grep ^targetcli /tmp/dry)"
same "LIO's serial number" "T10 VPD Unit Serial Number: $serial" "$(cat $CONFIGFS/core/user_*/pool-one/wwn/vpd_unit_serial)"
once=$(state)
thinlun-create-lun --size 64M $POOL/one >/tmp/again
same 'the second time' "$(cat /tmp/create)" "$(cat /tmp/again)"
unchanged 'the second time' "$once"
refuses 1 'thinlun-grow-lun makes it larger' thinlun-create-lun --size 128M pool/one
refuses 1 'has the backstore pool-one already' thinlun-create-lun --name other pool/one
refuses 1 "a backstore 'pool-one' already" thinlun-create-lun --size 64M --name pool-one pool/two
unchanged 'state after refusals' "$once"
ok "create-lun: a dry run shows the commands and does nothing, the command makes a disk, twice is once"

# ---- iSCSI with an access list and CHAP both ways, in one command
echo 'the secret of web' >/tmp/secret
echo 'what pool proves' >/tmp/mutual
create_web() {
  thinlun-create-lun --size 128M pool/web --iscsi $IQN --portal 127.0.0.1 --acl $CLIENT --user web --secret-file /tmp/secret \
    --mutual-user pool --mutual-secret-file /tmp/mutual "$@"
}
create_web --dry-run >/tmp/dry
unchanged 'state after a dry run' "$once"
# Each time it comes two commands further.
failures=0
: >/tmp/commands
until count_anew && FAIL_AT=3 create_web >/tmp/created 2>/tmp/err; do
  grep -q 'made to fail' /tmp/err || { cat /tmp/err; fail 'another failure'; }
  failures=$((failures + 1))
  [ $failures -lt 9 ] || fail 'it does not come to an end'
done
[ $failures = 4 ] || fail "it failed $failures times"
grep -qx "target: $IQN on $PORTAL, LUN 0" /tmp/created || { cat /tmp/created; fail 'it is not said where'; }
serial=$(thinlun volume list $POOL --json | json '.find((v) => v.name === "web").serial')
same 'commands of the dry run' "$(sed "s/wwn=$serial/wwn=SERIAL/" /tmp/commands)" "$(grep ^targetcli /tmp/dry)"
web=$(state)
: >/tmp/commands
create_web >/dev/null 2>&1
same 'commands of the second time' "targetcli saveconfig" "$(cat /tmp/commands)"
unchanged 'the second time' "$web"
# Other secrets: who may read /proc does not see them.
cp /tmp/secret /tmp/secret.true
echo 'another secret of web' >/tmp/secret
strace -f -qq -s 4000 -e trace=execve -o /tmp/executed bash -c "$(declare -f create_web); create_web --no-save" >/dev/null 2>&1
grep -q 'volume.*list' /tmp/executed || fail 'strace saw nothing'
if grep -e 'secret of web' -e 'what pool proves' /tmp/executed /tmp/commands /tmp/dry; then fail 'a secret is among the arguments of a process'; fi
same 'the secret' 'another secret of web' "$(cat $CONFIGFS/iscsi/$IQN/tpgt_1/acls/$CLIENT/auth/password)"
mv /tmp/secret.true /tmp/secret
create_web --no-save >/dev/null 2>&1
unchanged 'with the first secret again' "$web"
tpg=$CONFIGFS/iscsi/$IQN/tpgt_1
same 'demo mode, discovery by strangers, authentication' '0 0 1' \
  "$(cat $tpg/attrib/generate_node_acls $tpg/attrib/demo_mode_discovery $tpg/attrib/authentication | xargs)"
refuses 1 'has an access list' thinlun-create-lun --size 64M pool/two --iscsi $IQN --anybody
refuses 1 'wants CHAP' thinlun-create-lun --size 64M pool/two --iscsi $IQN --acl iqn.2026-11.org.example:other
unchanged 'state after refusals' "$web"
ok "one command makes a target with ACL and CHAP; failed $failures times on the way, the same once more finished it; no secret is seen"

# ---- Ctrl-C in the middle of a command of targetcli
count_anew
: >/tmp/commands
SLOW_AT=2 python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL); os.setpgrp(); os.execvp(sys.argv[1], sys.argv[1:])' thinlun-create-lun --size 64M pool/two --no-save >/tmp/two 2>&1 &
wait_for 30 'the second command' test -e /tmp/slow
kill -INT -- -$!
status=0
wait $! || status=$?
same 'status after Ctrl-C' 130 $status
grep -q 'interrupted' /tmp/two || { cat /tmp/two; fail 'it is not said'; }
same 'what was done' 2 "$(wc -l </tmp/commands)"
thinlun-create-lun --no-save --size 64M pool/two >/dev/null 2>&1
thinlun-remove-lun --no-save --delete-volume pool/two 2>/dev/null
unchanged 'state after removing' "$web"
ok "Ctrl-C ends a script between two commands, once more finishes it"

# ---- the initiator
start_iscsid
[ -z "$(iscsi-ls -i iqn.2026-11.org.example:stranger iscsi://$PORTAL 2>/dev/null)" ] || fail 'a stranger sees the target'
iscsiadm -m node -T $IQN -p $PORTAL -o new >/dev/null
auth() { iscsiadm -m node -T $IQN -p $PORTAL -o update -n node.session.auth.$1 -v "$2"; }
auth authmethod CHAP
auth username web
auth password 'another secret'
if iscsiadm -m node -T $IQN -p $PORTAL -l >/tmp/login 2>&1; then fail 'a wrong secret was accepted'; fi
auth password 'the secret of web'
auth username_in pool
auth password_in 'what pool does not prove'
if iscsiadm -m node -T $IQN -p $PORTAL -l >/tmp/login 2>&1; then fail 'the initiator took a wrong secret of the target'; fi
auth password_in 'what pool proves'
iscsiadm -m node -T $IQN -p $PORTAL -l >/dev/null
wait_for 30 'the disk' iscsi_disk $IQN 0
web=$(iscsi_disk $IQN 0)
make_fs ext4 $web
mount $web /tmp/mnt
echo before >/tmp/mnt/file
ok "open-iscsi logs in with both secrets, and with no other"

# ---- grow, snapshot, clone
for _ in 1 2; do
  thinlun-grow-lun pool/web 256M
  thinlun-grow-lun pool/one 96M
done
refuses 1 'not made smaller' thinlun-grow-lun pool/web 128M
same 'the local disk' 100663296 "$(blockdev --getsize64 $one)"
iscsiadm -m session --rescan >/dev/null
same 'the disk of the initiator' 268435456 "$(blockdev --getsize64 $web)"
resize2fs $web 2>/dev/null
[ "$(df -BM --output=size /tmp/mnt | tail -n 1 | tr -dc 0-9)" -gt 200 ] || fail 'the file system has not grown'
ok "grow-lun: the volume, LIO, the local disk and the initiator's file system have grown"

sync -f /tmp/mnt
before=$(state)
thinlun-snapshot-lun --dry-run --read-only pool/web web-1 --loop >/dev/null
thinlun-clone-lun --dry-run pool/web web-2 >/dev/null
unchanged 'state after dry runs' "$before"
for _ in 1 2; do thinlun-snapshot-lun --read-only pool/web web-1 --loop >/tmp/snapshot; done
snapshot=$(sed -n 's/^disk: //p' /tmp/snapshot)
echo after >/tmp/mnt/file
sync -f /tmp/mnt
mount -o ro,noload $snapshot /tmp/clone
same 'the file in the snapshot' before "$(cat /tmp/clone/file)"
umount /tmp/clone
same 'the snapshot is read-only' 1 "$(blockdev --getro $snapshot)"
refuses 1 'is ro, not rw' thinlun-snapshot-lun pool/web web-1
refuses 1 'no snapshot of one' thinlun-snapshot-lun pool/one web-1
for _ in 1 2; do
  thinlun-clone-lun pool/web web-2 --iscsi $IQN --portal 127.0.0.1 --acl $CLIENT --user web --secret-file - </tmp/secret >/tmp/cloned
done
grep -q 'LUN 1$' /tmp/cloned || { cat /tmp/cloned; fail 'it is not said where'; }
iscsiadm -m session --rescan >/dev/null
wait_for 30 'the disk' iscsi_disk $IQN 1
mount "$(iscsi_disk $IQN 1)" /tmp/clone
same 'the file in the clone' after "$(cat /tmp/clone/file)"
echo clone >/tmp/clone/file
sync -f /tmp/clone
same 'the file in the origin' after "$(cat /tmp/mnt/file)"
ok "snapshot-lun and clone-lun: a read-only disk here, a writable LUN there, twice is once"

dd if=/dev/urandom of=/tmp/mnt/big bs=1M count=64 conv=fsync 2>/dev/null
filled=$(pool_used $POOL)
rm /tmp/mnt/big
sync -f /tmp/mnt
fstrim /tmp/mnt
wait_for 20 'the space to come back' bash -c "[ \"\$(node $PROJECT/bin/thinlun pool status $POOL --json | node -pe 'JSON.parse(require(\"fs\").readFileSync(0)).dataUsedBytes')\" -lt $((filled - 60 * 1048576)) ]"
ok "fstrim gives the space back"

# ---- list
thinlun-list-luns
same 'listed' '[["pool/one","served",1,100663296],["pool/web","served",1,268435456],["pool/web-1","served",1,268435456],["pool/web-2","served",1,268435456]]' \
  "$(luns '.sort((a, b) => a.volume < b.volume ? -1 : 1).map((l) => [l.volume, l.state, l.exports.length, l.bytes])')"
same 'the export' "{\"wwn\":\"$IQN\",\"lun\":0,\"enabled\":true,\"anybody\":false,\"portals\":[\"$PORTAL\"],\"initiators\":[{\"name\":\"$CLIENT\",\"lun\":0,\"chap\":\"mutual\",\"loggedIn\":true}]}" \
  "$(luns '.find((l) => l.volume === "pool/web").exports.map(({fabric, tpg, ...rest}) => rest)[0]')"
same 'the snapshot' "[true,\"web\",\"$snapshot\",true]" \
  "$(luns '.filter((l) => l.volume === "pool/web-1").map((l) => [l.readOnly, l.origin, l.exports[0].disk, l.serial.length > 8])[0]')"
ok "list-luns shows volumes, states, sizes, disks, initiators, and who is logged in"

# ---- what is in use, and what fails
before=$(state)
refuses 3 'is logged in' thinlun-remove-lun pool/web
mount $snapshot /tmp/clone -o ro,noload
refuses 3 "is in use (/tmp/clone)" thinlun-remove-lun pool/web-1
umount /tmp/clone
python3 -c 'import os, time; os.open("'$snapshot'", os.O_RDONLY | os.O_EXCL); print("", flush=True); time.sleep(60)' >/tmp/held &
held=$!
wait_for 20 'it to be held' test -s /tmp/held
refuses 3 'is in use (another process)' thinlun-remove-lun pool/web-1
kill $held
wait $held || true
thinlun pool set $POOL --read-only on >/dev/null
refuses 1 'read-only' thinlun-create-lun --size 64M pool/more
refuses 1 'read-only' thinlun-snapshot-lun pool/web more
thinlun pool set $POOL --read-only off >/dev/null
unchanged 'state after refusals' "$before"
# From here on the kernel's log has what a full pool does.
kernel_log_clean
thinlun pool set $POOL --error-if-no-space on >/dev/null
dd if=/dev/urandom of=$one bs=1M oflag=direct 2>/dev/null || true
dd if=/dev/urandom of=/tmp/mnt/full bs=1M oflag=direct 2>/dev/null || true
same 'mode' out-of-data-space "$(thinlun pool status $POOL --json | json .mode)"
thinlun-snapshot-lun pool/one one-1 >/dev/null
thinlun-remove-lun --delete-volume pool/one-1
rm /tmp/mnt/full
thinlun pool set $POOL --error-if-no-space off >/dev/null
ok "what is in use is not removed; a pool that is full or read-only says so, and nothing is left half done"

stop_thinlun
same 'states without a server' unserved "$(luns '.map((l) => l.state).filter((s, n, all) => all.indexOf(s) === n).join()')"
refuses 1 "no server has a pool 'pool' open" thinlun-create-lun pool/one
refuses 1 'the backstore pool-one is' thinlun-grow-lun $POOL/one 128M
thinlun-remove-lun pool/web-1
start_thinlun $POOL --tcmu --no-portal
ok "without a server: said, and removed without anybody's answer"

# ---- what is saved comes back, and everything goes
umount /tmp/mnt /tmp/clone
iscsiadm -m node -T $IQN -u >/dev/null
targetcli saveconfig >/dev/null
before=$(state | forget_links)
targetcli clearconfig confirm=True >/dev/null
targetcli restoreconfig >/tmp/restore 2>&1
if grep -i 'cannot set\|skipped\|error' /tmp/restore; then fail 'restoreconfig complained'; fi
same 'state after restoring' "$before" "$(state | forget_links)"
iscsiadm -m node -T $IQN -p $PORTAL -l >/dev/null
wait_for 30 'the disks' iscsi_disk $IQN 1
check_fs ext4 "$(iscsi_disk $IQN 0)"
ok "saveconfig, clearconfig, restoreconfig: targets, access lists and secrets are back"

thinlun-remove-lun --force --keep-targets pool/web
same 'initiators without a LUN' "$CLIENT" "$(basename $CONFIGFS/iscsi/$IQN/tpgt_1/acls/*)"
iscsiadm -m node -T $IQN -u >/dev/null
before=$(state)
for volume in web web-2 one; do thinlun-remove-lun --dry-run --delete-volume pool/$volume >/dev/null; done
unchanged 'after dry runs' "$before"
for volume in web web-1 web-2 one web; do thinlun-remove-lun --delete-volume pool/$volume; done
unchanged 'at the end' "$empty"
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "remove-lun leaves nothing, twice is once; nothing is stuck"
