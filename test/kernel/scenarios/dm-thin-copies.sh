# title: the kernel opens a pool with blocks that copies share between volumes, and breaks sharing on every side
# needs: dist native-bindings/build/Release
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh
. /project/test/kernel/thin-pool.sh

META=/tmp/metadata DATA=/tmp/data VOLUME_SECTORS=$((2048 * 128))
truncate -s 8M $META
truncate -s 512M $DATA
exchange() { node $KERNEL_TESTS/support/thin-exchange.mjs "$@"; }
check() { thin_check $META >/tmp/check 2>&1 || { cat /tmp/check; fail "thin_check $1"; }; }
# Reads devices 1, 2 and 4 through the kernel.
kernel_reads() { for id in 1 2 4; do exchange device $id /dev/mapper/thin$id; done; }

exchange format $META $DATA
kernel_opens
dmsetup message pool 0 'create_thin 4' # never snapshotted, and as old as the pool
kernel_closes
exchange new 4
exchange change $META $DATA 1 # leaves a snapshot as well, of device 1 as it was then
exchange forget 5
kernel_opens
dmsetup message pool 0 'delete 5'
dmsetup message pool 0 'create_snap 2 1'
kernel_closes
exchange snap 2 1
exchange copy $META $DATA 1 0 4 0 1000      # a volume to another
exchange copy $META $DATA 2 0 4 1000 1000   # from its snapshot, of the same blocks mostly
exchange copy $META $DATA 4 500 2 1500 500  # to one that a snapshot is the other side of
exchange copy $META $DATA 2 0 1 1200 300
exchange copy $META $DATA 4 0 1 1600 200    # what it has already is moved
check 'after the copies'
kernel_opens 1 2 4
kernel_reads
ok "the kernel reads what copies share"

# Between the writes nobody else's blocks may have changed.
exchange kernel-touch 4 /dev/mapper/thin4 0 1500 11
kernel_reads
ok "a part of each block written in a volume that shares with two others: only that changes"
exchange kernel-touch 1 /dev/mapper/thin1 0 2048 12
kernel_reads
exchange kernel-write 2 /dev/mapper/thin2 13
exchange kernel-write 4 /dev/mapper/thin4 14
exchange kernel-touch 2 /dev/mapper/thin2 1400 600 15
kernel_reads
ok "the same of the sources, with whole blocks and discards: all three volumes stay apart"
kernel_closes 1 2 4
check 'after the kernel'
exchange verify $META $DATA
ok "we read what the kernel left of it, and every block is where it counts it"

exchange copy $META $DATA 4 0 1 1000 1000
exchange change $META $DATA 16
check 'after us again'
kernel_opens 1 2 4 5
kernel_reads
exchange device 5 /dev/mapper/thin5
exchange kernel-touch 1 /dev/mapper/thin1 900 1148 17
exchange kernel-touch 4 /dev/mapper/thin4 0 2048 18
kernel_reads
exchange device 5 /dev/mapper/thin5
kernel_closes 1 2 4 5
for id in 1 2 4; do
  kernel_opens
  dmsetup message pool 0 "delete $id"
  kernel_closes
  exchange forget $id
  check "without $id"
  exchange verify $META $DATA
done
ok "volumes that share with others are deleted one by one, and what is left stays right"
kernel_log_clean
