# What the thinlun-*-lun(s) scripts share. State is read from configfs; every change goes through targetcli, so that
# it ends up in saveconfig.json as if typed by hand.
set -euo pipefail

SELF=${0##*/}
CONFIGFS=${THINLUN_CONFIGFS:-/sys/kernel/config/target}
SUBTYPE=thin
DRY_RUN=no

die() {
  echo "$SELF: $*" >&2
  exit 1
}

usage_error() {
  echo "$SELF: $*" >&2
  echo "Try '$SELF --help'." >&2
  exit 2
}

# What was done; with --dry-run what would have been.
say() { if [ $DRY_RUN = yes ]; then echo "# $*"; else echo "$*"; fi; }

# The value of option $1: the next argument, which has to be there.
option_value() {
  [ $# -ge 2 ] && [ -n "$2" ] || usage_error "$1 needs a value"
  printf '%s' "$2"
}

# One targetcli command; with --dry-run only shown.
tcli() {
  if [ $DRY_RUN = yes ]; then
    printf 'targetcli'
    printf ' %q' "$@"
    printf '\n'
    return 0
  fi
  local output
  output=$(targetcli "$@" 2>&1 </dev/null) || die "targetcli $*: $output"
}

check_machine() {
  [ $DRY_RUN = yes ] && return 0
  [ "$(id -u)" = 0 ] || die "needs root"
  command -v targetcli >/dev/null || die "targetcli is missing (apt-get install targetcli-fb)"
  [ -d "$CONFIGFS" ] || modprobe -q target_core_user || true
  [ -d "$CONFIGFS" ] || die "no $CONFIGFS: the kernel's target is not loaded or configfs is not mounted"
}

# Splits POOL/VOLUME into $pool and $volume.
parse_volume() {
  [[ $1 =~ ^([A-Za-z0-9][A-Za-z0-9._-]*)/([A-Za-z0-9][A-Za-z0-9._-]*)$ ]] ||
    usage_error "'$1' is not POOL/VOLUME (letters, digits, dot, underscore, dash)"
  pool=${BASH_REMATCH[1]} volume=${BASH_REMATCH[2]}
}

check_iqn() {
  [[ $1 =~ ^(iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9-]+\.[a-z0-9.-]+(:[A-Za-z0-9._:-]+)?|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32})$ ]] ||
    usage_error "'$1' is not an iSCSI name (iqn.YYYY-MM.reversed.domain:name)"
}

# Bytes of a size as people write it.
parse_size() {
  local bytes
  [[ $1 =~ ^[0-9]+[KMGT]?$ ]] && bytes=$(numfmt --from=iec "$1" 2>/dev/null) || usage_error "'$1' is not a size (10G, 512M)"
  [ "$bytes" -gt 0 ] && [ $((bytes % 4096)) = 0 ] || usage_error "'$1' is not a multiple of 4096 bytes"
  printf '%s' "$bytes"
}

# What follows "Config: thin/" in a backstore's info; empty for what is not ours.
backstore_volume() {
  sed -n "s/^[[:space:]]*Config: $SUBTYPE\/\([^ ]*\).*/\1/p" "$1/info" 2>/dev/null
}

# All backstores of ours: lines of FOLDER POOL/VOLUME.
backstores() {
  local folder path
  for folder in "$CONFIGFS"/core/user_*/*/; do
    path=$(backstore_volume "${folder%/}") || continue
    [ -n "$path" ] && echo "${folder%/} $path"
  done
}

# The folder of the backstore that stands on volume $1; empty when there is none.
find_backstore() { backstores | awk -v volume="$1" '$2 == volume {print $1; exit}'; }

# The LUNs of backstore folder $1: lines of FABRIC WWN TPG LUN.
backstore_luns() {
  local link
  for link in "$CONFIGFS"/*/*/tpgt_*/lun/lun_*/*; do
    [ -L "$link" ] && [ "$(readlink -f "$link")" = "$1" ] || continue
    echo "$link" | awk -F/ '{print $(NF-5), $(NF-4), substr($(NF-3), 6), substr($(NF-1), 5)}'
  done
}

# The SCSI disk of LUN $2 of the loopback target $1; empty while there is none.
loop_disk() {
  local address
  address=$(cat "$CONFIGFS/loopback/$1/tpgt_1/address" 2>/dev/null) || return 0
  compgen -G "/sys/bus/scsi/devices/$address:$2/block/*" | sed -n '1s#.*/#/dev/#p' || true
}

# A name of 16 hexadecimal digits for a loopback target, the same each time.
loop_wwn() { echo "naa.5001405$(printf %s "$1" | sha256sum | cut -c1-9)"; }
