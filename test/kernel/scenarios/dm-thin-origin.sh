# title: volumes over external origins, shorter, longer and ending inside a block, are the same for us and for the kernel
# needs: dist native-bindings/build/Release
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh
. /project/test/kernel/thin-pool.sh

POOL=/tmp/pool META=/tmp/pool/metadata DATA=/tmp/pool/data IMAGE=/tmp/image
dd if=/dev/urandom of=$IMAGE bs=512 count=$((20 * 2048 + 37)) status=none
image_loop=$(losetup --find --show --read-only $IMAGE)
ours() { node $KERNEL_TESTS/support/thin-origin.mjs $POOL "$@"; }

thinlun pool create $POOL --data-size 256M >/dev/null
thinlun volume create $POOL equal --external-origin $IMAGE >/dev/null
thinlun volume create $POOL shorter --external-origin $IMAGE --size 10M >/dev/null
thinlun volume create $POOL longer --external-origin $image_loop --size 32M >/dev/null

declare -A sectors=([1]=$((20 * 2048 + 37)) [2]=$((10 * 2048)) [3]=$((32 * 2048))) names=([1]=equal [2]=shorter [3]=longer)
thin_table() { echo "0 ${sectors[$1]} thin /dev/mapper/pool $1 $image_loop"; }
compare() {
  local id
  for id in 1 2 3; do sums[$id]=$(ours ${names[$id]} sum); done
  kernel_opens 1 2 3
  for id in 1 2 3; do
    same "${names[$id]} $1" "${sums[$id]}" "$(sha256sum </dev/mapper/thin$id | cut -d' ' -f1)"
  done
}
declare -a sums

compare 'before anything was written'
kernel_closes 1 2 3
ok "the kernel sees an untouched volume as we do"

for id in 1 2 3; do ours ${names[$id]} write $id; done
compare 'after we wrote, zeroed and discarded'
ok "the kernel sees what we wrote over it, and the origin where we discarded"

for id in 1 2 3; do
  dd if=/dev/urandom of=/dev/mapper/thin$id bs=512 seek=$((id * 1000 + 3)) count=700 conv=notrunc,fsync status=none
  blkdiscard --offset $((64 * 65536)) --length $((16 * 65536)) /dev/mapper/thin$id
  sums[$id]=$(sha256sum </dev/mapper/thin$id | cut -d' ' -f1)
done
# The end of the origin lies in block 320, sector 37.
dd if=/dev/urandom of=/dev/mapper/thin3 bs=512 seek=$((320 * 128 + 5)) count=1 conv=notrunc,fsync status=none
sums[3]=$(sha256sum </dev/mapper/thin3 | cut -d' ' -f1)
kernel_closes 1 2 3
thin_check $POOL/metadata >/tmp/check 2>&1 || { cat /tmp/check; fail 'thin_check after the kernel'; }
for id in 1 2 3; do same "${names[$id]} after the kernel wrote" "${sums[$id]}" "$(ours ${names[$id]} sum)"; done
ok "we see what the kernel wrote and discarded"

thinlun check $POOL >/dev/null || fail 'our check'
same 'the image' "$(sha256sum <$IMAGE)" "$(sha256sum <$image_loop)"
