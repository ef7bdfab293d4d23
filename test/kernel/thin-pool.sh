# The kernel's thin-pool on the files $META and $DATA, which the scenario that sources this sets, with VOLUME_SECTORS, the size of every
# thin device. POOL_FEATURES are the features of the table; thin_table ID may be defined anew.
POOL_FEATURES=
pool_table() { echo "0 $(blockdev --getsz $data_loop) thin-pool $meta_loop $data_loop 128 0 $POOL_FEATURES"; }
thin_table() { echo "0 $VOLUME_SECTORS thin /dev/mapper/pool $1"; }

# kernel_opens ID...: the pool and these of its devices, as /dev/mapper/pool and /dev/mapper/thinID.
kernel_opens() {
  meta_loop=$(losetup --find --show $META)
  data_loop=$(losetup --find --show $DATA)
  dmsetup create pool --table "$(pool_table)"
  dmsetup mknodes # no udev runs
  kernel_opens_thin "$@"
}
kernel_opens_thin() {
  local id
  for id in "$@"; do dmsetup create thin$id --table "$(thin_table $id)"; done
  dmsetup mknodes
}
# kernel_closes ID...: those that are open.
kernel_closes() {
  local id
  for id in "$@"; do dmsetup remove thin$id; done
  same 'needs_check' 0 "$(dmsetup status pool | grep -c needs_check || true)"
  dmsetup remove pool
  losetup -d $meta_loop $data_loop
}
