# title: five new processes take over one after the other, under load over open-iscsi and over LIO at once: initiators see pauses
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool PORTAL=127.0.0.1:3260
thinlun pool create $POOL --data-size 2G
thinlun volume create $POOL net --size 512M
start_thinlun $POOL --tcmu --portal $PORTAL
dir=$(tcmu_create loop thin/pool/loop 536870912 hw_max_sectors=2048,max_data_area_mb=32)
loop=$(tcm_loop_create loop $dir)
start_iscsid
iscsiadm -m discovery -t st -p $PORTAL >/tmp/discovery
IQN=$(awk '{print $2; exit}' /tmp/discovery)
iscsiadm -m node -T $IQN -p $PORTAL -l
wait_for 30 'the disk' iscsi_disk $IQN 0
net=$(iscsi_disk $IQN 0)
# A fence that no loss of power would survive.
sg_persist --out --register --param-sark=0xabc $net >/dev/null
sg_persist --out --reserve --param-rk=0xabc --prout-type=1 $net >/dev/null

# take_over [ARGUMENTS...]: a new process, until it is ready; the old one has to end well.
take_over() {
  local old
  old=$(cat /tmp/serve.pid)
  : >/tmp/serve.log
  background serve node "$PROJECT/bin/thinlun" serve $POOL --takeover "$@"
  wait_for 60 'the server' grep -q '^Ready' /tmp/serve.log
  wait $old || fail "the old server ended with status $?"
}

for disk in net loop; do
  background fio-$disk fio --eta=never --name=$disk --filename=${!disk} --rw=randwrite --bs=4k-64k --size=128M --ioengine=libaio --direct=1 --iodepth=16 \
    --fsync=64 --time_based --runtime=20 --verify=crc32c --verify_backlog=512 --output=/tmp/fio.$disk
done
for round in 1 2 3 4 5; do
  sleep 2.$round
  take_over
  pause=$(sed -n 's/.*initiators have waited \([0-9.]*\) ms.*/\1/p' /tmp/serve.log)
  echo "result: takeover $round: initiators waited $pause ms"
  told /tmp/serve.log '1 session and 1 device go on' 'a session or a device was lost'
done
for disk in net loop; do
  ended fio-$disk 0
  grep -q 'err= 0' /tmp/fio.$disk || { cat /tmp/fio.$disk; fail "fio found errors on $disk"; }
done
ok "five takeovers under load: fio --verify finds nothing, over open-iscsi and over LIO"
! grep -E 'session recovery|detected conn error|ping timeout' <(dmesg) || fail 'open-iscsi had to log in again'
ok "open-iscsi has kept its connection"
sg_persist --in --read-reservation $net | grep -q 'Key=0xabc' || fail 'the reservation is gone'
ok "the reservation is still there"

# LIO finds the new process: new devices, changes and removals are answered.
other=$(tcmu_create other thin/pool/other 67108864)
disk=$(tcm_loop_create other $other)
dd if=/dev/urandom of=$disk bs=1M count=4 oflag=direct 2>/dev/null
take_over
echo 134217728 >$other/attrib/dev_size
same 'the new size' 134217728 "$(thinlun volume list $POOL --json | json '.find((v) => v.name === "other").sizeBytes')"
tcm_loop_remove other
tcmu_remove $other
ok "devices are made, changed and removed after a takeover"

iscsiadm -m node -T $IQN -u
tcm_loop_remove loop
tcmu_remove $dir
stop_thinlun
check_pool $POOL
no_stuck_tasks
kernel_log_clean
ok "thin_check is content, nothing is stuck, the kernel's log is clean"
