# title: 4 KiB random I/O on tcm_loop disks: a volume, tcmu-runner's qcow2, LIO's iblock on the kernel's dm-thin
# kind: measurement
# needs: dist bench native-bindings/build/Release
# timeout: 900
# memory: 3G
. /project/test/kernel/lib.sh
. $KERNEL_TESTS/thin-pool.sh

# Everything on the same tmpfs, 64 KiB blocks, fully mapped before; the disks are all there and take turns.
# ROUNDS, SECONDS_EACH; SIDES may have "memory", too: our handler on memory of its process, which is what the ring costs by itself.
SIZE=268435456 META=/tmp/meta DATA=/tmp/data VOLUME_SECTORS=524288
CASES='randread-1 randread-32 randwrite-1 randwrite-32'
CONTROL=hw_max_sectors=1024,max_data_area_mb=64
SIDES=${SIDES:-thinlun runner dm-thin}
declare -A disk pid

owner() { dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner string:org.kernel.TCMUService1; }

start_runner() {
  # Debian's fails writes that would have to allocate a cluster; here all of them are.
  qemu-img create -q -f qcow2 -o cluster_size=64k,preallocation=metadata /tmp/disk.qcow2 $SIZE
  background runner tcmu-runner
  wait_for 60 tcmu-runner owner
  disk[runner]=$(tcm_loop_create runner "$(tcmu_create runner qcow//tmp/disk.qcow2 $SIZE $CONTROL)")
  pid[runner]=$(cat /tmp/runner.pid)
}

start_ours() {
  thinlun pool create /tmp/pool --data-size $((SIZE + 16777216))
  thinlun volume create /tmp/pool vol --size $SIZE
  start_thinlun /tmp/pool --tcmu --no-portal
  disk[thinlun]=$(tcm_loop_create thinlun "$(tcmu_create thinlun thin/pool/vol $SIZE $CONTROL,nl_reply_supported=-1)")
  pid[thinlun]=$(cat /tmp/serve.pid)
}

start_memory() {
  background memory node $KERNEL_TESTS/support/serve-ram.mjs
  wait_for 60 'the handler on memory' grep -q ^ready /tmp/memory.log
  disk[memory]=$(tcm_loop_create memory "$(tcmu_create memory thin/memory/x $SIZE $CONTROL,nl_reply_supported=-1)")
  pid[memory]=$(cat /tmp/memory.pid)
}

start_dm_thin() {
  truncate -s 16M $META
  truncate -s $((SIZE + 16777216)) $DATA
  kernel_opens
  dmsetup message pool 0 'create_thin 1'
  kernel_opens_thin 1
  local dir=$CONFIGFS/core/iblock_0/thin
  mkdir -p $dir
  echo udev_path=/dev/mapper/thin1 >$dir/control
  echo 1 >$dir/enable
  disk[dm-thin]=$(tcm_loop_create dm-thin $dir)
  pid[dm-thin]=0
}

# tcmu-runner first: it wants the name on the bus for itself; ours goes beside it, and answers no netlink events then.
for side in $(grep -ox runner <<<"${SIDES// /$'\n'}") $(grep -vx runner <<<"${SIDES// /$'\n'}"); do
  case $side in
    runner) start_runner ;;
    thinlun) start_ours ;;
    memory) start_memory ;;
    dm-thin) start_dm_thin ;;
    *) fail "no such side: $side" ;;
  esac
  echo none >/sys/block/${disk[$side]##*/}/queue/scheduler
  fio --eta=never --name=fill --filename=${disk[$side]} --rw=write --bs=1M --ioengine=libaio --direct=1 --iodepth=4 --output=/dev/null
  cache=$(cat /sys/block/${disk[$side]##*/}/queue/write_cache)
  echo "result: {\"setting\": \"$side on tcm_loop\", \"text\": \"write cache as the disk says: $cache; fio --direct=1, nothing is flushed\"}"
done
sync
for case in $CASES; do
  for round in $(seq ${ROUNDS:-5}); do
    for side in $SIDES; do
      node $PROJECT/bench/lab/fio-sample.mjs "lab-$case" $side ${disk[$side]} ${case%-*} ${case#*-} ${SECONDS_EACH:-2} ${pid[$side]}
    done
  done
done
kernel_log_clean
ok "measured $SIDES in turn"
