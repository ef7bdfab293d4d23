# What the thinlun-*-lun(s) scripts share: options, what there is (read from configfs), and how it is changed: with
# targetcli, so that it is as if typed by hand. Only secrets are written to configfs, as arguments are there to be read by all.
set -euo pipefail
shopt -s inherit_errexit nullglob

SELF=${0##*/}
HERE=$(dirname "$(readlink -f "$0")")
CONFIGFS=${THINLUN_CONFIGFS:-/sys/kernel/config/target}
SUBTYPE=thin
DRY_RUN=no
THINLUN=${THINLUN:-${HERE%/*}/bin/thinlun}
[ -x "$THINLUN" ] || THINLUN=thinlun

COMMON_HELP='  --no-save     leave saveconfig.json alone
  --dry-run     print the commands, and do nothing
  -h, --help    this text

The volume is POOL/VOLUME, of a pool that a running server has open, or its path: /srv/pool/web.
Exit status: 0 done, or there was nothing to do; 1 failed; 2 wrong usage; 3 refused, as it is in use.
What failed or was interrupted is finished by the same command once more.'

# ---- saying

say() { echo "$*" >&2; }
die() { say "$SELF: $*"; exit 1; }
in_use() { say "$SELF: $*"; exit 3; }
usage_error() { say "$SELF: $*"; say "Try '$SELF --help'."; exit 2; }

# What was done; a dry run has said it with its command.
done_now() { [ $DRY_RUN = yes ] || say "$*"; }

# ---- options

declare -A OPT=()
WORDS=()

# parse_options SPECIFICATION ARGUMENTS...: the specification has NAME for a flag, NAME= for an option with a value, NAME=+ for
# one that may be repeated. Sets OPT[NAME] (repeated: a line each) and WORDS. help() has to be there.
parse_options() {
  local known=" $1 no-save dry-run help " option value
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --) shift; WORDS+=("$@"); break ;;
      -h) option=help value='' ;;
      --*=*) option=${1%%=*} option=${option#--} value=${1#*=} ;;
      --*) option=${1#--} value='' ;;
      -?*) usage_error "unknown option $1" ;;
      *) WORDS+=("$1"); shift; continue ;;
    esac
    [[ $option =~ ^[a-z-]+$ ]] || usage_error "unknown option $1"
    if [[ $known = *" $option "* ]]; then
      [[ $1 != *=* ]] || usage_error "--$option takes no value"
      OPT[$option]=yes
    elif [[ $known = *" $option="* ]]; then
      if [[ $1 != *=* ]]; then
        [ $# -ge 2 ] || usage_error "--$option needs a value"
        value=$2
        shift
      fi
      [ -n "$value" ] && [[ $value != *[[:cntrl:]]* ]] || usage_error "--$option needs a value"
      if [[ $known = *" $option=+ "* ]]; then OPT[$option]+=${OPT[$option]:+$'\n'}$value; else OPT[$option]=$value; fi
    else
      usage_error "unknown option $1"
    fi
    shift
  done
  if [ -n "${OPT[help]:-}" ]; then
    help
    exit 0
  fi
  [ -z "${OPT[dry-run]:-}" ] || DRY_RUN=yes
}

given() { [ -n "${OPT[$1]:-}" ]; }

# Sets $pool_dir (empty: to be found), $pool and $volume from POOL/VOLUME or a path.
parse_volume() {
  local name='[A-Za-z0-9][A-Za-z0-9._-]*'
  pool_dir='' pool='' volume=${1##*/}
  case $1 in
    /*)
      check_name "$volume"
      pool_dir=$(readlink -f "${1%/*}") && [ -f "$pool_dir/pool.json" ] || die "${1%/*} is not the folder of a pool"
      pool=$(pool_name "$pool_dir")
      ;;
    *)
      [[ $1 =~ ^$name/$name$ ]] || usage_error "'$1' is not POOL/VOLUME (names have letters, digits, dot, underscore, dash)"
      pool=${1%/*}
      ;;
  esac
}

check_name() { [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || usage_error "'$1' cannot be a name (letters, digits, dot, underscore, dash)"; }

check_iqn() {
  [[ $1 =~ ^(iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9-]+\.[a-z0-9.-]+(:[A-Za-z0-9._:-]+)?|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32})$ ]] ||
    usage_error "'$1' is not an iSCSI name (iqn.YYYY-MM.reversed.domain:name)"
}

# check_number OPTION LEAST MOST
check_number() { [[ ${OPT[$1]} =~ ^[0-9]{1,9}$ ]] && ((10#${OPT[$1]} >= $2 && 10#${OPT[$1]} <= $3)) || usage_error "--$1 takes $2 to $3"; }

# Bytes of a size as people write it.
parse_size() {
  local bytes
  [[ $1 =~ ^[0-9]+[KMGT]?$ ]] && bytes=$(numfmt --from=iec "$1" 2>/dev/null) || usage_error "'$1' is not a size (10G, 512M)"
  ((bytes > 0 && bytes % 4096 == 0)) || usage_error "'$1' is not a multiple of 4096 bytes"
  printf '%s' "$bytes"
}

# ---- changing

# One at a time: each looks first and changes then.
begin() {
  [ "$(id -u)" = 0 ] || die "needs root"
  [ -d "$CONFIGFS" ] || [ $DRY_RUN = yes ] || modprobe -q target_core_user || true
  [ -d "$CONFIGFS" ] || die "no $CONFIGFS: the kernel's target is not loaded or configfs is not mounted"
  [ $DRY_RUN = no ] || return 0
  command -v targetcli >/dev/null || die "targetcli is missing (apt install targetcli-fb)"
  exec 9>/run/lock/thinlun-luns.lock
  flock -w 60 9 || die "another of these scripts is running"
  # Ctrl-C ends the script between two commands, never a command in its middle.
  trap 'say "$SELF: interrupted: the same command once more finishes it"; exit 130' INT TERM HUP
}

# Runs a command in a session of its own, out of reach of the terminal's signals.
run() {
  if [ $DRY_RUN = yes ]; then
    printf '%q ' "$1"
    shift
    echo "${*@Q}" | sed -E "s/'([A-Za-z0-9_.,:=\/+@-]+)'/\1/g"
    return 0
  fi
  local output
  output=$(setsid -w "$@" 2>&1 </dev/null 9>&-) || die "$*: $(sed 's/\x1b\[[0-9;]*m//g' <<<"$output")"
}

# targetcli with preferences of our own: what is created is not open, exported or listening before it is said.
export TARGETCLI_HOME=/run/thinlun-targetcli
tcli() {
  if [ ! -e "$TARGETCLI_HOME/ready" ] && [ -z "${TCLI_READY:-}" ]; then
    [ $DRY_RUN = no ] || echo "export TARGETCLI_HOME=$TARGETCLI_HOME"
    run targetcli set global color_mode=false auto_add_default_portal=false auto_enable_tpgt=false auto_add_mapped_luns=false
    [ $DRY_RUN = yes ] || : >"$TARGETCLI_HOME/ready"
    TCLI_READY=yes
  fi
  run targetcli "$@"
}

# write VALUE FILE
write() {
  if [ $DRY_RUN = yes ]; then echo "printf %s ${1@Q} >${2@Q}"; else printf %s "$1" >"$2" || die "cannot write '$1' to $2"; fi
}

save() { given no-save || tcli saveconfig; }

# ---- pools and volumes

pool_name() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1] + "/pool.json"))["name"])' "$1"; }

# The folders of the pools that servers on this machine have open: where their control sockets are.
served_folders() { sed -n 's#^[^/]* \(/.*\)/control\.sock$#\1#p' /proc/net/unix | sort -u; }

# Sets $pool_dir to the folder of $pool; false when no server has it.
find_pool() {
  local dir
  [ -z "$pool_dir" ] || return 0
  while IFS= read -r dir; do
    [ -f "$dir/pool.json" ] && [ "$(pool_name "$dir")" = "$pool" ] || continue
    pool_dir=$dir
    return 0
  done <<<"$(served_folders)"
  return 1
}
need_pool() { find_pool || die "no server has a pool '$pool' open: start it (systemctl start thinlun@$pool, or thinlun serve DIR --tcmu)"; }

# Volumes of $pool_dir: NAME, bytes, mapped bytes, bytes of a block, ro or rw, origin or -, serial, NAA; separated by tabs.
read_volumes() {
  local json
  json=$("$THINLUN" volume list "$1" --json) || die "cannot list the volumes of $1"
  python3 -c '
import json, sys
for v in json.load(sys.stdin):
    print(v["name"], v["sizeBytes"], v["mappedBytes"], v["logicalBlockSize"], "ro" if v["readOnly"] else "rw", v["origin"] or "-", v["serial"], v["naa"], sep="\t")
' <<<"$json"
}
load_volumes() { VOLUMES=$(read_volumes "$pool_dir"); }

# volume_field NAME NUMBER: empty when there is no such volume.
volume_field() { awk -F'\t' -v name="$1" -v field="$2" '$1 == name { print $field }' <<<"$VOLUMES"; }
has_volume() { [ -n "$(volume_field "$1" 1)" ]; }

# ---- LIO, as configfs shows it

# The first line of a file; nothing when it cannot be read.
first_line() { { IFS= read -r line <"$1" && printf '%s' "$line"; } 2>/dev/null || true; }

# All backstores of ours: lines of FOLDER POOL/VOLUME.
backstores() {
  local folder path
  for folder in "$CONFIGFS"/core/user_*/*/; do
    path=$(sed -n "s/^[[:space:]]*Config: $SUBTYPE\/\([^ ]*\).*/\1/p" "$folder/info" 2>/dev/null) || continue
    [ -z "$path" ] || [ "$(first_line "$folder/enable")" = 0 ] || echo "${folder%/} $path"
  done
}

# The folder of the backstore that stands on volume $1; empty when there is none.
find_backstore() { backstores | awk -v volume="$1" '$2 == volume { print $1; exit }'; }

# The LUNs of backstore folder $1: lines of FABRIC WWN TPG LUN.
backstore_luns() {
  local link
  [ -n "$1" ] || return 0
  for link in "$CONFIGFS"/*/*/tpgt_*/lun/lun_*/*; do
    [ -L "$link" ] && [ "$(readlink -f "$link")" = "$1" ] || continue
    echo "$link" | awk -F/ '{ print $(NF-5), $(NF-4), substr($(NF-3), 6), substr($(NF-1), 5) }'
  done
}

# The serial number that LIO has for backstore folder $1.
backstore_serial() { first_line "$1/wwn/vpd_unit_serial" | sed 's/^T10 VPD Unit Serial Number: //'; }

# served, unserved (no process has it), blocked (initiators wait) or disabled.
backstore_state() {
  local name uio hba=${1%/*}
  name=tcm-user/${hba##*_}/${1##*/}/$SUBTYPE/$2
  uio=$(grep -lsxF "$name" /sys/class/uio/uio*/name | head -n 1) || true
  if [ -z "$uio" ]; then echo disabled
  elif [ "$(first_line "$1/action/block_dev")" = blocked ]; then echo blocked
  elif grep -qs "/dev/$(basename "${uio%/*}")$" /proc/[0-9]*/maps; then echo served
  else echo unserved; fi
}

# The SCSI disk of LUN $2 of the loopback target $1; empty while there is none.
loop_disk() {
  local address disk
  address=$(first_line "$CONFIGFS/loopback/$1/tpgt_1/address")
  for disk in "/sys/bus/scsi/devices/$address:$2/block"/*; do echo "/dev/${disk##*/}"; done
}

# A name of 16 hexadecimal digits for the loopback target of a volume, the same each time.
loop_wwn() { echo "naa.5001405$(printf %s "$1" | sha256sum | cut -c1-9)"; }

# The initiators of TPG folder $1 that map its LUN $2: lines of NAME MAPPED-LUN.
lun_initiators() {
  local link
  for link in "$1"/acls/*/lun_*/*; do
    [ -L "$link" ] && [ "$(readlink -f "$link")" = "$(readlink -f "$1")/lun/lun_$2" ] || continue
    echo "$link" | awk -F/ '{ print $(NF-2), substr($(NF-1), 5) }'
  done
}

# Whether initiator $2 is logged in to TPG folder $1, by its entry in the access list.
logged_in() { grep -qs 'SESS_STATE_LOGGED_IN' "$1/acls/$2/info"; }
