# title: a data area of 1 MiB under load, and data pages that the kernel takes away under load: no SIGBUS, no wrong data
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool
LIMIT=/sys/module/target_core_user/parameters/global_max_data_area_mb
thinlun pool create $POOL --data-size 2G
start_thinlun $POOL --tcmu --no-portal

# load NAME DISK SIZES SIZE DEPTH: writes with checksums, then reads back.
load() {
  fio --eta=never --name=$1 --filename=$2 --size=$4 --rw=randwrite --bsrange=$3 --ioengine=libaio --direct=1 --iodepth=$5 --verify=crc32c --do_verify=1 \
    --output=/tmp/fio.$1 && grep -q 'err= 0' /tmp/fio.$1 || { cat /tmp/fio.$1; fail "fio $1"; }
}
whole_megabytes() { echo 1024 >/sys/block/${1##*/}/queue/max_sectors_kb; }
# Kilobytes of data areas that the handler has mapped at the moment.
mapped() { awk '/^[0-9a-f]+-/ { uio = /\/dev\/uio/ } uio && $1 == "Rss:" { sum += $2 } END { print sum + 0 }' /proc/$(cat /tmp/serve.pid)/smaps; }

# It asks for four times as much at once as fits.
IQN=iqn.2026-11.org.example:small
$PROJECT/targetcli-scripts/thinlun-create-lun --no-save --anybody --size 64M --iscsi $IQN --portal 127.0.0.1:3260 --max-sectors 8192 --data-area 1 pool/small
start_iscsid
iscsiadm -m discovery -t st -p 127.0.0.1:3260 | grep -q $IQN
iscsiadm -m node -T $IQN -p 127.0.0.1:3260 -l >/dev/null
wait_for 60 'the disk' iscsi_disk $IQN 0
disk=$(iscsi_disk $IQN 0)
same 'the longest transfer that initiators see, blocks' 00000800 "$(sg_vpd --raw --page=0xb0 $disk | od -An -tx1 -j 8 -N 4 | tr -d ' ')"
whole_megabytes $disk
load small $disk 4k-4m 24m 32
ok "32 commands of up to the whole data area wait for each other and all end; nobody makes larger ones"
dmesg -C
if sg_dd if=$disk of=/dev/null bs=512 bpt=2056 count=2056 blk_sgio=1 >/tmp/dd.out 2>&1; then fail 'a READ above the data area was answered'; fi
load after $disk 4k-64k 4m 8
ok "one that cannot fit is refused, and the disk goes on"
iscsiadm -m node -T $IQN -u >/dev/null
$PROJECT/targetcli-scripts/thinlun-remove-lun --no-save pool/small

# Several devices, whose data areas together are far above what the module may keep.
disks=() dirs=()
for i in 1 2 3; do
  dirs+=("$(tcmu_create vol$i thin/pool/vol$i 67108864 hw_max_sectors=2048,max_data_area_mb=16)")
  disks+=("$(tcm_loop_create vol$i ${dirs[-1]})")
  whole_megabytes ${disks[-1]}
done
echo 1 >$LIMIT
highest=0 lowest=1000000
for round in 1 2 3; do
  pids=()
  for i in 0 1 2; do load burst$i ${disks[$i]} 256k-1m 12m 16 & pids+=($!); done
  for pid in "${pids[@]}"; do
    wait $pid
    now=$(mapped)
    [ $now -le $highest ] || highest=$now
  done
  # The pages of disks that rest go; those of the one that works go behind its highest.
  load quiet ${disks[0]} 4k-4k 2m 2
  for try in $(seq 1 60); do
    now=$(mapped)
    [ $now -ge $lowest ] || lowest=$now
    [ $now -gt 9000 ] || break
    sleep 0.2
  done
  for i in 0 1 2; do load after$i ${disks[$i]} 4k-16k 1m 4; done
done
echo "result: data pages mapped: at most $highest KiB, at least $lowest KiB"
[ $lowest -lt $((highest / 2)) ] || fail "the kernel took no pages away: $highest KiB, then $lowest KiB"
ok "three disks get bursts of large commands, rest, and go on with small ones while the kernel takes their pages away"

for i in 1 2 3; do
  tcm_loop_remove vol$i
  tcmu_remove ${dirs[$((i - 1))]}
done
stop_thinlun
check_pool $POOL
no_stuck_tasks
kernel_log_clean
ok "the handler lives, nothing is stuck, nobody touched a page that was not there"
