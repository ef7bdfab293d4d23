# title: ALUA under LIO: states of two groups, changed by targetcli and by SET TARGET PORT GROUPS; two backstores of one volume as two paths; hw_max_sectors holds
# timeout: 160
. /project/test/kernel/lib.sh

POOL=/tmp/pool IQN=iqn.2026-11.org.example:alua
thinlun pool create $POOL --data-size 256M
start_thinlun $POOL --tcmu --no-portal
start_iscsid

# backstore NAME GROUP=TAG...: of the volume, with target port groups.
backstore() {
  targetcli /backstores/user:thin create name=$1 size=128M cfgstring=pool/vol hw_max_sectors=128 >/dev/null
  local group
  for group in "${@:2}"; do
    targetcli /backstores/user:thin/$1/alua create name=${group%=*} tag=${group#*=} >/dev/null
  done
}
folder() { echo $CONFIGFS/core/user_*/$1; }
# port NUMBER BACKSTORE GROUP: a target port of its own with the backstore's LUN in a group.
port() {
  local tpg=$CONFIGFS/iscsi/$IQN/tpgt_$1 attribute
  mkdir -p $tpg/np/127.0.0.$1:3260 $tpg/lun/lun_0
  ln -s $(folder $2) $tpg/lun/lun_0/$2
  for attribute in generate_node_acls=1 demo_mode_write_protect=0 authentication=0; do echo ${attribute#*=} >$tpg/attrib/${attribute%=*}; done
  echo 1 >$tpg/enable
  echo $3 >$tpg/lun/lun_0/alua_tg_pt_gp
}
no_port() {
  local tpg=$CONFIGFS/iscsi/$IQN/tpgt_$1
  echo 0 >$tpg/enable
  rm $tpg/lun/lun_0/$2
  rmdir $tpg/lun/lun_0 $tpg/np/* $tpg
}
login() {
  iscsiadm -m node -T $IQN -p 127.0.0.$1:3260,$1 -o new >/dev/null
  iscsiadm -m node -T $IQN -p 127.0.0.$1:3260,$1 -l >/dev/null
  wait_for 30 "the disk of port $1" disk_of $1
}
logout() { iscsiadm -m node -T $IQN -p 127.0.0.$1:3260,$1 -u >/dev/null; }
# The disk that comes through port $1.
disk_of() {
  local connection disk
  for connection in /sys/class/iscsi_connection/connection*; do
    [ "$(cat $connection/persistent_address)" = 127.0.0.$1 ] || continue
    disk=$(compgen -G "$connection/device/../target*/*:0/block/*" | head -n 1)
    [ -z "$disk" ] || { echo /dev/${disk##*/}; return 0; }
  done
  return 1
}
# What was changed is told by unit attentions first. A port in standby does not answer TEST UNIT READY, but this.
settle() { for _ in 1 2 3 4 5; do ! sg_readcap $1 >/dev/null 2>&1 || return 0; done; }
# state DISK TAG: of a group as REPORT TARGET PORT GROUPS has it.
state() {
  settle $1
  sg_rtpg -d $1 >/tmp/rtpg || { cat /tmp/rtpg; fail "sg_rtpg of $1"; }
  awk -v id=$(printf '0x%x' $2) '/group id/ {found = $6 == id} found && /access state/ {print $8}' /tmp/rtpg
}
tpgs() { settle $1; sg_inq $1 | sed -n 's/.*TPGS=\([0-3]\).*/\1/p'; }
set_state() { targetcli /backstores/user:thin/$1/alua/$2 set alua alua_access_state=$3 >/dev/null; }
# Its exit status does not tell.
refused() {
  sg_stpg "$@" >/tmp/stpg 2>&1 || true
  grep -qi 'illegal request\|invalid field' /tmp/stpg || { cat /tmp/stpg; fail "sg_stpg $* was done"; }
}
read_of() { sg_raw -r 512 $1 28 00 00 00 00 00 00 00 01 00; }

