# title: targetcli creates, sets, resizes, saves, clears, restores and deletes, under I/O, with the server running, stopped and late
# timeout: 400
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool
thinlun pool create $POOL --data-size 2G
thinlun volume create $POOL large --size 256M
thinlun volume create $POOL fourk --size 64M --logical-block-size 4096
start_thinlun $POOL --tcmu --no-portal

# Rows of a batch fail one by one.
{
  for config in elsewhere/vol pool pool/a/b pool/-a pool/a,b=c pool/a:b pool/$(printf 'x%.0s' $(seq 130)) pool/$(printf 'x%.0s' $(seq 260)); do
    echo "/backstores/user:thin create name=no size=1M cfgstring=$config"
  done
} >/tmp/wrong
targetcli </tmp/wrong >/tmp/no 2>&1 || true
refused() { grep -q "$1" /tmp/no || { cat /tmp/no; fail "targetcli does not show: $1"; }; }
refused 'no pool "elsewhere" is served here'
refused 'Cannot read "pool": expected POOL/VOLUME'
refused 'Cannot read "pool/a/b": expected POOL/VOLUME'
refused 'Cannot make the volume "-a": a name has letters'
refused 'has the character ","'
refused 'has the character ":"'
refused 'Cannot make the volume "xxx*": a name has letters'
refused 'more than 255 bytes'
same 'volumes' 'large fourk' "$(thinlun volume list $POOL --json | json '.map(v=>v.name).join(" ")')"
same 'backstores' '' "$(ls $CONFIGFS/core | grep user_ || true)"
ok "what cannot be is refused with its reason, and changes nothing"

targetcli >/tmp/create 2>&1 <<'END' || true
/backstores/user:thin create name=a size=64M cfgstring=pool/a
/backstores/user:thin create name=b size=64M cfgstring=pool/b control=max_data_area_mb=8 hw_max_sectors=1024
/backstores/user:thin create name=large size=128M cfgstring=pool/large
/backstores/user:thin create name=fourk size=64M cfgstring=pool/fourk
/backstores/user:thin create name=odd size=1000000 cfgstring=pool/odd
END
dir() { echo $CONFIGFS/core/user_*/$1; }
same 'size of the new volume' 67108864 "$(thinlun volume list $POOL --json | json '.find(v=>v.name==="a").sizeBytes')"
same 'size that LIO shows' 268435456 "$(cat $(dir large)/attrib/dev_size)"
ok "a backstore of another size has its volume's size at once"
[ ! -e $(dir fourk) ] || fail 'a volume of other blocks was accepted'
thinlun pool status $POOL | tee /tmp/status
grep -q '^refused *to add fourk.*blocks of 4096' /tmp/status || fail 'pool status does not say why'
grep -q '^backstore *a on a (uio[0-9]*): serving' /tmp/status || fail 'pool status does not show who serves what'
same 'backstores by volume' '{"large":"large","a":"a","b":"b"}' \
  "$(thinlun volume list $POOL --json | json '.filter(v=>v.backstores.length).reduce((o,v)=>({...o,[v.name]:v.backstores.join()}),{})')"
if [ -e $(dir odd) ]; then cat $(dir odd)/attrib/dev_size; fail 'a size that is no number of blocks was accepted'; fi
ok "pool status and volume list say which backstore stands on which volume, and why one was refused"

disk=$(tcm_loop_create a $(dir a))
make_fs ext4 $disk
mkdir -p /tmp/mnt
mount $disk /tmp/mnt
verify_fio a /tmp/mnt 16M
dd if=/dev/urandom of=/tmp/mnt/file bs=1M count=4 conv=fsync 2>/dev/null
md5sum /tmp/mnt/file >/tmp/sums

