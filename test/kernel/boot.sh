#!/bin/bash
# Boots the User-Mode Linux guest, runs one command in it as root, powers it off, and exits with the command's status.
#
# usage: boot.sh [--root DIR] [--mem 1G] [--timeout 300] [--bind HOST:GUEST[:ro]]... [--systemd] [-i] -- COMMAND
#
# The root folder is read-only to the guest, so that several may run from it; /tmp, /run, /etc, /var and /root of a
# guest are its own and gone afterwards. Mounts are made in a private mount namespace: nothing stays mounted. Standard
# output is the guest's console. -i gives the command this terminal. Exit status 124: the time was over. --systemd runs the
# command twice: with BOOT=before, and, when that ends well, with BOOT=done in a guest that systemd has booted since.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${THINLUN_LAB:-/var/tmp/thinlun-lab} mem=1G limit=300 binds=() input=/dev/null systemd=no
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
    --root) root=$2; shift 2 ;;
    --mem) mem=$2; shift 2 ;;
    --timeout) limit=$2; shift 2 ;;
    --bind) binds+=("$2"); shift 2 ;;
    --systemd) systemd=yes; shift ;;
    -i) input=/dev/stdin; shift ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "boot.sh: unknown option $1" >&2; exit 2 ;;
  esac
done
[ $# -ge 2 ] || { echo "boot.sh: no command after --" >&2; exit 2; }
shift
[ "$(id -u)" = 0 ] || { echo "boot.sh: cannot mount: needs root" >&2; exit 1; }
[ -x "$root/usr/bin/linux.uml" ] || { echo "boot.sh: no guest in $root (run build-rootfs.sh)" >&2; exit 1; }
root=$(cd "$root" && pwd)
exec 9>"$root.lock"
flock --shared 9

lab=$(mktemp -d "${TMPDIR:-/tmp}/thinlun-guest.XXXXXX")
trap 'rm -rf "$lab"' EXIT
cp "$here/guest-init.sh" "$lab/init"
chmod +x "$lab/init"
printf '%s\n' "$*" >"$lab/command"
[ "$input" = /dev/null ] || touch "$lab/interactive"
[ $systemd = no ] || touch "$lab/systemd"
binds+=("$lab:/lab")
export root mem limit binds_text lab
binds_text=$(printf '%s\n' "${binds[@]}")

status=0
# shellcheck disable=SC2016 # the inner shell expands
unshare --mount --propagation private bash -euc '
  while IFS=: read -r from to mode; do mkdir -p "$root$to"; done <<<"$binds_text"
  mount --bind "$root" "$root"
  mount -o remount,bind,ro "$root"
  while IFS=: read -r from to mode; do
    mount --bind "$from" "$root$to"
    [ "$mode" != ro ] || mount -o remount,bind,ro "$root$to"
  done <<<"$binds_text"
  mount -t proc proc "$root/proc"
  mount -t tmpfs -o size=12g,mode=1777 tmpfs "$root/tmp" # the guest'"'"'s memory is a file here
  exec timeout --kill-after=5 "$limit" chroot "$root" env -i HOME=/tmp TMPDIR=/tmp TERM=dumb /usr/bin/linux.uml mem="$mem" \
    seccomp=on root=/dev/root rootfstype=hostfs rootflags=/ rw con=null con0=fd:0,fd:1 quiet loglevel=4 init=/lab/init' \
  <"$input" 9>&- || status=$?

if [ -f "$lab/status" ]; then
  status=$(cat "$lab/status")
elif [ "$status" = 124 ] || [ "$status" = 137 ]; then
  echo "boot.sh: the guest was ended after $limit s" >&2
  status=124
else
  echo "boot.sh: the guest ended without a result (status $status)" >&2
  [ "$status" -ne 0 ] || status=1
fi
exit "$status"