backstore vol first=10 second=20
dir=$(folder vol)
port 1 vol first
port 2 vol second
login 1
login 2
one=$(disk_of 1) two=$(disk_of 2)
same 'TPGS' 3 "$(tpgs $one)"
same 'states' '0x00 0x00' "$(state $one 10) $(state $one 20)"
for format in '' '--extended'; do
  sg_rtpg $format -d $two >/tmp/rtpg
  same 'ports of the groups' '0x01 0x02 ' "$(awk '/group id/ {g = $6} /^ *0x/ {print $1}' /tmp/rtpg | tr '\n' ' ')"
done
ok "the groups of LIO and their ports are reported, in both formats"
sg_vpd --page=di $one >/tmp/di
! grep -q 'target port' /tmp/di || { cat /tmp/di; fail 'VPD page 83h names a port that nobody can know'; }
ok "VPD page 83h names no port of a backstore with several: nobody knows through which one it was asked"

set_state vol second 2
same 'state by the other port' 0x02 "$(state $one 20)"
same 'state by its own port' 0x02 "$(state $two 20)"
read_of $one >/dev/null 2>&1 || fail 'the active port does not read'
! read_of $two >/tmp/read 2>&1 || fail 'the port in standby reads'
grep -qi 'standby' /tmp/read || { cat /tmp/read; fail 'the port in standby does not say so'; }
ok "a state changed with targetcli is reported at once, and LIO refuses what it has to (02/04/0B)"

sg_stpg --tp=20 --state=0 $two || fail 'SET TARGET PORT GROUPS by a port in standby'
same 'state in LIO' '0 Altered by Explicit STPG' "$(cat $dir/alua/second/alua_access_state) $(cat $dir/alua/second/alua_access_status)"
same 'state' 0x00 "$(state $one 20)"
grep -q 'status code : 0x01' /tmp/rtpg || fail 'the status code does not tell of SET TARGET PORT GROUPS'
settle $two
read_of $two >/dev/null 2>&1 || fail 'the port does not read again'
sg_stpg --tp=10,20 --state=1,2 $one
same 'states' '0x01 0x02' "$(state $one 10) $(state $one 20)"
sg_stpg --tp=10,20 --state=0,0 $one
echo 0 >$dir/alua/second/alua_support_unavailable
settle $one
refused --tp=10,20 --state=2,3 $one
same 'states after a refusal' '0x00 0x00' "$(state $one 10) $(state $one 20)"
ok "SET TARGET PORT GROUPS is done by LIO; one group that cannot be as asked refuses it whole"

for group in default_tg_pt_gp first second; do echo 1 >$dir/alua/$group/alua_access_type; done
same 'TPGS of implicit groups' 1 "$(tpgs $one)"
refused --tp=20 --state=2 $one
echo 0 >$dir/attrib/alua_support
same 'TPGS without alua_support' 0 "$(tpgs $one)"
! sg_rtpg $one >/dev/null 2>&1 || fail 'groups are reported that LIO does not look at'
echo 1 >$dir/attrib/alua_support
ok "what the groups do not take is not offered"

# hw_max_sectors=128: 64 KiB
same 'max_sectors_kb' '64' "$(cat /sys/block/${one##*/}/queue/max_sectors_kb)"
sg_vpd --page=bl $one >/tmp/limits
grep -q 'Maximum transfer length: 0x80$' /tmp/limits || { cat /tmp/limits; fail 'VPD page B0h has another transfer length'; }
grep -q 'Maximum compare and write length: 0x40$' /tmp/limits || { cat /tmp/limits; fail 'VPD page B0h has another length of COMPARE AND WRITE'; }
sg_raw -r 64k $one 28 00 00 00 00 00 00 00 80 00 >/dev/null 2>&1 || fail '128 blocks are refused'
! sg_raw -r 128k $one 28 00 00 00 00 00 00 00 81 00 >/tmp/read 2>&1 || fail '129 blocks are read'
grep -qi 'invalid field in cdb' /tmp/read || { cat /tmp/read; fail '129 blocks are refused otherwise'; }
dd if=/dev/urandom of=/tmp/data bs=1M count=8 status=none
dd if=/tmp/data of=$one bs=4M oflag=direct status=none
cmp -n $((8 << 20)) /tmp/data $two || fail 'what was written through one port is not there through the other'
ok "hw_max_sectors is shown, taken by Linux (64 KiB a request), and what is larger is refused"

