# title: the walk of docs/operations.md, command by command, prints what it says there
# init: systemd
# guest: only
# needs: dist native-bindings/build/Release
# timeout: 300
# memory: 2G
. /project/test/kernel/lib.sh

if [ "$BOOT" = before ]; then
  # What "apt install" has done on the reader's machine.
  for package in nodejs targetcli-fb open-iscsi; do dpkg -s $package >/dev/null || fail "$package is not installed"; done
  # The one machine is server and client.
  echo 'InitiatorName=iqn.2026-11.org.example:client' >/etc/iscsi/initiatorname.iscsi
  exit 0
fi

# Folders of the reader's machine; the guest's are read-only.
for folder in /srv /mnt; do mount -t tmpfs tmpfs $folder; done
ip address add 192.0.2.1/32 dev lo
mkdir -p /usr/local/sbin
cd $PROJECT
PATH=/usr/local/sbin:$PATH node $KERNEL_TESTS/support/walk.mjs docs/operations.md ${SHOW:+--show} || {
  journalctl --no-pager -u thinlun@pool -u iscsid | tail -n 40
  fail 'the walk'
}
ok "the walk goes as it is written"
no_stuck_tasks
kernel_log_clean
ok "nothing is stuck, the kernel's log is clean"
