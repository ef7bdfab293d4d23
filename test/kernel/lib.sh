# What the scenarios share; they source it inside the guest. A step that fails ends the scenario with its line number.
set -Eeuo pipefail
trap 'echo "FAILED: line $LINENO of ${BASH_SOURCE[0]##*/}: $BASH_COMMAND" >&2' ERR
shopt -s inherit_errexit

PROJECT=/project
KERNEL_TESTS=$PROJECT/test/kernel
CONFIGFS=/sys/kernel/config/target
export PROJECT KERNEL_TESTS CONFIGFS

thinlun() { node "$PROJECT/bin/thinlun" "$@"; }

# Says that a promise of the story held; the runner counts these lines.
ok() { echo "ok: $*"; }

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# same WHAT EXPECTED FOUND
same() { [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $limit ] || fail "waited in vain for $what"
    case $what in 'the handler' | 'the server') alive serve || fail "$what has ended" ;; esac
    sleep 0.1
  done
}

# told LOG PATTERN WHAT: the log says it, now or soon; WHAT is what is wrong otherwise.
told() {
  local limit=$((SECONDS + 30))
  until grep -q "$2" "$1"; do
    [ $SECONDS -lt $limit ] || fail "$3"
    sleep 0.1
  done
}

# background NAME COMMAND...: starts it with its output in /tmp/NAME.log; its pid is in /tmp/NAME.pid. The scenario's
# own log gets what it said when the scenario ends.
background() {
  local name=$1
  shift
  "$@" >>"/tmp/$name.log" 2>&1 </dev/null &
  echo $! >"/tmp/$name.pid"
}
alive() { kill -0 "$(cat "/tmp/$1.pid")" 2>/dev/null; }
# ended NAME STATUS: waits for it and wants that exit status.
ended() {
  local status=0
  wait "$(cat "/tmp/$1.pid")" || status=$?
  [ "$status" = "$2" ] || fail "$1 ended with status $status, expected $2"
}
show_background() {
  local pid
  for pid in /tmp/*.pid; do
    [ -e "${pid%.pid}.log" ] || continue
    echo "--- $(basename "$pid" .pid) said:"
    tail -n 60 "${pid%.pid}.log"
  done
}
trap 'status=$?; [ -z "${WATCH:-}" ] || kill "$WATCH" 2>/dev/null || true; [ $status = 0 ] || show_background; exit $status' EXIT

# What is under way and what it waits for: said shortly before the runner ends a scenario that takes too long.
show_waiting() {
  echo '--- what runs, and what it waits for:'
  ps -eo pid,ppid,stat,wchan:24,etimes,args | awk '$NF !~ /^\[.*\]$/ || $3 ~ /^D/'
  echo '--- connections:'
  ss -tan
  show_background
  echo w >/proc/sysrq-trigger
  echo '--- the kernel:'
  dmesg | tail -n 40
}
if [ -n "${TIME_LIMIT_S:-}" ]; then
  (
    trap - EXIT ERR
    set +e
    sleep $((TIME_LIMIT_S > 30 ? TIME_LIMIT_S - 15 : TIME_LIMIT_S / 2))
    show_waiting >&2
  ) &
  WATCH=$!
  unset TIME_LIMIT_S # for shells of the scenario's own that source this, too
fi

# A field of the JSON on standard input: json '.pools[0].freeBlocks'
json() { node -e 'const v = eval("(" + require("fs").readFileSync(0, "utf8") + ")" + process.argv[1]); console.log(typeof v === "object" ? JSON.stringify(v) : v)' "$1"; }

# No task hangs in the kernel waiting for us.
no_stuck_tasks() {
  local stuck
  stuck=$(ps -eo pid,stat,wchan:32,comm | awk '$2 ~ /^D/ && $4 !~ /^(kworker|jbd2|xfsaild)/')
  [ -z "$stuck" ] || fail "tasks in D state: $stuck"
}

# What the kernel says before this is not ours: on-host.sh does not boot for us.
KERNEL_LOG_MARK="scenario ${0##*/} $$ begins"
echo "$KERNEL_LOG_MARK" >/dev/kmsg
kernel_log() { dmesg | sed "1,/$KERNEL_LOG_MARK/d"; }

# The kernel did not call a ring broken, warn, or oops.
kernel_log_clean() {
  local bad
  bad=$(kernel_log | grep -E 'ring is broken|BUG:|Oops|WARNING:|general protection|Invalid addr to data page|I/O error|hung_task|blocked for more' || true)
  [ -z "$bad" ] || fail "the kernel's log says: $bad"
}

# tcm_loop_create NAME BACKSTORE_DIR: exports it as a local SCSI disk; prints /dev/sdX.
tcm_loop_create() {
  local naa=naa.5001405$(printf %s "$1" | md5sum | cut -c1-9) tpg address
  tpg=$CONFIGFS/loopback/$naa/tpgt_1
  mkdir -p "$tpg"
  echo "naa.5001405${naa:11:8}f" >"$tpg/nexus" # must be there before the LUN
  mkdir "$tpg/lun/lun_0"
  ln -s "$2" "$tpg/lun/lun_0/$1"
  address=$(cat "$tpg/address")
  wait_for 30 "the disk of $1" compgen -G "/sys/bus/scsi/devices/$address:0/block/*"
  echo "/dev/$(ls "/sys/bus/scsi/devices/$address:0/block")"
}

