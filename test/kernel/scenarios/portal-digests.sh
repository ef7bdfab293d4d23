# title: open-iscsi with header and data digests, over two portal groups and IPv6; a volume that is made meanwhile is announced, and there after a rescan; a stop asks for a logout, and the session comes back
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool FIRST=127.0.0.1:3260 SECOND=127.0.0.2:3260 SIXTH=[::1]:3260
thinlun pool create $POOL --data-size 1G
thinlun volume create $POOL one --size 256M
ip link set lo up
start_thinlun $POOL --portal $FIRST,1 --portal $SECOND,2 --portal $SIXTH,2
echo "InitiatorName=iqn.2026-11.org.example:initiator" >/etc/iscsi/initiatorname.iscsi
# It says what asynchronous messages it gets.
background iscsid iscsid -f -d 8
wait_for 10 iscsid grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix
iscsiadm -m discovery -t st -p $FIRST | sort >/tmp/discovery
IQN=$(awk '{print $2; exit}' /tmp/discovery)
same 'every portal with the tag of its group' "$FIRST,1 $IQN
$SECOND,2 $IQN
$SIXTH,2 $IQN" "$(cat /tmp/discovery)"
ok "discovery tells three portals in two portal groups"

iscsiadm -m node -T $IQN -o update -n 'node.conn[0].iscsi.HeaderDigest' -v CRC32C
iscsiadm -m node -T $IQN -o update -n 'node.conn[0].iscsi.DataDigest' -v CRC32C
iscsiadm -m node -T $IQN -p $SIXTH -l
wait_for 30 'the disk' iscsi_disk $IQN 0
disk=$(iscsi_disk $IQN 0)
iscsiadm -m session -P 2 >/tmp/session
for digest in HeaderDigest DataDigest; do grep -q "$digest: CRC32C" /tmp/session || fail "$digest was not agreed on"; done
fio --name=v --filename=$disk --size=64M --rw=randrw --bs=512-256k --ioengine=libaio --direct=1 --iodepth=32 --verify=crc32c --output=/tmp/fio.out
grep -q 'err= 0' /tmp/fio.out || fail 'fio found errors'
ok "a session over IPv6 with both digests: fio --verify finds nothing"

thinlun volume create $POOL two --size 64M
wait_for 30 'iscsid to hear of it' grep -q 'Read AEN 0' /tmp/iscsid.log
iscsiadm -m session --rescan
wait_for 30 'the new disk' iscsi_disk $IQN 1
ok "a volume that is made while a session is open is announced, and there after a rescan"

serve_again() { start_thinlun $POOL --portal $FIRST,1 --portal $SECOND,2 --portal $SIXTH,2; }
background load fio --eta=never --name=load --filename=$disk --size=32M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=8 \
  --time_based --runtime=12 --verify=crc32c --verify_backlog=256 --output=/tmp/fio.load
sleep 2
alive load || { cat /tmp/fio.load; fail 'fio ended early'; }
stop_thinlun
told /tmp/iscsid.log 'requests logout' 'the initiator was not asked to log out'
serve_again
ended load 0
grep -q 'err= 0' /tmp/fio.load || { cat /tmp/fio.load; fail 'fio found errors'; }
ok "a server that is stopped under load asks for a logout; when it is back the session is, too, and fio --verify finds nothing"

iscsiadm -m node -T $IQN -u
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "logout and a clean stop; thin_check is content"
