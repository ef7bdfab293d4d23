# title: a pool goes to and fro between us and the kernel's thin-pool, each writing, snapshotting and discarding
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

exchange format $META $DATA
exchange change $META $DATA 1 # leaves devices 1 and 2, its snapshot
check 'after us'
exchange verify $META $DATA
kernel_opens 1 2
exchange device 1 /dev/mapper/thin1
exchange device 2 /dev/mapper/thin2
ok "the kernel reads what we wrote, in a device and its snapshot"

exchange kernel-write 1 /dev/mapper/thin1 2
exchange kernel-write 2 /dev/mapper/thin2 3
dmsetup suspend thin1
dmsetup message pool 0 'create_snap 3 1'
dmsetup resume thin1
exchange snap 3 1
exchange kernel-write 1 /dev/mapper/thin1 4
dmsetup message pool 0 'create_thin 4'
kernel_opens_thin 4
exchange new 4
exchange kernel-write 4 /dev/mapper/thin4 5
kernel_closes 1 2 4
check 'after the kernel'
exchange verify $META $DATA
ok "we read what the kernel wrote, trimmed and snapshotted"

exchange change $META $DATA 6 # on all of them, and a snapshot 5
check 'after us again'
kernel_opens 1 2 3 4 5
for id in 1 2 3 4 5; do exchange device $id /dev/mapper/thin$id; done
kernel_closes 1 2 3 4 5
ok "and the kernel reads what we then changed, broke and freed"

kernel_opens
dmsetup message pool 0 'delete 2'
exchange forget 2
kernel_closes
exchange change $META $DATA 7
exchange verify $META $DATA
check 'at the end'
ok "a device that the kernel deleted is gone; thin_check is content after every turn"

# A pool that the kernel has made.
rm $META /tmp/expected.json
truncate -s 8M $META
kernel_opens
dmsetup message pool 0 'create_thin 1'
kernel_opens_thin 1
exchange new 1
exchange kernel-write 1 /dev/mapper/thin1 8
kernel_closes 1
exchange verify $META $DATA
exchange change $META $DATA 9
check 'of a pool of the kernel'"'"'s'
kernel_opens 1 2
exchange device 1 /dev/mapper/thin1
exchange device 2 /dev/mapper/thin2
kernel_closes 1 2
ok "a pool that the kernel made is opened, changed and handed back"
kernel_log_clean
