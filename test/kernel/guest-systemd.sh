# Sourced by guest-init.sh for scenarios that say `# init: systemd`: the scenario prepares the machine (BOOT=before), everything that
# runs is killed, and systemd boots it; the scenario goes on as its last service (BOOT=done).
mount -t tmpfs tmpfs /usr/local # empty in the root folder, and read-only
BOOT=before bash /lab/command </dev/null || { echo $? >/lab/status; sync; echo o >/proc/sysrq-trigger; while :; do sleep 1; done; }
kill -9 -1
find /run -mindepth 1 -delete

# What the stories do not need.
for unit in tgt e2scrub_reap xfs_healer_start multipathd open-iscsi lvm2-monitor blk-availability ldconfig systemd-hwdb-update \
  systemd-journal-catalog-update systemd-journal-flush systemd-update-done systemd-logind systemd-firstboot systemd-binfmt \
  systemd-random-seed systemd-pstore systemd-sysusers systemd-user-sessions; do
  ln -sf /dev/null "/etc/systemd/system/$unit.service"
done
ln -sf /dev/null /etc/systemd/system/getty.target
ln -sf /dev/null /etc/systemd/system/timers.target
cat >/etc/systemd/system/scenario.service <<'UNIT'
[Unit]
Wants=multi-user.target
After=multi-user.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
Environment=BOOT=done HOME=/root LANG=C.UTF-8
ExecStart=/bin/bash -c 'bash /lab/command </dev/null; echo $? >/lab/status; sync; echo o >/proc/sysrq-trigger; sleep 60'
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
UNIT
printf '[Unit]\nRequires=scenario.service\n' >/etc/systemd/system/default.target
md5sum </dev/null | cut -c1-32 >/etc/machine-id
exec /lib/systemd/systemd --log-target=journal --show-status=0
