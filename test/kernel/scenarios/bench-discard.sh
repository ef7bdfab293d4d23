# title: one blkdiscard of 1,000,000 mapped blocks: a volume on tcm_loop, the kernel's dm-thin
# kind: measurement
# needs: dist bench native-bindings/build/Release
# timeout: 900
# memory: 2G
. /project/test/kernel/lib.sh
. $KERNEL_TESTS/thin-pool.sh

# Both begin with the same metadata, made anew for each round, over data that is one hole of a file on the same tmpfs; both pass discards down.
BLOCKS=${BLOCKS:-1000000}
SIZE=$((BLOCKS * 65536)) VOLUME_SECTORS=$((BLOCKS * 128)) META=/tmp/meta DATA=/tmp/data
time_sample() { node $PROJECT/bench/lab/time-sample.mjs lab-discard "$@"; }

ours() {
  local dir disk
  node $PROJECT/bench/lab/make-pool.mjs /tmp/pool big $BLOCKS
  start_thinlun /tmp/pool --tcmu --no-portal
  dir=$(tcmu_create big thin/pool/big $SIZE)
  disk=$(tcm_loop_create big $dir)
  time_sample thinlun blkdiscard $disk
  same 'bytes used after it' 0 "$(pool_used /tmp/pool)"
  tcm_loop_remove big
  tcmu_remove $dir
  stop_thinlun
  rm -r /tmp/pool
}

kernels() {
  node $PROJECT/bench/lab/make-pool.mjs /tmp/pool big $BLOCKS
  mv /tmp/pool/metadata $META
  mv /tmp/pool/data $DATA
  rm -r /tmp/pool
  kernel_opens 1
  time_sample dm-thin blkdiscard /dev/mapper/thin1
  same 'blocks mapped after it' 0 "$(dmsetup status thin1 | cut -d' ' -f4)"
  kernel_closes 1
  rm $META $DATA
}

for round in $(seq ${ROUNDS:-5}); do
  ours
  kernels
done
ok "measured both in turn"
