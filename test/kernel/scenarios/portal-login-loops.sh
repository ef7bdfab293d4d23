# title: open-iscsi with header and data digests: fio --verify with four jobs, and logins and logouts under I/O that disturb nobody else
# timeout: 300
# memory: 2G
. /project/test/kernel/lib.sh

PORTAL=127.0.0.1:3260
for pool in calm busy; do
  thinlun pool create /tmp/$pool --data-size 1G
  thinlun volume create /tmp/$pool vol --size 512M
done
start_thinlun /tmp/calm /tmp/busy --portal $PORTAL
start_iscsid
iscsiadm -m discovery -t st -p $PORTAL >/tmp/discovery
CALM=$(grep -o 'iqn.*calm' /tmp/discovery) BUSY=$(grep -o 'iqn.*busy' /tmp/discovery)
for digest in HeaderDigest DataDigest; do
  iscsiadm -m node -T $CALM -p $PORTAL -o update -n "node.conn[0].iscsi.$digest" -v CRC32C
done
iscsiadm -m node -T $CALM -p $PORTAL -l >/dev/null
wait_for 30 'the disk' iscsi_disk $CALM 0
same 'digests in use' '1 1' "$(cat /sys/class/iscsi_connection/connection*/header_digest /sys/class/iscsi_connection/connection*/data_digest | tr '\n' ' ' | sed 's/ $//')"
disk=$(iscsi_disk $CALM 0)
fio --eta=never --name=four --filename=$disk --numjobs=4 --size=24M --offset_increment=64M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 \
  --iodepth=8 --verify=crc32c --do_verify=1 --group_reporting --output=/tmp/fio.four || { cat /tmp/fio.four; fail 'fio with four jobs'; }
grep -q 'err= 0' /tmp/fio.four || { cat /tmp/fio.four; fail 'fio with four jobs found errors'; }
ok "CRC32C on headers and data: four jobs of fio --verify find nothing wrong"

background steady fio --eta=never --name=steady --filename=$disk --offset=256M --size=32M --rw=randrw --bs=4k-32k --ioengine=libaio --direct=1 --iodepth=4 \
  --time_based --runtime=25 --verify=crc32c --verify_backlog=256 --output=/tmp/fio.steady
# has_written DISK: writes to it have ended.
has_written() { [ "$(awk '{ print $5 }' "/sys/block/$1/stat")" -gt 0 ]; }
rounds=12
for round in $(seq $rounds); do
  iscsiadm -m node -T $BUSY -p $PORTAL -l >/dev/null
  wait_for 20 'the disk' iscsi_disk $BUSY 0
  busy=$(iscsi_disk $BUSY 0)
  # What is under way when the session ends fails, and is meant to.
  background hasty fio --eta=never --name=hasty --filename=$busy --size=512M --rw=randwrite --bs=4k-128k --ioengine=libaio --direct=1 --iodepth=16 \
    --time_based --runtime=30 --output=/tmp/fio.hasty
  wait_for 20 'the load' has_written "$(basename "$busy")"
  case $((round % 3)) in
    0) iscsiadm -m session -r "$(basename "$(grep -l $BUSY /sys/class/iscsi_session/*/targetname | xargs dirname)" | tr -dc 0-9)" -R >/dev/null ;;
    1) iscsiadm -m discovery -t st -p $PORTAL >/dev/null ;;
  esac
  iscsiadm -m node -T $BUSY -p $PORTAL -u >/dev/null
  wait "$(cat /tmp/hasty.pid)" || true
done
alive serve || fail 'the server has ended'
ended steady 0
ok "$rounds logins and logouts under load: the other session's fio --verify finds nothing wrong"

iscsiadm -m node -T $BUSY -p $PORTAL -l >/dev/null
wait_for 20 'the disk' iscsi_disk $BUSY 0
busy=$(iscsi_disk $BUSY 0)
make_fs ext4 $busy
mkdir -p /tmp/mnt
mount $busy /tmp/mnt
verify_fio after /tmp/mnt 16M
umount /tmp/mnt
check_fs ext4 $busy
ok "the volume that they were done to is as good as new"

same 'sessions' 2 "$(ls /sys/class/iscsi_session | wc -l)"
iscsiadm -m node -u >/dev/null
stop_thinlun
check_pool /tmp/calm
check_pool /tmp/busy
no_stuck_tasks
ok "thin_check is content, nothing is stuck"