tcm_loop_remove() {
  local naa=naa.5001405$(printf %s "$1" | md5sum | cut -c1-9) tpg
  tpg=$CONFIGFS/loopback/$naa/tpgt_1
  rm "$tpg/lun/lun_0/$1"
  rmdir "$tpg/lun/lun_0" "$tpg" "$CONFIGFS/loopback/$naa"
}

# tcmu_create NAME DEV_CONFIG SIZE_BYTES [CONTROL]: by hand, as configfs wants it; prints the backstore's folder.
tcmu_create() {
  local hba dir n=0
  while [ -e "$CONFIGFS/core/user_$n" ]; do n=$((n + 1)); done
  hba=$CONFIGFS/core/user_$n
  dir=$hba/$1
  mkdir -p "$dir"
  echo -n "dev_config=$2" >"$dir/control"
  echo -n "dev_size=$3" >"$dir/control"
  [ -z "${4:-}" ] || echo -n "$4" >"$dir/control"
  echo 1 >"$dir/enable" || { rmdir "$dir" "$hba"; return 1; }
  echo "$dir"
}

tcmu_remove() { rmdir "$1" "$(dirname "$1")"; }

start_iscsid() {
  echo "InitiatorName=iqn.2026-11.org.example:${1:-initiator}" >/etc/iscsi/initiatorname.iscsi
  background iscsid iscsid -f -d 0
  wait_for 10 iscsid grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix
}

# The /dev/sdX of LUN number $2 of the session with target $1.
iscsi_disk() {
  local session
  for session in /sys/class/iscsi_session/session*; do
    [ "$(cat "$session/targetname")" = "$1" ] || continue
    local disk
    disk=$(compgen -G "$session/device/target*/*:$2/block/*" | head -n 1)
    [ -n "$disk" ] && { echo "/dev/${disk##*/}"; return 0; }
  done
  return 1
}

# start_thinlun ARGUMENTS...: `thinlun serve ARGUMENTS`, until it is ready. Its log is /tmp/serve.log.
start_thinlun() {
  : >/tmp/serve.log
  background serve node "$PROJECT/bin/thinlun" serve "$@"
  wait_for 30 'the server' grep -q '^Ready' /tmp/serve.log
}

stop_thinlun() {
  kill -TERM "$(cat /tmp/serve.pid)"
  ended serve 0
}

kill_thinlun() {
  kill -9 "$(cat /tmp/serve.pid)"
  wait "$(cat /tmp/serve.pid)" 2>/dev/null || true
}

# Bytes of data space that the pool uses.
pool_used() { thinlun pool status "$1" --json | json .dataUsedBytes; }

# Both judges are content with the metadata of a pool that nobody has open.
check_pool() {
  thin_check "$1/metadata" >/tmp/thin_check.out 2>&1 || { cat /tmp/thin_check.out; fail "thin_check of $1"; }
  thinlun check "$1" >/tmp/pool_check.out 2>&1 || { cat /tmp/pool_check.out; fail "thinlun check of $1"; }
}

# start_multipathd LINES: dm-multipath of all disks, with LINES among the defaults of its configuration.
start_multipathd() {
  printf '%s\n' 'defaults {' 'find_multipaths no' 'path_checker tur' 'polling_interval 1' 'max_polling_interval 1' 'no_path_retry queue' "$1" '}' \
    >/etc/multipath.conf
  modprobe dm_multipath
  mkdir -p /run/udev
  background udevd /lib/systemd/systemd-udevd
  udevadm trigger --action=add
  udevadm settle --timeout=60
  background multipathd multipathd -d -s
}

# verify_fio NAME FOLDER [SIZE]: writes with checksums, reads back.
verify_fio() {
  fio --eta=never --name="$1" --directory="$2" --size="${3:-32M}" --rw=randwrite --bs=4k-128k --ioengine=libaio --direct=1 --iodepth=16 \
    --fsync=64 --verify=crc32c --do_verify=1 --output="/tmp/fio.$1" || { cat "/tmp/fio.$1"; fail "fio $1"; }
  grep -q 'err= 0' "/tmp/fio.$1" || { cat "/tmp/fio.$1"; fail "fio $1 found errors"; }
}

make_fs() { # KIND DISK
  case $1 in ext4) mkfs.ext4 -q -F "$2" ;; xfs) mkfs.xfs -q -f "$2" ;; btrfs) mkfs.btrfs -q -f "$2" ;; esac
}
check_fs() {
  case $1 in
    ext4) fsck.ext4 -fn "$2" >/tmp/fsck.out 2>&1 ;;
    xfs) xfs_repair -n "$2" >/tmp/fsck.out 2>&1 ;;
    btrfs) btrfs check "$2" >/tmp/fsck.out 2>&1 ;;
  esac || { cat /tmp/fsck.out; fail "the $1 on $2 is not clean"; }
}
