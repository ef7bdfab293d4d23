#!/bin/bash
# Runs one command as boot.sh does, but on this machine's own kernel: same root folder, same programs, no guest.
#
# usage: on-host.sh [--root DIR] [--timeout 300] [--bind HOST:GUEST[:ro]]... -- COMMAND
#
# Only where root has agreed with THINLUN_HOST_TESTS=1, the kernel has target_core_user, and nothing is configured in LIO nor logged in over
# iSCSI: the scenarios clear all of that. Mounts, processes, /tmp, /etc, /var and /run are its own; afterwards what it has left in the kernel is removed.
# Exit status 124: the time was over; 77: this machine is not free for it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${THINLUN_LAB:-/var/tmp/thinlun-lab} limit=300 binds=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --root) root=$2; shift 2 ;;
    --mem) shift 2 ;; # a machine has what it has
    --timeout) limit=$2; shift 2 ;;
    --bind) binds+=("$2"); shift 2 ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "on-host.sh: unknown option $1" >&2; exit 2 ;;
  esac
done
[ $# -ge 2 ] || { echo "on-host.sh: no command after --" >&2; exit 2; }
shift

refuse() { echo "on-host.sh: cannot run on this machine's kernel: $*" >&2; exit 77; }
[ "${THINLUN_HOST_TESTS:-}" = 1 ] || refuse 'THINLUN_HOST_TESTS=1 is not set'
[ "$(id -u)" = 0 ] || refuse 'needs root'
[ -d "$root/usr/bin" ] || refuse "no root folder $root (run build-rootfs.sh)"
[ -d /sys/module/target_core_user ] || modprobe target_core_user 2>/dev/null || refuse 'it has no target_core_user'
config=/sys/kernel/config/target
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
backstores() { compgen -G "$config/core/*_*" || true; }
sessions() { compgen -G '/sys/class/iscsi_session/*' || true; }
[ -z "$(backstores)" ] || refuse "LIO has backstores: $(backstores | tr '\n' ' ')"
[ -z "$(sessions)" ] || refuse 'it is logged in to iSCSI targets'
[ -z "$(ss -Hltn 'sport = :3260')" ] || refuse 'something listens on port 3260'
root=$(cd "$root" && pwd)
maps_before=$(dmsetup ls 2>/dev/null | cut -f1 | sort || true)
loops_before=$(losetup -nlO NAME | sort)

lab=$(mktemp -d "${TMPDIR:-/tmp}/thinlun-host.XXXXXX")
trap 'rm -rf "$lab"' EXIT
cp "$here/guest-init.sh" "$lab/init"
chmod +x "$lab/init"
printf '%s\n' "$*" >"$lab/command"
touch "$lab/on-host"
binds+=("$lab:/lab" "/lib/modules/$(uname -r):/lib/modules/$(uname -r):ro")
export root binds_text
binds_text=$(printf '%s\n' "${binds[@]}")

status=0
# shellcheck disable=SC2016 # the inner shell expands
timeout --kill-after=5 "$limit" unshare --mount --pid --fork --kill-child --propagation private bash -euc '
  mount --bind "$root" "$root"
  while IFS=: read -r from to mode; do mkdir -p "$root$to"; done <<<"$binds_text"
  for folder in dev sys; do mount --rbind "/$folder" "$root/$folder"; done
  mount -t proc proc "$root/proc"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  while IFS=: read -r from to mode; do
    mount --bind "$from" "$root$to"
    [ "$mode" != ro ] || mount -o remount,bind,ro "$root$to"
  done <<<"$binds_text"
  mount -o remount,bind,ro "$root"
  exec chroot "$root" env -i HOME=/tmp TMPDIR=/tmp TERM=dumb /lab/init' </dev/null &
while kill -0 $! 2>/dev/null && [ ! -f "$lab/status" ] && [ $SECONDS -le "$limit" ]; do sleep 0.2; done

# Processes that wait for a handler which is gone do not die before they have an answer, or the disk is gone.
left=
if [ -n "$(backstores)" ]; then
  left+=' LIO'
  parameters=/sys/module/target_core_user/parameters
  for switch in block_netlink reset_netlink; do echo 1 >$parameters/$switch; done
  echo 0 >$parameters/block_netlink
  for action in $(compgen -G "$config/core/user_*/*/action" || true); do
    echo 1 >"$action/block_dev"
    echo 2 >"$action/reset_ring"
  done
  # A disk with a write cache would be asked to write it, for ever, while it is blocked.
  for host in $(grep -ls '^tcm_loop' /sys/class/scsi_host/host*/proc_name); do
    for cache in $(compgen -G "$(dirname "$host")/device/target*/*/scsi_disk/*/cache_type" || true); do
      echo 'temporary write through' >"$cache"
    done
  done
  find "$config" -mindepth 2 -type l -exec rm {} + 2>/dev/null || true
  find "$config" -mindepth 2 -depth -type d -exec rmdir {} + 2>/dev/null || true
fi
wait $! || status=$?

# What a scenario leaves in the kernel would be in the way of the next one.
if [ -n "$(sessions)" ]; then left+=' iSCSI sessions'; iscsiadm -m session -u >/dev/null 2>&1 || true; fi
while read -r map; do
  [ -z "$map" ] || { left+=" $map"; dmsetup remove --force --retry "$map" || true; }
done < <(comm -13 <(echo "$maps_before") <(dmsetup ls 2>/dev/null | grep -v '^No devices' | cut -f1 | sort))
while read -r loop; do
  [ -z "$loop" ] || { left+=" $loop"; losetup -d "$loop" || true; }
done < <(comm -13 <(echo "$loops_before") <(losetup -nlO NAME | sort))
[ -z "$left" ] || echo "on-host.sh: removed what was left:$left" >&2

if [ -f "$lab/status" ]; then status=$(cat "$lab/status"); elif [ "$status" = 137 ]; then status=124; fi
exit "$status"
