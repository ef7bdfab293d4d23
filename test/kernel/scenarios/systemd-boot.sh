# title: systemd boots the machine: pools are served before targetcli's LUNs are restored; services restart, stop and are watched over
# init: systemd
# guest: only
# needs: dist native-bindings/build/Release
# timeout: 360
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
  # A minute is long for a test.
  printf '[Service]\nWatchdogSec=8s\n' >/etc/systemd/system/thinlun@pool.service.d/watchdog.conf
  systemd-analyze verify thinlun@pool.service thinlun@another.service >/tmp/verify 2>&1 || { cat /tmp/verify; fail 'systemd-analyze verify'; }
  ! grep thinlun /tmp/verify || fail 'systemd-analyze complains'
  ok "thinlun-service installs units that systemd-analyze has nothing to say about; twice is once"
  exit 0
fi

property() { systemctl show -p "$2" --value "$1"; }
trap 'status=$?; [ $status = 0 ] || journalctl --no-pager -u "thinlun@*" -u rtslib-fb-targetctl -u tcmu-runner | tail -n 80; exit $status' EXIT
disk_of() { $PROJECT/targetcli-scripts/thinlun-list-luns --json | node -e '
  const luns = JSON.parse(require("fs").readFileSync(0)); console.log(luns.find((lun) => lun.volume === process.argv[1])?.exports[0]?.disk ?? "")' "$1"; }
restored() { disk=$(disk_of pool/web) && [ -b "$disk" ] && other=$(disk_of another/db) && [ -b "$other" ]; }
wait_for 60 'the restored disks' restored
same 'failed units' '' "$(systemctl --failed --plain --no-legend | grep -E 'thinlun|target|tcmu' || true)"
for unit in thinlun@pool thinlun@another; do
  same "$unit" 'active notify' "$(property $unit ActiveState) $(property $unit Type)"
  [ "$(property $unit ActiveEnterTimestampMonotonic)" -le "$(property rtslib-fb-targetctl ExecMainStartTimestampMonotonic)" ] ||
    fail "$unit was not ready before LIO's configuration was restored"
  same "restarts of $unit" 0 "$(property $unit NRestarts)"
  same 'OOM score' -1000 "$(cat /proc/$(property $unit MainPID)/oom_score_adj)"
done
mkdir -p /tmp/mnt
mount $disk /tmp/mnt
md5sum --quiet -c /tmp/before.sums || fail 'the data is not there'
ok "after the boot both LUNs are there with their data, with no step by hand: the pools were ready before LIO's configuration was restored"

same 'tcmu-runner' inactive "$(property tcmu-runner ActiveState)"
systemctl start tcmu-runner
same 'tcmu-runner after a start' inactive "$(property tcmu-runner ActiveState)"
same 'the pool after that' active "$(property thinlun@pool ActiveState)"
ok "tcmu-runner, which is installed and enabled, is not started, and starting it ends nobody"

SERVICE_NAME=org.kernel.TCMUService1
check() { dbus-send --system --print-reply --dest=$SERVICE_NAME /org/kernel/TCMUService1/thin $SERVICE_NAME.CheckConfig "string:thin/$1"; }
owner() { dbus-send --system --print-reply=literal --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetConnectionUnixProcessID string:$SERVICE_NAME | awk '{print $2}'; }
accepted() { check "$1" | grep -q 'boolean true'; }
accepted pool/new && accepted another/new || { check pool/new; check another/new; fail 'one of the pools is not known'; }
check none/x | grep -q 'no pool "none" is served here' || fail 'an unknown pool was not refused'
ok "whichever server owns the name answers for the pools of both"

as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
for call in "$SERVICE_NAME.CheckConfig string:thin/pool/web" "org.freedesktop.DBus.Properties.GetAll string:$SERVICE_NAME"; do
  if as_nobody dbus-send --system --print-reply --dest=$SERVICE_NAME /org/kernel/TCMUService1/thin $call >/tmp/nobody 2>&1; then fail "nobody may call $call"; fi
  grep -q AccessDenied /tmp/nobody || { cat /tmp/nobody; fail "$call failed otherwise"; }
done
# tcmu-runner's policy lets everybody own what begins with this name.
mv /etc/dbus-1/system.d/tcmu-runner.conf /tmp
systemctl reload dbus
for name in $SERVICE_NAME $SERVICE_NAME.HandlerManager1.thin; do
  if as_nobody dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.RequestName string:$name uint32:0 >/tmp/nobody 2>&1; then fail "nobody may own $name"; fi
  grep -q AccessDenied /tmp/nobody || { cat /tmp/nobody; fail "owning $name failed otherwise"; }
done
mv /tmp/tcmu-runner.conf /etc/dbus-1/system.d/
systemctl reload dbus
ok "who is not root can neither ask nor own the name"

background load fio --eta=never --name=v --directory=/tmp/mnt --size=64M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=8 \
  --fsync=32 --time_based --runtime=18 --verify=crc32c --verify_backlog=256 --output=/tmp/fio.out
running() { [ "$(property thinlun@pool NRestarts)" -ge "$1" ] && [ "$(property thinlun@pool ActiveState)" = active ] && accepted pool/web; }
sleep 1
systemctl kill -s KILL --kill-whom=main thinlun@pool
wait_for 60 'the pool to come back' running 1
ok "kill -9: systemd starts it again, the other server answers targetcli meanwhile"
systemctl restart thinlun@pool
wait_for 60 'the pool to be back' running 0
pid=$(property thinlun@pool MainPID)
reloaded() { [ "$(property thinlun@pool MainPID)" != $pid ] && [ "$(property thinlun@pool ActiveState)" = active ] && ! kill -0 $pid; }
systemctl reload thinlun@pool
wait_for 60 'the new process' reloaded
same 'restarts' 0 "$(property thinlun@pool NRestarts)"
accepted pool/web || fail 'the new process does not answer targetcli'
journalctl -u thinlun@pool --no-pager -o cat | sed -n 's/.*"pauseMs":\([0-9.]*\),.*/result: reload: initiators waited \1 ms/p'
if thinlun serve $POOL --takeover >/tmp/stranger 2>&1; then fail 'a process that is not of the service took over'; fi
grep -q 'it is a service of systemd' /tmp/stranger || { cat /tmp/stranger; fail 'refused for another reason'; }
ok "reload: a new process is the service, without a restart; one that is not of the service is refused"
systemctl stop thinlun@pool
same 'stopped' inactive "$(property thinlun@pool ActiveState)"
sleep 1
systemctl start thinlun@pool
systemctl kill -s STOP --kill-whom=main thinlun@pool
pid=$(property thinlun@pool MainPID)
replaced() { [ "$(property thinlun@pool MainPID)" != $pid ] && [ "$(property thinlun@pool ActiveState)" = active ]; }
wait_for 120 'the watchdog' replaced
journalctl -u thinlun@pool --no-pager | grep -q 'Watchdog timeout' || fail 'it was not the watchdog'
ok "restart, stop and start; a process that was stopped with SIGSTOP is ended by the watchdog and started again"
ended load 0
grep -q 'err= 0' /tmp/fio.out || { cat /tmp/fio.out; fail 'fio found errors'; }
umount /tmp/mnt
check_fs ext4 $disk
same 'restarts of the other' 0 "$(property thinlun@another NRestarts)"
ok "fio --verify saw nothing but pauses, the file system is clean, the other pool's server noticed nothing"

$PROJECT/targetcli-scripts/thinlun-remove-lun pool/web >/dev/null
$PROJECT/targetcli-scripts/thinlun-remove-lun another/db >/dev/null
rm /etc/systemd/system/thinlun@pool.service.d/watchdog.conf
systemctl stop 'thinlun@*'
if owner >/tmp/owner 2>&1; then fail 'somebody owns the name'; fi
if check pool/web >/tmp/owner 2>&1; then fail 'somebody answers'; fi
same 'tcmu-runner, once somebody has asked' inactive "$(property tcmu-runner ActiveState)"
ok "asking while no pool is served starts nobody"
$SERVICE remove pool
if $SERVICE uninstall >/tmp/uninstall 2>&1; then fail 'uninstalled under a pool'; fi
$SERVICE remove another
$SERVICE uninstall
$SERVICE uninstall
same 'files left' '' "$(find /etc /usr/local -name '*thinlun*' -o -path '/usr/local/*TCMU*')"
systemctl start tcmu-runner
same 'tcmu-runner' active "$(property tcmu-runner ActiveState)"
ok "uninstall leaves nothing, and tcmu-runner starts as ever"
check_pool $POOL
no_stuck_tasks
kernel_log_clean
ok "thin_check is content, nothing is stuck, the kernel's log is clean"
