# title: 120,000 scattered mappings with snapshots go to and fro between us and thin-pool, and both devices grow
# needs: dist native-bindings/build/Release
# timeout: 300
# memory: 3G
. /project/test/kernel/lib.sh
. /project/test/kernel/thin-pool.sh

META=/tmp/metadata DATA=/tmp/data VOLUME_SECTORS=$((1024 * 1024 * 128))
truncate -s 60M $META # 15360 blocks, less than one bitmap; grown past its end below
truncate -s $((300000 * 64))K $DATA
fragmented() { node $KERNEL_TESTS/support/thin-fragmented.mjs "$@"; }
POOL_FEATURES='1 skip_block_zeroing'

judged() {
  fragmented check $META >/tmp/check 2>&1 || { cat /tmp/check; fail "our check, $1"; }
  thin_check $META >/tmp/check 2>&1 || { cat /tmp/check; fail "thin_check, $1"; }
}

fragmented make $META
judged 'after us'
fragmented keep $META
ok "120,000 mappings and four snapshots of them satisfy thin_check"

kernel_opens 1 3
# A quarter of the device is discarded, and some of it written again; on a snapshot as well.
blkdiscard -o 0 -l $((16 * 1024 * 1024 * 1024)) /dev/mapper/thin1
for at in 3 70000 400000 900000; do
  dd if=/dev/urandom of=/dev/mapper/thin1 bs=64K count=40 seek=$at conv=notrunc,fsync status=none
  dd if=/dev/urandom of=/dev/mapper/thin3 bs=4K count=40 seek=$((at * 16)) conv=notrunc,fsync status=none
done
dmsetup suspend thin1
dmsetup message pool 0 'create_snap 50 1'
dmsetup resume thin1
dd if=/dev/urandom of=/dev/mapper/thin1 bs=64K count=60 seek=500000 conv=notrunc,fsync status=none
dmsetup remove thin1
dmsetup remove thin3
dmsetup message pool 0 'delete 2'
kernel_closes
judged 'after the kernel'
fragmented kept $META 4 5
same 'devices' '1 3 4 5 50' "$(fragmented ids $META)"
ok "the kernel discards, overwrites, snapshots and deletes in our trees; what it did not touch is as it was"

fragmented keep $META
fragmented change $META 100
judged 'after our changes'
same 'devices' '1 4 5 50 100' "$(fragmented ids $META)"
ok "we change, snapshot and delete in what the kernel left"

# Both devices grow, past the ends of bitmaps, while the kernel has them.
kernel_opens
truncate -s 200M $META
truncate -s $((400000 * 64))K $DATA
losetup -c $meta_loop
losetup -c $data_loop
dmsetup suspend pool
dmsetup load pool --table "$(pool_table)"
dmsetup resume pool
kernel_opens_thin 5
dd if=/dev/urandom of=/dev/mapper/thin5 bs=64K count=50 seek=1000 conv=notrunc,fsync status=none
dmsetup remove thin5
kernel_closes
judged 'after the kernel has grown both devices'
fragmented change $META 101
judged 'after our changes in what has grown'
ok "metadata and data that the kernel has grown are used by us"

kernel_opens
for id in $(fragmented ids $META); do dmsetup message pool 0 "delete $id"; done
used=$(dmsetup status pool | awk '{ print $6 }')
same 'data blocks in use' 0 "${used%%/*}"
kernel_closes
judged 'at the end'
ok "when the kernel has deleted every device, no block is left over"
kernel_log_clean
