# title: systemd boots the machine: pools are served before targetcli's LUNs are restored; services restart, stop and are watched over
# init: systemd
# guest: only
# needs: dist native-bindings/build/Release
# timeout: 240
. /project/test/kernel/lib.sh
SERVICE=$PROJECT/targetcli-scripts/thinlun-service
POOL=/tmp/pool
ANOTHER=/tmp/another

if [ "$BOOT" = before ]; then
  # As an administrator leaves it: units, two pools, LUNs that targetcli has saved.
  thinlun pool create $POOL --data-size 1G
  thinlun pool create $ANOTHER --data-size 1G
  start_thinlun $POOL $ANOTHER --tcmu --no-portal
  $PROJECT/targetcli-scripts/thinlun-create-lun --size 256M pool/web >/tmp/before.create
  $PROJECT/targetcli-scripts/thinlun-create-lun --size 64M another/db >>/tmp/before.create
  disk=$(sed -n 's/^disk: //p' /tmp/before.create | head -n 1)
  make_fs ext4 $disk
  mkdir -p /tmp/mnt
  mount $disk /tmp/mnt
  dd if=/dev/urandom of=/tmp/mnt/file bs=1M count=8 2>/dev/null
  md5sum /tmp/mnt/file >/tmp/before.sums
  umount /tmp/mnt
  targetcli saveconfig >/dev/null
  targetcli clearconfig confirm=True >/dev/null
  stop_thinlun
  rmdir $CONFIGFS/loopback
  modprobe -r tcm_loop target_core_user
  $SERVICE --dry-run add $POOL >/tmp/dry
  [ ! -e /etc/thinlun ] || fail 'the dry run did something'
  $SERVICE add $POOL
  $SERVICE add $ANOTHER
  $SERVICE add $POOL >/tmp/again
  ! grep -q writing /tmp/again || { cat /tmp/again; fail 'the second time is not the same'; }
  systemd-analyze verify thinlun@pool.service thinlun@another.service >/tmp/verify 2>&1 || { cat /tmp/verify; fail 'systemd-analyze verify'; }
  ! grep thinlun /tmp/verify || fail 'systemd-analyze complains'
  ok "thinlun-service installs units that systemd-analyze has nothing to say about; twice is once"
  exit 0
fi
systemctl --failed --no-pager
systemctl status 'thinlun@*' rtslib-fb-targetctl tcmu-runner --no-pager | cat
journalctl --no-pager | tail -50
systemd-analyze --no-pager blame | head
ok booted
