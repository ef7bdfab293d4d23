# title: the kernel opens and goes on with what restore and repair made; dump is thin_dump's, byte for byte
# needs: dist native-bindings/build/Release
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh
. /project/test/kernel/thin-pool.sh

META=/tmp/metadata DATA=/tmp/data VOLUME_SECTORS=$((2048 * 128))
truncate -s 8M $META
truncate -s 512M $DATA
exchange() { node $KERNEL_TESTS/support/thin-exchange.mjs "$@"; }

judge() {
  thin_check $META >/tmp/check 2>&1 || { cat /tmp/check; fail "thin_check $1"; }
  thinlun check -q $META || { thinlun check $META; fail "check $1"; }
  for format in xml human_readable; do
    thin_dump -f $format $META >/tmp/theirs
    thinlun dump -q -f $format $META >/tmp/ours
    cmp /tmp/theirs /tmp/ours || fail "dump $1 as $format"
  done
}
replace() { # with new metadata of another size
  rm -f $META.new
  truncate -s 12M $META.new
  "$@" -o $META.new
  mv $META.new $META
}

exchange format $META $DATA
exchange change $META $DATA 1 # leaves devices 1 and 2, its snapshot
judge 'of ours'
thinlun dump -q $META >/tmp/pool.xml
replace thinlun restore -q -i /tmp/pool.xml
judge 'after a restore'
kernel_opens 1 2
for id in 1 2; do exchange device $id /dev/mapper/thin$id; done
ok "the kernel reads through restored metadata"

exchange kernel-write 1 /dev/mapper/thin1 2
dmsetup suspend thin1
dmsetup message pool 0 'create_snap 3 1'
dmsetup resume thin1
exchange snap 3 1
exchange kernel-write 1 /dev/mapper/thin1 3
exchange kernel-write 2 /dev/mapper/thin2 4
kernel_closes 1 2
judge 'after the kernel'
exchange verify $META $DATA
ok "the kernel shares, copies and counts on in restored metadata"

destroy() { dd if=/dev/urandom of=$1 bs=4096 count=1 seek=$2 conv=notrunc status=none; }
cp $META /tmp/damaged
destroy /tmp/damaged "$(od -An -tu8 -j328 -N8 $META | tr -d ' ')" # the details' root
replace thinlun repair -q -i /tmp/damaged
judge 'after a repair'
exchange verify $META $DATA
kernel_opens 1 2 3
for id in 1 2 3; do exchange device $id /dev/mapper/thin$id; done
exchange kernel-write 3 /dev/mapper/thin3 5
kernel_closes 1 2 3
judge 'after the kernel again'
exchange verify $META $DATA
ok "the kernel goes on with repaired metadata"

cp $META /tmp/damaged
destroy /tmp/damaged 0
replace thinlun repair -q -i /tmp/damaged --data-block-size 128 --nr-data-blocks 8192
judge 'after the loss of the superblock'
kernel_opens 1 2 3
kernel_closes 1 2 3
ok "the kernel opens what was found without a superblock"

truncate -s 8M $META.copy
thin_dump $META >/tmp/pool.xml
thinlun restore -q -i /tmp/pool.xml -o $META.copy
thin_restore -q -i /tmp/pool.xml -o $META >/dev/null
thin_dump $META | sed 's/name="[0-9]*"//' >/tmp/theirs
thin_dump $META.copy | sed 's/name="[0-9]*"//' >/tmp/ours
cmp /tmp/theirs /tmp/ours || fail 'restored as thin_restore does'
ok "a restore holds what a thin_restore holds"
kernel_log_clean
