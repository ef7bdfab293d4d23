# title: one volume over LIO's iSCSI, tcm_loop and the portal at once is one disk: same names, one multipath map, restarts, renames; what its reservations bind
# timeout: 240
# memory: 2G
# vhost-scsi would be a fourth way; the lab's kernel has none. It is the same TCMU device as the other two fabrics of LIO.
. /project/test/kernel/lib.sh

POOL=/tmp/pool
thinlun pool create $POOL --data-size 1G
thinlun volume create $POOL vol --size 256M
serve() { start_thinlun $POOL --tcmu --portal 127.0.0.1:3260; }
serve
field() { thinlun volume list $POOL --json | json ".find(({ name }) => name === '$1').$2"; }
serial=$(field vol serial) naa=$(field vol naa)
targetcli /backstores/user:thin create name=vol size=256M cfgstring=pool/vol wwn=$serial >/dev/null
dir=$(echo $CONFIGFS/core/user_*/vol)
same "LIO's serial number" "$serial" "$(sed 's/.*: //' $dir/wwn/vpd_unit_serial)"
# What LIO would say of itself is nobody's identity.
for file in vendor_id product_id revision; do echo OTHER >$dir/wwn/$file 2>/dev/null || true; done

IQN=iqn.2026-11.org.example:lio TPG=$CONFIGFS/iscsi/iqn.2026-11.org.example:lio/tpgt_1
mkdir -p $TPG/np/127.0.0.2:3270 $TPG/lun/lun_0
ln -s $dir $TPG/lun/lun_0/vol
for attribute in generate_node_acls=1 demo_mode_write_protect=0 authentication=0; do echo ${attribute#*=} >$TPG/attrib/${attribute%=*}; done
echo 1 >$TPG/enable
loop=$(tcm_loop_create vol $dir)
start_iscsid
iscsiadm -m discovery -t st -p 127.0.0.2:3270 >/dev/null
OWN=$(iscsiadm -m discovery -t st -p 127.0.0.1:3260 | awk '{print $2; exit}')
for iqn in $IQN $OWN; do
  iscsiadm -m node -T $iqn -o update -n node.session.timeo.replacement_timeout -v 5
  iscsiadm -m node -T $iqn -o update -n 'node.conn[0].timeo.noop_out_interval' -v 1
  iscsiadm -m node -T $iqn -o update -n 'node.conn[0].timeo.noop_out_timeout' -v 2
  iscsiadm -m node -T $iqn -l >/dev/null
  wait_for 30 "the disk of $iqn" iscsi_disk $iqn 0
done
lio=$(iscsi_disk $IQN 0) own=$(iscsi_disk $OWN 0)
ok "one volume is exported by LIO's iSCSI ($lio), tcm_loop ($loop) and the portal ($own) at once"

ids() {
  local disk=$1
  for _ in 1 2 3 4 5; do ! sg_turs $disk >/dev/null 2>&1 || break; done
  /lib/udev/scsi_id --page=0x83 --whitelisted --device=$disk
  sg_vpd --page=sn $disk | tail -n +2
  sg_vpd --page=di_lu $disk | tail -n +2
  sg_inq $disk | grep identification
  lsscsi --unit | awk -v disk=$disk '$NF == disk {print $(NF - 1)}'
}
ids $own >/tmp/ids
grep -q "^3$naa$" /tmp/ids || { cat /tmp/ids; fail "scsi_id does not say 3$naa"; }
grep -q "$serial" /tmp/ids || { cat /tmp/ids; fail "the serial number is not $serial"; }
same_ids() { ids $1 >/tmp/found && cmp -s /tmp/found /tmp/ids; }
# A session that has just come back has to settle.
agree() {
  local disk
  for disk in "$@"; do wait_for 30 "the names of $disk" same_ids $disk; done
}
agree $lio $loop
ok "scsi_id, lsscsi and sg_vpd say the same by all three, and what thinlun volume list says"

head -c 1M /dev/urandom >/tmp/data
dd if=/tmp/data of=$lio bs=1M oflag=direct status=none
for disk in $own $loop; do dd if=$disk bs=1M count=1 iflag=direct status=none | cmp - /tmp/data || fail "$disk reads something else"; done
ok "what is written by one is read by the others"

# Who is told of a new size: all of the portal's, of LIO's the first that comes. It is there for all.
for disk in $own $lio $loop; do sg_turs $disk >/dev/null 2>&1 || true; done
thinlun volume resize $POOL vol --size 320M >/dev/null
for disk in $own $lio; do
  ! sg_raw $disk 00 00 00 00 00 00 >/tmp/turs 2>&1 || fail "$disk is not told of the new size"
  grep -qi 'capacity data has changed' /tmp/turs || { cat /tmp/turs; fail "$disk is told something else"; }
done
same 'size in LIO' 335544320 "$(for _ in $(seq 100); do size=$(cat $dir/attrib/dev_size); [ $size != 335544320 ] || break; sleep 0.2; done; echo $size)"
for disk in $own $lio $loop; do
  echo 1 >/sys/block/${disk##*/}/device/rescan
  same "size of $disk" 335544320 "$(blockdev --getsize64 $disk)"
done
ok "a new size is told to every initiator of the portal and to the first of LIO's, and there for all"

# The portal's reservation binds LIO's initiators, too: they are one nexus without a registration.
reserve() { sg_persist --no-inquiry --out --register --param-sark=0xabc $1 >/dev/null; sg_persist --no-inquiry --out --reserve --param-rk=0xabc --prout-type=1 $1 >/dev/null; }
clear() { sg_persist --no-inquiry --out --clear --param-rk=0xabc $1 >/dev/null; }
reserve $own
for disk in $lio $loop; do
  ! sg_raw -s 512 -i /tmp/data $disk 2a 00 00 00 00 00 00 00 01 00 >/tmp/write 2>&1 || fail "$disk writes in spite of the reservation"
  grep -qi 'reservation conflict' /tmp/write || { cat /tmp/write; fail "$disk is refused otherwise"; }
done
clear $own
sg_raw -s 512 -i /tmp/data $lio 2a 00 00 00 00 00 00 00 01 00 >/dev/null 2>&1 || fail 'the reservation is not gone'
# Not the other way round: LIO keeps its own, and the log says what that means.
reserve $lio
sg_raw -s 512 -i /tmp/data $own 2a 00 00 00 00 00 00 00 01 00 >/dev/null 2>&1 || fail "LIO's reservation binds the portal: the documentation is wrong"
wait_for 60 'the warning' grep -q 'LIO keeps its reservation to itself' /tmp/serve.log
clear $lio
ok "a reservation made by the portal binds LIO's initiators; LIO's binds its own, and the log warns"

start_multipathd 'user_friendly_names no
path_grouping_policy multibus
path_selector "round-robin 0"'
active() { [ "$(multipathd show paths raw format '%t %T' 2>/dev/null | grep -c 'active.*ready')" = "$1" ]; }
wait_for 60 'the map of three paths' active 3
# By the rules of sg3-utils, which trust a T10 name more than one that is assigned locally.
map=/dev/mapper/1THINLUN_$serial
wait_for 30 'the device of the map' test -b $map
test -b /dev/disk/by-id/wwn-0x$naa || fail 'udev has no link by the NAA name'
same 'maps' 1 "$(multipathd show maps raw format '%n' | wc -l)"
same 'priorities' '50' "$(multipathd show paths raw format '%p' | sort -u | tr -d ' \n')"
make_fs ext4 $map
mkdir -p /tmp/mnt
mount $map /tmp/mnt
background load fio --eta=never --name=v --directory=/tmp/mnt --size=32M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=8 \
  --fsync=32 --time_based --runtime=10 --verify=crc32c --verify_backlog=256 --output=/tmp/fio.load
sectors() { awk '{print $3 + $7}' /sys/block/${1##*/}/stat; }
before=$(sectors $own),$(sectors $lio),$(sectors $loop)
sleep 2
IFS=, read -r a b c <<<"$before"
[ "$(sectors $own)" -gt $a ] && [ "$(sectors $lio)" -gt $b ] && [ "$(sectors $loop)" -gt $c ] || fail 'not all three paths carry I/O'
tcm_loop_remove vol
wait_for 30 'two paths' active 2
stop_thinlun
serve
wait_for 60 'two paths again' active 2
ended load 0
grep -q 'err= 0' /tmp/fio.load || { cat /tmp/fio.load; fail 'fio found errors'; }
umount /tmp/mnt
check_fs ext4 $map
ok "dm-multipath makes one disk of the three; one path goes and the server is restarted under fio --verify"
multipathd del maps >/dev/null
kill $(cat /tmp/multipathd.pid)
wait $(cat /tmp/multipathd.pid) || true

agree $own $lio
kill_thinlun
serve
wait_for 60 'the session' sg_turs $own
agree $own $lio
ok "a restart and the adoption by another process change no name"

iscsiadm -m node -T $IQN -u >/dev/null
rm $TPG/lun/lun_0/vol
targetcli /backstores/user:thin delete vol >/dev/null
thinlun volume rename $POOL vol renamed
thinlun volume snapshot $POOL renamed snap >/dev/null
targetcli /backstores/user:thin create name=other size=320M cfgstring=pool/renamed >/dev/null
targetcli /backstores/user:thin create name=snap size=320M cfgstring=pool/snap >/dev/null
loop=$(tcm_loop_create other $CONFIGFS/core/user_*/other)
copy=$(tcm_loop_create snap $CONFIGFS/core/user_*/snap)
agree $own $loop
! ids $copy | grep -q "$naa" || fail 'the snapshot has the name of its origin'
ids $copy | grep -q "^3$(field snap naa)$" || fail 'the snapshot has not its own name'
told /tmp/serve.log 'another serial number' "the log does not tell of LIO's serial number"
ok "a renamed volume is the same disk, a snapshot is another; LIO's serial number is nobody's, and the log says so"

tcm_loop_remove other
tcm_loop_remove snap
iscsiadm -m node -u >/dev/null
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "thin_check is content, nothing is stuck"
