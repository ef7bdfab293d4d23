# title: the guest has the kernel modules and programs that the stories need
# needs: nothing
. /project/test/kernel/lib.sh

for module in target_core_user tcm_loop iscsi_target_mod iscsi_tcp dm_thin_pool uio; do
  [ -d "/sys/module/$module" ] || fail "no kernel module $module"
done
ok "kernel $(uname -r) has LIO, TCMU, tcm_loop, open-iscsi's transport and dm-thin"

for program in node targetcli iscsid iscsiadm thin_check thin_dump fio mkfs.ext4 mkfs.xfs fsck.ext4 xfs_repair dmsetup sg_inq iscsi-ls; do
  command -v $program >/dev/null || fail "no program $program"
done
ok "node $(node --version), targetcli, iscsid, thin_check, fio, mkfs are there"

if touch /project/x 2>/dev/null; then fail "the checkout is writable"; fi
ok "the checkout is read-only"
