# title: dm-multipath over two portal groups: both paths carry I/O, either may go and come back under fio --verify, one disk with one identity
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool FIRST=127.0.0.1:3260 SECOND=127.0.0.2:3261
thinlun pool create $POOL --data-size 1G
thinlun volume create $POOL vol --size 512M
start_thinlun $POOL --portal $FIRST,1 --portal $SECOND,2
start_iscsid
start_multipathd 'user_friendly_names yes
path_grouping_policy multibus
path_selector "round-robin 0"'
iscsiadm -m discovery -t st -p $FIRST >/tmp/discovery
cat /tmp/discovery
IQN=$(awk '{print $2; exit}' /tmp/discovery)
grep -q "^$FIRST,1 $IQN" /tmp/discovery || fail 'the first portal is not announced in group 1'
grep -q "^$SECOND,2 $IQN" /tmp/discovery || fail 'the second portal is not announced in group 2'
iscsiadm -m node -T $IQN -o update -n node.session.timeo.replacement_timeout -v 2
iscsiadm -m node -T $IQN -o update -n 'node.conn[0].timeo.noop_out_interval' -v 1
iscsiadm -m node -T $IQN -o update -n 'node.conn[0].timeo.noop_out_timeout' -v 2
iscsiadm -m node -T $IQN -l >/dev/null
disks() { ls -d /sys/class/iscsi_session/session*/device/target*/*:0/block/* 2>/dev/null | xargs -r -n 1 basename | sort -u; }
two_disks() { [ "$(disks | wc -l)" = 2 ]; }
wait_for 30 'both disks' two_disks
read -r a b <<<"$(disks | tr '\n' ' ')"
same 'identities' "$(sg_vpd --page=di /dev/$a | grep -A 1 NAA | tail -n 1)" "$(sg_vpd --page=di /dev/$b | grep -A 1 NAA | tail -n 1)"
ports=$(for disk in $a $b; do sg_vpd --page=di /dev/$disk | sed -n 's/.*Relative target port: //p'; done | sort | tr '\n' ' ')
same 'relative target ports' '0x1 0x2 ' "$ports"
active() { [ "$(multipathd show paths raw format '%t %T' 2>/dev/null | grep -c "$1")" = "$2" ]; }
wait_for 30 'the map of two paths' active 'active.*ready' 2
map=/dev/mapper/$(multipathd show maps raw format '%n' | head -n 1)
wait_for 10 'the device of the map' test -b $map
ok "two portals, two target ports, one disk: $map"

sectors() { awk '{print $3 + $7}' /sys/block/$1/stat; }
sa=$(sectors $a) sb=$(sectors $b)
make_fs ext4 $map
mkdir -p /tmp/mnt
mount $map /tmp/mnt
verify_fio both /tmp/mnt 32M
[ "$(sectors $a)" -gt $((sa + 10000)) ] && [ "$(sectors $b)" -gt $((sb + 10000)) ] || fail 'not both paths carry I/O'
ok "both paths carry I/O, fio --verify finds nothing wrong"

background load fio --eta=never --name=v --directory=/tmp/mnt --size=32M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=8 \
  --fsync=32 --time_based --runtime=30 --verify=crc32c --verify_backlog=256 --output=/tmp/fio.load
sleep 2
for portal in $FIRST $SECOND; do
  iscsiadm -m node -T $IQN -p $portal -u >/dev/null
  wait_for 20 'one path left' active 'active.*ready' 1
  sleep 2
  iscsiadm -m node -T $IQN -p $portal -l >/dev/null
  wait_for 30 'both paths again' active 'active.*ready' 2
  sleep 1
done
alive load || { cat /tmp/fio.load; fail 'fio ended early'; }
# Both at once, and without a word: the server is killed and comes back.
kill_thinlun
sleep 4
start_thinlun $POOL --portal $FIRST,1 --portal $SECOND,2
wait_for 40 'both paths after the restart' active 'active.*ready' 2
ended load 0
grep -q 'err= 0' /tmp/fio.load || { cat /tmp/fio.load; fail 'fio found errors'; }
umount /tmp/mnt
check_fs ext4 $map
ok "either path, and both, went and came back under load: fio --verify and fsck find nothing wrong"

multipath -F >/dev/null 2>&1 || multipathd del maps >/dev/null 2>&1 || true
iscsiadm -m node -u >/dev/null
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "thin_check is content, nothing is stuck"
