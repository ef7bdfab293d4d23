#!/bin/bash
# Makes the root folder that the guest boots from: a Debian with the User-Mode Linux kernel (LIO, target_core_user,
# dm-thin as modules) and the programs that the scenarios use as judges. A folder that has them all is left as it is.
#
# usage: build-rootfs.sh [--force] [DIR]      DIR: $THINLUN_LAB, or else /var/tmp/thinlun-lab
#
# Needs root and mmdebstrap; one to two minutes and 650 MB. The new folder is built beside DIR and renamed, so DIR is
# whole or not there. Guests hold a shared lock on DIR.lock; replacing a folder waits until the last of them has ended.
set -euo pipefail

suite=forky # the older suites' User-Mode Linux dies on CPUs with a large XSAVE area
packages=(
  user-mode-linux kmod dbus udev util-linux procps iproute2 strace nodejs
  targetcli-fb python3-gi open-iscsi tcmu-runner tgt libiscsi-bin sg3-utils
  dmsetup thin-provisioning-tools e2fsprogs xfsprogs btrfs-progs lvm2 multipath-tools fio qemu-utils
  ddpt lsscsi sdparm
)

force=no
case ${1:-} in
  --force) force=yes; shift ;;
  -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
  -*) echo "build-rootfs.sh: unknown option $1" >&2; exit 2 ;;
esac
root=${1:-${THINLUN_LAB:-/var/tmp/thinlun-lab}}

# Complete: every package is installed, the modules are indexed. A longer list above makes an old folder stale.
complete() {
  local installed
  [ -x "$root/usr/bin/linux.uml" ] && [ -c "$root/dev/null" ] || return 1
  compgen -G "$root/usr/lib/uml/modules/*/modules.dep" >/dev/null || return 1
  installed=$(awk '/^Package: /{name=$2} /^Status: install ok installed/{print name}' "$root/var/lib/dpkg/status") || return 1
  for package in "${packages[@]}"; do grep -qxF "$package" <<<"$installed" || return 1; done
}

mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
if [ $force = no ] && flock --shared 9 && complete; then exit 0; fi
[ "$(id -u)" = 0 ] || { echo "build-rootfs.sh: cannot build $root: needs root" >&2; exit 1; }
command -v mmdebstrap >/dev/null || { echo "build-rootfs.sh: cannot build $root: mmdebstrap is missing (apt-get install mmdebstrap)" >&2; exit 1; }
flock --exclusive 9
if [ $force = no ] && complete; then exit 0; fi # someone else built it while we waited

new=$root.new.$$ old=$root.old.$$
trap 'rm -rf --one-file-system "$new" "$old"' EXIT
mkdir "$new"
echo "building $root (Debian $suite, ${#packages[@]} packages) ..." >&2
mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --include="$(IFS=,; echo "${packages[*]}")" "$suite" - | tar -C "$new" -x --exclude='./dev/*'
while read -r name major minor; do mknod -m 666 "$new/dev/$name" c "$major" "$minor"; done <<'NODES'
null 1 3
zero 1 5
random 1 8
urandom 1 9
tty 5 0
NODES
version=$(ls "$new/usr/lib/uml/modules")
mkdir -p "$new/lib/modules"
ln -sfn "/usr/lib/uml/modules/$version" "$new/lib/modules/$version"
chroot "$new" depmod "$version"
if [ -e "$root" ]; then mv -T "$root" "$old"; fi
mv -T "$new" "$root"
complete || { echo "build-rootfs.sh: $root was built but is not complete" >&2; exit 1; }
echo "kernel $version is ready in $root" >&2
