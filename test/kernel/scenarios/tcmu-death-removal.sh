# title: devices, LUNs and sessions are taken away under I/O, and the server is killed meanwhile: nothing is stuck, the kernel does not complain
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool IQN=iqn.2026-11.org.example:removal
thinlun pool create $POOL --data-size 2G
start_thinlun $POOL --tcmu --no-portal

load() { # NAME DISK: until the disk is gone
  background $1 fio --eta=never --name=$1 --filename=$2 --rw=randrw --bs=4k-128k --ioengine=libaio --direct=1 --iodepth=32 --size=64M \
    --time_based --runtime=60 --output=/tmp/fio.$1
  sleep 1
}
# It ends by itself, with errors: its disk is gone.
load_ends() { wait_for 60 "the end of $1" bash -c "! kill -0 $(cat /tmp/$1.pid)"; wait "$(cat /tmp/$1.pid)" || true; }

dir=$(tcmu_create loop thin/pool/loop 134217728 hw_max_sectors=2048,max_data_area_mb=16)
disk=$(tcm_loop_create loop $dir)
load unlinked $disk
tcm_loop_remove loop
tcmu_remove $dir
load_ends unlinked
ok "tcm_loop: the LUN is unlinked, its target and the device are removed"

dir=$(tcmu_create loop thin/pool/loop 134217728 hw_max_sectors=2048,max_data_area_mb=16)
disk=$(tcm_loop_create loop $dir)
load deleted $disk
echo 1 >/sys/block/${disk##*/}/device/delete
load_ends deleted
tcm_loop_remove loop
# Without a LUN the folder goes; whoever asks twice is told so.
tcmu_remove $dir
[ ! -e $dir ] || fail 'the device is still there'
ok "the initiator drops its disk"

targetcli /backstores/user:thin create name=net size=128M cfgstring=pool/net >/dev/null
targetcli /iscsi create $IQN >/dev/null
targetcli /iscsi/$IQN/tpg1 set attribute generate_node_acls=1 demo_mode_write_protect=0 authentication=0 >/dev/null
targetcli /iscsi/$IQN/tpg1/luns create /backstores/user/net >/dev/null 2>&1 || targetcli "/iscsi/$IQN/tpg1/luns" create "/backstores/user:thin/net" >/dev/null
start_iscsid
sed -i 's/^node.session.timeo.replacement_timeout.*/node.session.timeo.replacement_timeout = 5/' /etc/iscsi/iscsid.conf
login() {
  iscsiadm -m discovery -t st -p 127.0.0.1:3260 >/dev/null
  iscsiadm -m node -T $IQN -p 127.0.0.1:3260 -l >/dev/null
  wait_for 30 'the disk' iscsi_disk $IQN 0
  net=$(iscsi_disk $IQN 0)
}
login
load logout $net
iscsiadm -m node -T $IQN -u >/dev/null
load_ends logout
ok "LIO's iSCSI: logout in the middle of I/O"

login
load delete $net
targetcli /backstores/user:thin delete net >/dev/null
load_ends delete
iscsiadm -m node -T $IQN -u >/dev/null || true
targetcli /iscsi delete $IQN >/dev/null
wait_for 30 'the release' bash -c "! ls /sys/class/uio | grep -q ."
ok "targetcli delete of a backstore with a session and I/O on it"

# The server dies while the device goes: nobody answers the kernel, and what was outstanding ends all the same.
dir=$(tcmu_create loop thin/pool/loop 134217728 hw_max_sectors=2048,max_data_area_mb=16)
disk=$(tcm_loop_create loop $dir)
load killed $disk
kill -STOP "$(cat /tmp/serve.pid)"
background removal bash -c ". /project/test/kernel/lib.sh; tcm_loop_remove loop; tcmu_remove $dir"
sleep 1
kill_thinlun
start_thinlun $POOL --tcmu --no-portal
wait_for 60 'the removal' bash -c "! kill -0 $(cat /tmp/removal.pid)"
load_ends killed
[ ! -e $dir ] || rmdir $dir $(dirname $dir)
ok "the server is stopped and killed while its device is being removed: the next one lets it go"

stop_thinlun
check_pool $POOL
no_stuck_tasks
dmesg | grep -E 'ring is broken|BUG:|Oops|WARNING:|general protection|hung_task' && fail 'the kernel complains' || true
ok "thin_check is content, nothing is stuck, the kernel's log is clean"
