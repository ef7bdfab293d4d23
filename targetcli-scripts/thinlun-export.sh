# Snapshots, backstores and their exports: what create, snapshot and clone have in common. Sourced after thinlun-lun-common.sh.

EXPORT_OPTIONS='loop iscsi= portal=+ acl=+ anybody user= secret-file= mutual-user= mutual-secret-file= name= max-sectors= data-area='
EXPORT_HELP='  --loop                     as a disk of this machine
  --iscsi IQN                by the kernel'\''s iSCSI target; the target is made when it is not there
  --portal ADDRESS[:PORT]    where that target listens (0.0.0.0:3260); may be repeated
  --acl INITIATOR            an initiator that may log in and sees this LUN; may be repeated
  --anybody                  instead: whoever reaches the portal reads and writes every LUN of the target
  --user NAME                what those initiators prove with CHAP ...
  --secret-file FILE         ... and the secret, of 12 to 255 bytes on one line; - is standard input
  --mutual-user NAME         what the target proves to them ...
  --mutual-secret-file FILE  ... and the secret, another one
  --name NAME                name of the backstore (POOL-VOLUME)
  --max-sectors N            longest transfer in sectors of 512 bytes (2048)
  --data-area MB             memory for data in flight (64)'

# Reads and checks the options, before anything is looked at. $1: what it is without --loop and --iscsi, loop or none.
check_export_options() {
  local option portal acl host
  fabric=$1 portals=() acls=() secret='' mutual_secret=''
  if given loop; then fabric=loop; fi
  if given iscsi; then
    ! given loop || usage_error "--loop or --iscsi?"
    fabric=iscsi iqn=${OPT[iscsi]}
    check_iqn "$iqn"
    mapfile -t acls <<<"${OPT[acl]:-}"
    [ -n "${acls[0]}" ] || acls=()
    for acl in "${acls[@]}"; do check_iqn "$acl"; done
    if given anybody; then
      [ ${#acls[@]} = 0 ] && ! given user || usage_error "--anybody, or --acl?"
    else
      [ ${#acls[@]} -gt 0 ] || usage_error "who may log in? --acl INITIATOR (or --anybody)"
    fi
    mapfile -t portals <<<"${OPT[portal]:-0.0.0.0:3260}"
    for option in "${!portals[@]}"; do
      portal=${portals[$option]}
      [[ $portal =~ ^([0-9.]+|\[[0-9A-Fa-f:]+\])$ ]] && portal=$portal:3260
      [[ $portal =~ ^(([0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9A-Fa-f:]+\]):([0-9]{1,5})$ ]] && host=${BASH_REMATCH[1]} &&
        ((10#${BASH_REMATCH[3]} > 0 && 10#${BASH_REMATCH[3]} <= 65535)) || usage_error "'$portal' is not ADDRESS[:PORT]"
      portals[option]=$host:$((10#${portal##*:}))
    done
    check_chap
  else
    for option in portal acl anybody user secret-file mutual-user mutual-secret-file; do
      ! given "$option" || usage_error "--$option needs --iscsi"
    done
  fi
  if [ "$fabric" = none ]; then
    for option in name max-sectors data-area; do ! given "$option" || usage_error "--$option needs --loop or --iscsi"; done
  fi
  if given name; then check_name "${OPT[name]}"; fi
  if given max-sectors; then check_number max-sectors 8 65536; fi
  if given data-area; then check_number data-area 1 2048; fi
}

check_chap() {
  local kind
  for kind in '' mutual-; do
    if given "${kind}user"; then
      given "${kind}secret-file" || usage_error "--${kind}user needs --${kind}secret-file"
      [[ ${OPT[${kind}user]} != NULL* && ${#OPT[${kind}user]} -le 255 ]] || usage_error "--${kind}user: LIO does not take that name"
    else
      ! given "${kind}secret-file" || usage_error "--${kind}secret-file needs --${kind}user"
    fi
  done
  given user || { ! given mutual-user || usage_error "--mutual-user needs --user"; return 0; }
  [ "${OPT[secret-file]}" != - ] || [ "${OPT[mutual-secret-file]:-}" != - ] || usage_error "only one secret can come from standard input"
  secret=$(read_secret "${OPT[secret-file]}" secret-file)
  given mutual-user || return 0
  mutual_secret=$(read_secret "${OPT[mutual-secret-file]}" mutual-secret-file)
  [ "$secret" != "$mutual_secret" ] || usage_error "the two secrets have to differ, or an initiator could answer with the target's own answer"
}

# The secret in file $1; what is wrong with it is said without it.
read_secret() {
  local LC_ALL=C text more=''
  [ "$1" = - ] || { exec <"$1"; } 2>/dev/null || die "--$2: cannot read $1"
  IFS= read -r text || [ -n "$text" ] || die "--$2: there is no secret in $1"
  IFS= read -r more || true
  [ -z "$more" ] && [[ $text != *[[:cntrl:]]* ]] || die "--$2: a secret is one line, of characters that can be printed"
  ((${#text} >= 12 && ${#text} <= 255)) || die "--$2: a secret has 12 to 255 bytes"
  [[ $text != NULL* ]] || die "--$2: LIO takes a secret that begins with NULL for none"
  printf '%s' "$text"
}

# What would be in the way of the backstore and the export of $pool/$volume, before anything is changed. Sets $backstore and $name.
check_export() {
  local folder
  backstore=$(find_backstore "$pool/$volume")
  name=${OPT[name]:-$pool-$volume}
  if [ -n "$backstore" ]; then
    given name && [ "${backstore##*/}" != "$name" ] && die "$pool/$volume has the backstore ${backstore##*/} already"
    name=${backstore##*/}
  else
    for folder in "$CONFIGFS"/core/user_*/"$name"/; do
      [ "$(first_line "$folder/enable")" = 0 ] || die "there is a backstore '$name' already, of something else: choose another with --name"
    done
  fi
  [ "$fabric" != iscsi ] || check_target
}

# Whether the target is one that these initiators can be let in to without letting others in or keeping others out.
check_target() {
  local tpg=$CONFIGFS/iscsi/$iqn/tpgt_1 acl open chap
  [ -d "$tpg" ] && [ -n "$(echo "$tpg"/acls/* "$tpg"/lun/lun_*)" ] || return 0
  open=$(first_line "$tpg/attrib/generate_node_acls") chap=$(first_line "$tpg/attrib/authentication")
  if given anybody; then
    [ "$open" = 1 ] || die "the target $iqn has an access list: everybody cannot be let in to it; use another target"
    return 0
  fi
  [ "$open" = 0 ] || die "the target $iqn lets everybody in: an access list there would mean nothing; use another target"
  for acl in "$tpg"/acls/*/; do
    acl=$(basename "$acl")
    [ -z "$(first_line "$tpg/acls/$acl/auth/userid")" ] || continue
    if [[ " ${acls[*]} " = *" $acl "* ]]; then continue; fi
    ! given user || die "the target $iqn has the initiator $acl, which has no secret and could not log in any more; use another target"
  done
  if [ "$chap" = 1 ] && ! given user; then
    for acl in "${acls[@]}"; do
      [ -n "$(first_line "$tpg/acls/$acl/auth/userid")" ] || die "the target $iqn wants CHAP: $acl needs --user and --secret-file"
    done
  fi
}

# The rest of the two scripts that take snapshots. $1: snapshot or clone; the options are read, WORDS are volume and new name.
snapshot_and_export() {
  local what=$1 access=rw there=no options=() origin
  [ ${#WORDS[@]} = 2 ] || usage_error "which volume, and what is the name of its $what?"
  check_name "${WORDS[1]}"
  parse_volume "${WORDS[0]}"
  begin
  need_pool
  load_volumes
  origin=$volume volume=${WORDS[1]}
  has_volume "$origin" || die "there is no volume $pool/$origin"
  if given read-only; then access=ro options=(--read-only); fi
  if has_volume "$volume"; then
    there=yes
    [ "$(volume_field "$volume" 6)" = "$origin" ] || die "there is a volume $pool/$volume already, and it is no snapshot of $origin"
    [ "$(volume_field "$volume" 5)" = "$access" ] || die "the $what $pool/$volume is there already, and it is $(volume_field "$volume" 5), not $access"
  fi
  [ "$fabric" = none ] || check_export
  if [ $there = yes ]; then
    done_now "the $what $pool/$volume is there"
  else
    [ -z "${backstore:-}" ] || die "the backstore $name stands on $pool/$volume, which is gone: thinlun-remove-lun it first"
    run "$THINLUN" volume snapshot "$pool_dir" "$origin" "$volume" "${options[@]}"
    made_volume "$what" "$(volume_field "$origin" 2)" "$(volume_field "$origin" 4)" $access "$origin"
  fi
  [ "$fabric" != none ] || return 0
  export_volume
  save
}

# made_volume KIND BYTES BLOCK ACCESS ORIGIN: $volume has just been made; in a dry run, what there would be.
made_volume() {
  if [ $DRY_RUN = yes ]; then
    VOLUMES+=$(printf '\n%s\t%s\t0\t%s\t%s\t%s\tSERIAL\tNAA' "$volume" "$2" "$3" "$4" "$5")
    echo "# SERIAL: what 'thinlun volume list' shows of it then"
  else
    load_volumes
    say "made the $1 $pool/$volume"
  fi
}

# The backstore $name on $pool/$volume, of $1 bytes, in blocks of $2 bytes, with serial number $3. Sets $backstore.
make_backstore() {
  local folder control have
  if [ -z "$backstore" ]; then
    # What an interrupted command has left: made and never enabled, so nothing stands on it.
    for folder in "$CONFIGFS"/core/user_*/"$name"/; do run rmdir "${folder%/}"; done
    control="max_data_area_mb=${OPT[data-area]:-64},hw_block_size=$2"
    # With tcmu-runner about, the kernel would take its refusal for an answer.
    if pidof tcmu-runner >/dev/null; then control+=",nl_reply_supported=-1"; fi
    tcli "/backstores/user:$SUBTYPE" create "name=$name" "size=$1" "cfgstring=$pool/$volume" "wwn=$3" \
      "hw_max_sectors=${OPT[max-sectors]:-2048}" "control=$control"
    [ $DRY_RUN = no ] || return 0
    backstore=$(find_backstore "$pool/$volume")
    [ -n "$backstore" ] || die "targetcli made no backstore for $pool/$volume"
    done_now "made the backstore $name"
  else
    done_now "the backstore $name is there"
    have=$(backstore_serial "$backstore")
    if [ "$have" != "$3" ]; then
      if [ -z "$(backstore_luns "$backstore")" ]; then write "$3" "$backstore/wwn/vpd_unit_serial"
      else say "LIO has the serial number $have for $name, not the volume's $3; it can be changed while there are no LUNs"; fi
    fi
  fi
  local deadline=$((SECONDS + 20))
  until [ "$(backstore_state "$backstore" "$pool/$volume")" = served ]; do
    ((SECONDS < deadline)) || die "no server has taken the backstore $name: see the log of the server of pool $pool"
    sleep 0.1
  done
}

lun_of() { backstore_luns "$backstore" | awk -v fabric="$1" -v wwn="$2" '$1 == fabric && $2 == wwn && $3 == 1 { print $4; exit }'; }

# The least number N for which there is no PREFIX_N.
free_number() {
  local n=0
  while [ -e "$1$n" ]; do n=$((n + 1)); done
  echo $n
}

export_volume() {
  make_backstore "$(volume_field "$volume" 2)" "$(volume_field "$volume" 4)" "$(volume_field "$volume" 7)"
  case $fabric in
    loop) export_loop ;;
    iscsi) export_iscsi ;;
  esac
}

export_loop() {
  local wwn lun disk='' deadline
  wwn=$(loop_wwn "$pool/$volume")
  [ -d "$CONFIGFS/loopback/$wwn" ] || tcli /loopback create "wwn=$wwn"
  lun=$(lun_of loopback "$wwn")
  if [ -z "$lun" ]; then tcli "/loopback/$wwn/luns" create "/backstores/user:$SUBTYPE/$name" lun=0; fi
  [ $DRY_RUN = no ] || return 0
  deadline=$((SECONDS + 20))
  until [ -n "$disk" ]; do
    disk=$(loop_disk "$wwn" "${lun:-0}")
    ((SECONDS < deadline)) || die "the kernel shows no disk of $pool/$volume: see dmesg"
    [ -n "$disk" ] || sleep 0.1
  done
  echo "disk: $disk"
}

# want_attributes PATH FOLDER NAME=VALUE...: sets those that differ.
want_attributes() {
  local path=$1 folder=$2 wanted differ=()
  shift 2
  for wanted; do [ "$(first_line "$folder/attrib/${wanted%%=*}")" = "${wanted#*=}" ] || differ+=("$wanted"); done
  [ ${#differ[@]} = 0 ] || tcli "$path" set attribute "${differ[@]}"
}

export_iscsi() {
  local path=/iscsi/$iqn/tpg1 tpg=$CONFIGFS/iscsi/$iqn/tpgt_1 attributes portal acl lun
  # Who may log in is settled before anybody can.
  if given anybody; then
    attributes=(authentication=0 generate_node_acls=1 demo_mode_write_protect=0 cache_dynamic_acls=1)
  else
    attributes=(generate_node_acls=0 demo_mode_discovery=0)
    if given user; then attributes+=(authentication=1); fi
  fi
  if [ "$(first_line "$tpg/enable")" = 1 ] || [ -n "$(echo "$tpg"/acls/* "$tpg"/lun/lun_*)" ]; then
    want_attributes "$path" "$tpg" "${attributes[@]}"
  else
    # Nobody has been let in yet; from here on authentication is never lowered, as others may have to prove something.
    if [ ! -d "$CONFIGFS/iscsi/$iqn" ]; then tcli /iscsi create "$iqn"; elif [ ! -d "$tpg" ]; then tcli "/iscsi/$iqn" create 1; fi
    given user || given anybody || attributes+=(authentication=0)
    tcli "$path" set attribute "${attributes[@]}"
  fi
  lun=$(lun_of iscsi "$iqn")
  if [ -z "$lun" ]; then
    lun=$(free_number "$tpg/lun/lun_")
    tcli "$path/luns" create "/backstores/user:$SUBTYPE/$name" "lun=$lun" add_mapped_luns=false
  fi
  for acl in "${acls[@]}"; do admit "$acl" "$lun"; done
  for portal in "${portals[@]}"; do
    [ -d "$tpg/np/$portal" ] || tcli "$path/portals" create "ip_address=$(tr -d '[]' <<<"${portal%:*}")" "ip_port=${portal##*:}"
  done
  [ "$(first_line "$tpg/enable")" = 1 ] || tcli "$path" enable
  [ $DRY_RUN = yes ] || for portal in "${portals[@]}"; do echo "target: $iqn on $portal, LUN $lun"; done
}

# Lets initiator $1 see LUN $2, and proves who it is.
admit() {
  local entry=$tpg/acls/$1
  [ -d "$entry" ] || tcli "$path/acls" create "$1" add_mapped_luns=false
  if given user; then
    set_secret "$entry/auth" userid password "${OPT[user]}" "$secret" secret-file
    if given mutual-user; then set_secret "$entry/auth" userid_mutual password_mutual "${OPT[mutual-user]}" "$mutual_secret" mutual-secret-file; fi
  fi
  if ! lun_initiators "$tpg" "$2" | grep -qF -- "$1 "; then
    local number=$2
    [ ! -e "$entry/lun_$number" ] || number=$(free_number "$entry/lun_")
    tcli "$path/acls/$1" create "mapped_lun=$number" "tpg_lun_or_backstore=lun$2"
  fi
}

# set_secret FOLDER USER-FILE SECRET-FILE USER SECRET OPTION
set_secret() {
  [ "$(first_line "$1/$2")" = "$4" ] || write "$4" "$1/$2"
  [ "$(first_line "$1/$3")" = "$5" ] && return 0
  if [ $DRY_RUN = yes ]; then echo "head -n 1 ${OPT[$6]@Q} | tr -d '\\n' >${1@Q}/$3"
  else printf %s "$5" >"$1/$3" || die "cannot set the secret in $1"; fi
}
