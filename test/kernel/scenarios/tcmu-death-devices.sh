# title: the pool's devices fail under load: the right sense data, nothing hangs, nothing that was flushed is lost when they are back
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool
declare -A LOOP
for part in data metadata; do
  truncate -s $([ $part = data ] && echo 1G || echo 8M) /tmp/$part.file
  LOOP[$part]=$(losetup --find --show /tmp/$part.file)
  dmsetup create $part --table "0 $(blockdev --getsz ${LOOP[$part]}) linear ${LOOP[$part]} 0"
done
dmsetup mknodes
# turns PART TARGET...: what device-mapper does for that part from now on; %s is its loop device.
turns() {
  local part=$1 target=$2
  dmsetup suspend --noflush --nolockfs $part
  dmsetup load $part --table "0 $(blockdev --getsz ${LOOP[$part]}) ${target//%s/${LOOP[$part]}}"
  dmsetup resume $part
}
mode() { thinlun pool status $POOL --json | json .mode; }
load() { # NAME RUNTIME: ignores what fails
  background $1 fio --eta=never --name=$1 --filename=$disk --offset=128M --size=64M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=16 \
    --fsync=16 --time_based --runtime=$2 --continue_on_error=all --output=/tmp/fio.$1
}

thinlun pool create $POOL --data /dev/mapper/data --metadata /dev/mapper/metadata
start_thinlun $POOL --tcmu --no-portal
dir=$(tcmu_create vol thin/pool/vol 268435456 hw_max_sectors=2048,max_data_area_mb=32)
disk=$(tcm_loop_create vol $dir)
echo 3 >/sys/block/${disk##*/}/device/timeout
generic=/dev/$(ls /sys/block/${disk##*/}/device/scsi_generic)
head -c 16M /dev/urandom >/tmp/kept
flushed() { # NAME
  dd if=$disk of=/tmp/found bs=1M count=16 iflag=direct 2>/dev/null
  cmp /tmp/kept /tmp/found || fail "$1: what was flushed is not there"
}
dd if=/tmp/kept of=$disk bs=1M oflag=direct conv=fsync 2>/dev/null

load data 5
sleep 1
turns data error
echo 3 >/proc/sys/vm/drop_caches
sleep 1
if sg_raw -r 4096 $generic 28 00 00 00 00 00 00 00 08 00 >/tmp/read.out 2>&1; then fail 'a read of a dead device went well'; fi
cat /tmp/read.out
if sg_raw -s 4096 -i /tmp/kept $generic 2a 00 00 00 00 00 00 00 08 00 >/tmp/write.out 2>&1; then echo 'a write of a dead device went well'; fi
cat /tmp/write.out
if sg_raw $generic 35 00 00 00 00 00 00 00 00 00 >/tmp/flush.out 2>&1; then echo 'a flush went well that could not commit'; fi
cat /tmp/flush.out
mode
thinlun pool status $POOL
turns data 'linear %s 0'
wait "$(cat /tmp/data.pid)" || true
flushed 'after errors of the data device'
stop_thinlun
thinlun check $POOL || true
thin_check /dev/mapper/metadata || true
thinlun check --clear-needs-check-flag $POOL
start_thinlun $POOL --tcmu --no-portal
flushed 'after restart'
dd if=/tmp/kept of=$disk bs=1M seek=32 oflag=direct conv=fsync 2>/dev/null

# Writes of the metadata fail, reads do not: as a disk that has become read-only.
load metadata 4
sleep 1
turns metadata 'flakey %s 0 0 3600 1 error_writes'
wait "$(cat /tmp/metadata.pid)" || true
if sg_raw $generic 35 00 00 00 00 00 00 00 00 00 >/tmp/flush.out 2>&1; then echo 'a flush went well that could not commit'; fi
cat /tmp/flush.out
mode || true
flushed 'while the metadata cannot be written'
grep '"level":[45]0' /tmp/serve.log | tail -n 5
turns metadata 'linear %s 0'
kill_thinlun
thinlun check $POOL || true
thinlun check --clear-needs-check-flag $POOL
start_thinlun $POOL --tcmu --no-portal
flushed restart
load dead 4
sleep 1
turns metadata error
wait "$(cat /tmp/dead.pid)" || true
mode || true
if sg_raw -r 4096 $generic 28 00 00 00 00 00 00 00 08 00 >/tmp/read.out 2>&1; then echo 'a read of a dead device went well'; fi
cat /tmp/read.out
if sg_raw $generic 35 00 00 00 00 00 00 00 00 00 >/tmp/flush.out 2>&1; then echo 'a flush went well that could not commit'; fi
cat /tmp/flush.out
cat /tmp/serve.log
ps -eo pid,stat,wchan:32,comm | grep ' D' 
sleep 10
ps -eo pid,stat,wchan:32,comm | grep ' D' 
