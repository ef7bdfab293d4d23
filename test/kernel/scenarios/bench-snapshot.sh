# title: a snapshot of a volume with 1,000,000 mapped blocks: "thinlun volume snapshot", "lvcreate -s"
# kind: measurement
# needs: dist bundle bench native-bindings/build/Release
# timeout: 900
# memory: 2G
. /project/test/kernel/lib.sh

# The whole command each time, with its commit; both pools are in use (served, active), on the same tmpfs, with the same mappings.
BLOCKS=${BLOCKS:-1000000}
SIZE=$((BLOCKS * 65536))
time_sample() { node $PROJECT/bench/lab/time-sample.mjs lab-snapshot "$@"; }
# No udev runs in the guest; a check of all metadata before its use is not what is measured.
lvm_config='activation { udev_sync=0 udev_rules=0 } global { thin_check_executable="" } devices { use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none" }'

node $PROJECT/bench/lab/make-pool.mjs /tmp/pool big $BLOCKS
thin_dump /tmp/pool/metadata >/tmp/big.xml
truncate -s $((SIZE + 4294967296)) /tmp/pv
loop=$(losetup --find --show /tmp/pv)
pvcreate --config "$lvm_config" -q $loop
vgcreate --config "$lvm_config" -q vg $loop
lvcreate --config "$lvm_config" -q --yes --type thin-pool -c 64k -Z n -L $((SIZE + 2147483648))b --poolmetadatasize 128M -n pool vg
lvcreate --config "$lvm_config" -q --yes -V ${SIZE}b -T vg/pool -n big
vgchange --config "$lvm_config" -q -an vg
lvcreate --config "$lvm_config" -q --yes -L 128M -n restored vg
thin_restore -q -i /tmp/big.xml -o /dev/vg/restored --transaction-id 1
lvchange --config "$lvm_config" -q -an vg/restored
lvconvert --config "$lvm_config" -q --yes --thinpool vg/pool --poolmetadata vg/restored
vgchange --config "$lvm_config" -q -ay vg
same 'sectors mapped in the LVM volume' $((BLOCKS * 128)) "$(dmsetup status vg-big | cut -d' ' -f4)"
start_thinlun /tmp/pool --portal 127.0.0.1:0
# As it is after "npm run build" here: with code that this Node has compiled.
mkdir -p /tmp/program/native-bindings/build
cp -r $PROJECT/bin $PROJECT/bundle $PROJECT/dist $PROJECT/package.json /tmp/program/
cp -r $PROJECT/native-bindings/build/Release /tmp/program/native-bindings/build/
ln -s $PROJECT/node_modules /tmp/program/node_modules
node /tmp/program/bundle/compile.mjs

for round in $(seq ${ROUNDS:-5}); do
  time_sample thinlun node /tmp/program/bin/thinlun volume snapshot /tmp/pool big snap
  thinlun volume delete /tmp/pool snap >/dev/null
  time_sample lvcreate lvcreate --config "$lvm_config" -q -s -n snap vg/big
  lvremove --config "$lvm_config" -q --yes vg/snap >/dev/null
  # The snapshot alone, without a command around it.
  node $PROJECT/bench/lab/request-sample.mjs lab-snapshot request /tmp/pool big snap
  thinlun volume delete /tmp/pool snap >/dev/null
  # The same way to the same server, or to the same volume group, to ask and not to change: what of the commands is not the snapshot.
  time_sample volume-list node /tmp/program/bin/thinlun volume list /tmp/pool
  time_sample lvs lvs --config "$lvm_config" vg
  # The mere start of either program.
  time_sample node-alone node -e 0
  time_sample lvm-alone lvm version
done
ok "measured both in turn"