logout 1
logout 2
no_port 1 vol
no_port 2 vol
targetcli /backstores/user:thin delete vol >/dev/null

# Each backstore with one group: what comes through it is known.
backstore left near=10
backstore right far=20
port 1 left near
port 2 right far
login 1
login 2
one=$(disk_of 1) two=$(disk_of 2)
for pair in $one=0x0a $two=0x14; do
  sg_vpd --page=di ${pair%=*} >/tmp/di
  grep -q "Target port group: 0x0*${pair#*=0x}$\|Target port group: 0x0*${pair#*=0x0}$" /tmp/di || { cat /tmp/di; fail "VPD page 83h of ${pair%=*}"; }
done
same 'identities' "$(sg_vpd --page=di_lu --quiet $one | head -n 1)" "$(sg_vpd --page=di_lu --quiet $two | head -n 1)"

# What multipathd makes of that; the lab's kernel has no scsi_dh_alua, its prioritizer asks by itself.
start_multipathd 'path_grouping_policy group_by_prio
prio alua
failback immediate'
priority() { [ "$(multipathd show paths raw format '%d %p' 2>/dev/null | awk -v d=${1##*/} '$1 == d {print $2}')" = "$2" ]; }
sectors() { awk '{print $3 + $7}' /sys/block/${1##*/}/stat; }
set_state right far 2
wait_for 60 'the priority of the near path' priority $one 50
wait_for 60 'the priority of the far path' priority $two 1
map=/dev/mapper/$(multipathd show maps raw format '%n' | head -n 1 | tr -d ' ')
wait_for 30 'the device of the map' test -b $map
background load fio --eta=never --name=v --filename=$map --size=16M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=8 \
  --time_based --runtime=8 --verify=crc32c --verify_backlog=256 --output=/tmp/fio.load
sleep 2
before=$(sectors $two)
set_state right far 0
set_state left near 2
wait_for 60 'the new priority of the near path' priority $one 1
wait_for 60 'the new priority of the far path' priority $two 50
ended load 0
grep -q 'err= 0' /tmp/fio.load || { cat /tmp/fio.load; fail 'fio found errors'; }
[ "$(sectors $two)" -gt $((before + 1000)) ] || fail 'the I/O has not moved to the far path'
multipathd del maps >/dev/null
kill $(cat /tmp/multipathd.pid)
wait $(cat /tmp/multipathd.pid) || true
ok "two backstores of one volume are two paths of one disk, each with its state; I/O follows it, fio --verify finds nothing wrong"

# Initiators that ask all the time do not keep a device from going.
background asking bash -c "while :; do sg_rtpg $two; sg_inq $two; done >/dev/null 2>&1"
sleep 1
began=$SECONDS
rm $CONFIGFS/iscsi/$IQN/tpgt_2/lun/lun_0/right
right=$(folder right)
rmdir $right/alua/far $right
[ $((SECONDS - began)) -lt 10 ] || fail "the removal took $((SECONDS - began)) s"
kill $(cat /tmp/asking.pid)
wait $(cat /tmp/asking.pid) || true
ok "a device is removed while initiators ask for its groups, in $((SECONDS - began)) s"

logout 1
logout 2
stop_thinlun
check_pool $POOL
no_stuck_tasks
# Requests that a port in standby has refused are in there as I/O errors.
! dmesg | grep -E 'ring is broken|BUG:|Oops|WARNING:|hung_task|blocked for more' || fail "the kernel's log"
ok "thin_check is content, nothing is stuck, the kernel's log is clean"