background load fio --eta=never --name=r --filename=$disk --rw=randread --bs=4k --ioengine=libaio --direct=1 --iodepth=16 --time_based --runtime=600 --rate_iops=200
targetcli >/tmp/set 2>&1 <<'END' || true
/backstores/user:thin/a set attribute emulate_write_cache=1 qfull_time_out=10 emulate_pr=1 pgr_support=1 alua_support=1 enforce_pr_isids=1 dev_config=thin/pool/a
/backstores/user:thin/a set attribute emulate_write_cache=0 nl_reply_supported=1 tmr_notification=1 dev_size=134217728
/backstores/user:thin/b set attribute cmd_time_out=0 force_pr_aptpl=0 submit_type=0
END
if grep -iE 'cannot|error|invalid' /tmp/set; then fail 'an attribute was not set'; fi
targetcli >/tmp/no 2>&1 <<'END' || true
/backstores/user:thin/a set attribute dev_size=1048576
/backstores/user:thin/a set attribute dev_config=thin/pool/b
/backstores/user:thin/a set attribute dev_size=134217729
END
same 'attributes that were not set' 3 "$(grep -ci 'cannot set' /tmp/no)"
same 'dev_size' 134217728 "$(cat $(dir a)/attrib/dev_size)"
same 'dev_config' thin/pool/a "$(cat $(dir a)/attrib/dev_config)"
same 'size of the volume' 134217728 "$(thinlun volume list $POOL --json | json '.find(v=>v.name==="a").sizeBytes')"
thinlun pool status $POOL | grep '^refused *to change a' >/tmp/changes
same 'refusals shown' 3 "$(wc -l </tmp/changes)"
alive load || fail 'the load has ended'
ok "every attribute is set under load; shrinking, another volume and half a block are refused, and pool status says why"

same 'data under load' '' "$(md5sum --quiet -c /tmp/sums)"
targetcli saveconfig /tmp/saved.json >/dev/null
umount /tmp/mnt
targetcli clearconfig confirm=True >/dev/null
kill -INT "$(cat /tmp/load.pid)" 2>/dev/null || true
wait "$(cat /tmp/load.pid)" || true
same 'devices left' '' "$(ls /sys/class/uio)"
same 'backstores of volumes' 0 "$(thinlun volume list $POOL --json | json '.filter(v=>v.backstores.length).length')"
no_stuck_tasks
ok "clearconfig under load leaves nothing"

restored() { # every LUN is there, with its data
  wait_for 60 'the backstores' bash -c "[ \"\$(node $PROJECT/bin/thinlun pool status $POOL --json | node -e 'const s=JSON.parse(require(\"fs\").readFileSync(0)); console.log(s.server.tcmuDevices.devices.filter(d=>d.state===\"serving\").length)')\" = 3 ]"
  local address
  address=$(cat $CONFIGFS/loopback/naa.*/tpgt_1/address)
  wait_for 60 'the disk' compgen -G "/sys/bus/scsi/devices/$address:0/block/*"
  disk=/dev/$(ls /sys/bus/scsi/devices/$address:0/block)
  mount $disk /tmp/mnt
  same 'data' '' "$(md5sum --quiet -c /tmp/sums)"
  umount /tmp/mnt
}
targetcli restoreconfig /tmp/saved.json >/tmp/restore 2>&1
if grep -iE 'cannot|skipped|error' /tmp/restore; then cat /tmp/restore; fail 'restore complained'; fi
restored
ok "restoreconfig brings everything back without a complaint"

targetcli clearconfig confirm=True >/dev/null
stop_thinlun
background restore targetctl restore /tmp/saved.json # as target.service does at boot
sleep 3
start_thinlun $POOL --tcmu --no-portal
restored
wait "$(cat /tmp/restore.pid)" || fail 'the restore failed'
# While nobody listens the kernel takes no attribute that it has to ask for; they have their values from the creation.
if grep -iE 'cannot|skipped|error' /tmp/restore.log | grep -v 'attribute .*No such process'; then fail 'restore complained'; fi
ok "restored while nobody serves: the server finds everything when it starts"

targetcli clearconfig confirm=True >/dev/null
stop_thinlun
thinlun volume delete $POOL b
background restore targetctl restore /tmp/saved.json # as target.service does at boot
sleep 3
start_thinlun $POOL --tcmu --no-portal
wait_for 40 'the device that cannot be served' bash -c "node $PROJECT/bin/thinlun pool status $POOL >/tmp/status; grep -q '^backstore *b on b .*unserved: .*its volume is not there' /tmp/status"
same 'volumes b' 0 "$(thinlun volume list $POOL --json | json '.filter(v=>v.name==="b").length')"
thinlun volume create $POOL b --size 64M
restored
ok "a volume that is gone is not replaced by an empty one; made anew it is served within seconds"

targetcli clearconfig confirm=True >/dev/null
stop_thinlun
check_pool $POOL
no_stuck_tasks
kernel_log_clean
ok "thin_check is content, nothing is stuck, the kernel's log is clean"
