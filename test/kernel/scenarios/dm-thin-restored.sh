# title: metadata that thinlun dumps, restores, packs and repairs is the kernel's own again: thin-pool opens it and goes on
# timeout: 180
. /project/test/kernel/lib.sh
. /project/test/kernel/thin-pool.sh

META=/tmp/metadata DATA=/tmp/data VOLUME_SECTORS=$((1200 * 128))
truncate -s 8M $META
truncate -s 100M $DATA
sums() { for id in "$@"; do md5sum </dev/mapper/thin$id; done; }
# replaced COMMAND...: the metadata becomes what the command makes of it, in /tmp/new.
replaced() {
  thin_check -q $META
  truncate -s 0 /tmp/new
  truncate -s 8M /tmp/new
  "$@"
  thin_check -q /tmp/new
  thinlun check -q /tmp/new
  same 'devices and mappings' "$(thin_dump $META | mappings)" "$(thin_dump /tmp/new | mappings)"
  dd if=/tmp/new of=$META bs=1M conv=notrunc,fsync status=none
}
# One line for each mapping: device, block, data block, time; sharing as thin_dump shows it may be cut differently.
mappings() {
  node -e '
    let defs = new Map(), list, id, out = [];
    for (const [, tag, text] of require("fs").readFileSync(0, "utf8").matchAll(/<([a-z_]+) ([^>]*)>/g)) {
      const at = Object.fromEntries([...text.matchAll(/([a-z_]+)="([^"]*)"/g)].map((m) => [m[1], m[2]]));
      if (tag === "superblock") out.push([at.time, at.transaction, at.data_block_size, at.nr_data_blocks].join(" "));
      else if (tag === "def") defs.set(at.name, (list = []));
      else if (tag === "device") out.push(`device ${(id = at.dev_id)} ${at.mapped_blocks} ${at.transaction} ${at.creation_time} ${at.snap_time}`), (list = out);
      else if (tag === "ref") for (const one of defs.get(at.name)) out.push(one);
      else for (let i = 0; i < Number(at.length ?? 1); i++)
        list.push(`${Number(at.origin_begin ?? at.origin_block) + i} ${Number(at.data_begin ?? at.data_block) + i} ${at.time}`);
    }
    console.log(out.join("\n"));' | md5sum
}

kernel_opens
dmsetup message pool 0 'create_thin 1'
dmsetup message pool 0 'create_thin 2'
dmsetup message pool 0 'set_transaction_id 0 7'
kernel_closes
kernel_opens 1 2
dd if=/dev/urandom of=/dev/mapper/thin1 bs=64K count=600 oflag=direct status=none
before=$(sums 1)
kernel_closes 1 2
through_xml() { thinlun dump -q $META >/tmp/xml && thinlun restore -q -i /tmp/xml -o /tmp/new; }
replaced through_xml
kernel_opens 1 2
same 'data' "$before" "$(sums 1)"
ok "kernel_happy_with_linear_restored_data: and reads what was there"

for block in $(node -e 'for (let i = 0; i < 400; i++) console.log((i * 7919) % 1200)'); do
  dd if=/dev/urandom of=/dev/mapper/thin2 bs=64K count=1 seek=$block conv=notrunc oflag=direct status=none
done
dmsetup suspend thin2
dmsetup message pool 0 'create_snap 3 2'
dmsetup message pool 0 'create_snap 4 3'
dmsetup resume thin2
for block in 7 100 719 44; do
  dd if=/dev/urandom of=/dev/mapper/thin2 bs=64K count=1 seek=$block conv=notrunc oflag=direct status=none
done
kernel_closes 1 2
kernel_opens 1 2 3 4
before=$(sums 1 2 3 4)
kernel_closes 1 2 3 4
replaced through_xml
kernel_opens 1 2 3 4
same 'data' "$before" "$(sums 1 2 3 4)"
ok "kernel_happy_with_random_restored_data: of devices that share most of it"

dd if=/dev/urandom of=/tmp/new-data bs=64K count=64 status=none
for id in 1 4; do
  dd if=/tmp/new-data of=/dev/mapper/thin$id bs=64K seek=30 conv=notrunc oflag=direct status=none
  dd if=/dev/mapper/thin$id bs=64K skip=30 count=64 iflag=direct status=none | cmp - /tmp/new-data
done
dmsetup message pool 0 'create_snap 5 4'
blkdiscard -o 0 -l $((100 * 65536)) /dev/mapper/thin1
dmsetup remove thin2
dmsetup message pool 0 'delete 2'
kernel_closes 1 3 4
ok "kernel_can_use_restored_volume: breaks sharing, snapshots, discards and deletes in it"

through_pack() { thinlun pack -q -i $META -o /tmp/pack && thinlun unpack -q -f -i /tmp/pack -o /tmp/new; }
replaced through_pack
through_repair() { thinlun repair -q -i $META -o /tmp/new; }
replaced through_repair
kernel_opens 1 3 4 5
before=$(sums 1 3 4 5)
kernel_closes 1 3 4 5
replaced through_xml
kernel_opens 1 3 4 5
same 'data' "$before" "$(sums 1 3 4 5)"
kernel_closes 1 3 4 5
ok "packed and unpacked, repaired, dumped and restored: still the same pool"
kernel_log_clean
