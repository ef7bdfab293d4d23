# title: the scripts for LIO: create, grow, snapshot, clone, list and remove LUNs, twice each, dry, interrupted, with CHAP, and when things fail
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh
PATH=$PROJECT/targetcli-scripts:$PATH
POOL=/tmp/pool IQN=iqn.2026-11.org.example:pool CLIENT=iqn.2026-11.org.example:initiator PORTAL=127.0.0.1:3260 SAVED=/etc/target/saveconfig.json
mkdir -p /tmp/mnt /tmp/clone /tmp/bin

# Between the scripts and targetcli: notes each command, and fails or waits at the one that is asked for.
real=$(command -v targetcli)
cat >/tmp/bin/targetcli <<END
#!/bin/bash
echo "targetcli \$*" >>/tmp/commands
n=\$(wc -l </tmp/commands)
[ "\$n" != "\${FAIL_AT:-}" ] || { echo 'made to fail' >&2; exit 1; }
[ "\$n" != "\${SLOW_AT:-}" ] || { touch /tmp/slow; sleep 2; }
exec $real "\$@"
END
chmod +x /tmp/bin/targetcli
PATH=/tmp/bin:$PATH
# All that LIO is told to be, what is saved of it, and the volumes.
state() {
  local file
  (
    cd $CONFIGFS
    find . \( -type d -o -type l \) ! -path '*/statistics*' ! -name discovery_auth -printf '%p %l\n' | sort
    for file in $(find . -type f \( -path '*/attrib/*' -o -path '*/auth/*' -o -name enable -o -name vpd_unit_serial \) | sort); do
      echo "$file $(cat "$file" 2>/dev/null)"
    done
  )
  [ ! -e $SAVED ] || cat $SAVED
  thinlun volume list $POOL --json | sed 's/"mappedBytes":[0-9]*//g'
}
# refuses STATUS WORDS COMMAND...: with that exit status and those words, and nothing is changed.
refuses() {
  local wanted=$1 words=$2 status=0
  shift 2
  "$@" >/tmp/out 2>/tmp/err </dev/null || status=$?
  [ $status = "$wanted" ] && grep -qF -- "$words" /tmp/err || { cat /tmp/out /tmp/err; fail "$*: status $status, not $wanted with '$words'"; }
}
luns() { thinlun-list-luns --json | json "$1"; }

thinlun pool create $POOL --data-size 1G
start_thinlun $POOL --tcmu --no-portal
# Settled before commands are counted.
TARGETCLI_HOME=/run/thinlun-targetcli targetcli set global color_mode=false auto_add_default_portal=false auto_enable_tpgt=false auto_add_mapped_luns=false >/dev/null
touch /run/thinlun-targetcli/ready
targetcli saveconfig >/dev/null
[ -e $SAVED ] || SAVED=/etc/rtslib-fb-target/saveconfig.json

# ---- the command line
empty=$(state)
for script in create-lun grow-lun snapshot-lun clone-lun remove-lun list-luns; do
  thinlun-$script --help | grep -q '^usage:' || fail "$script --help"
  refuses 2 "unknown option --nonsense" thinlun-$script --nonsense
done
refuses 2 'which volume' thinlun-create-lun
refuses 2 'which volume' thinlun-create-lun pool/a pool/b
refuses 2 'is not POOL/VOLUME' thinlun-create-lun --size 64M web
refuses 2 'is not POOL/VOLUME' thinlun-create-lun --size 64M 'pool/$(touch /tmp/evil)'
refuses 2 "--size needs a value" thinlun-create-lun pool/web --size
refuses 2 'is not a size' thinlun-create-lun --size much pool/web
refuses 2 'multiple of 4096' thinlun-create-lun --size 1000 pool/web
refuses 2 '--size is needed' thinlun-create-lun pool/web
refuses 2 'takes 512 or 4096' thinlun-create-lun --size 64M --block-size 520 pool/web
refuses 2 'takes 8 to 65536' thinlun-create-lun --size 64M --max-sectors 1 pool/web
refuses 2 'needs --iscsi' thinlun-create-lun --size 64M --acl $CLIENT pool/web
refuses 2 'who may log in?' thinlun-create-lun --size 64M --iscsi $IQN pool/web
refuses 2 'is not an iSCSI name' thinlun-create-lun --size 64M --iscsi pool --anybody pool/web
refuses 2 'is not ADDRESS' thinlun-create-lun --size 64M --iscsi $IQN --acl $CLIENT --portal here:3260 pool/web
refuses 2 'needs --secret-file' thinlun-create-lun --size 64M --iscsi $IQN --acl $CLIENT --user web pool/web
echo short >/tmp/short
refuses 1 '12 to 255 bytes' thinlun-create-lun --size 64M --iscsi $IQN --acl $CLIENT --user web --secret-file /tmp/short pool/web
refuses 1 'cannot read' thinlun-create-lun --size 64M --iscsi $IQN --acl $CLIENT --user web --secret-file /tmp/absent pool/web
refuses 1 "no server has a pool 'absent' open" thinlun-create-lun --size 64M absent/web
refuses 1 'is not the folder of a pool' thinlun-create-lun --size 64M /tmp/web
refuses 1 'there is no volume' thinlun-grow-lun pool/web 64M
refuses 1 'there is no volume' thinlun-clone-lun pool/web web-test
refuses 2 'needs --loop or --iscsi' thinlun-snapshot-lun --name x pool/web web-1
[ ! -e /tmp/evil ] || fail 'a name was executed'
same 'state after all that was refused' "$empty" "$(state)"
same 'nothing to list' '[]' "$(thinlun-list-luns --json)"
ok "help, and what is wrong on a command line is refused and changes nothing"

# ---- a local disk
thinlun-create-lun --dry-run --size 64M pool/one >/tmp/dry
same 'state after a dry run' "$empty" "$(state)"
: >/tmp/commands
thinlun-create-lun --size 64M pool/one >/tmp/create
disk=$(sed -n 's/^disk: //p' /tmp/create)
[ -b "$disk" ] || { cat /tmp/create; fail "no disk: $disk"; }
same 'size' 67108864 "$(blockdev --getsize64 $disk)"
serial=$(thinlun volume list $POOL --json | json '[0].serial')
same 'commands of the dry run' "$(sed "s/wwn=$serial/wwn=SERIAL/" /tmp/commands)" "$(grep ^targetcli /tmp/dry)"
same "LIO's serial number" "T10 VPD Unit Serial Number: $serial" "$(cat $CONFIGFS/core/user_*/pool-one/wwn/vpd_unit_serial)"
done_once=$(state)
thinlun-create-lun --size 64M pool/one >/tmp/again
same 'the second time' "$(cat /tmp/create) $done_once" "$(cat /tmp/again) $(state)"
thinlun-create-lun $POOL/one --no-save >/dev/null
refuses 1 'thinlun-grow-lun makes it larger' thinlun-create-lun --size 128M pool/one
refuses 1 'has the backstore pool-one already' thinlun-create-lun --name other pool/one
refuses 1 "backstore 'pool-one' already, of something else" thinlun-create-lun --size 64M --name pool-one pool/two
same 'state after refusals' "$done_once" "$(state)"
ok "create-lun: a dry run shows the commands and does nothing, the command makes a disk, twice is once"

# ---- iSCSI with an access list and CHAP both ways, in one command; whatever of it fails, the next run finishes it
echo 'the secret of web' >/tmp/secret
echo 'what pool proves' >/tmp/mutual
chmod 600 /tmp/secret /tmp/mutual
create_web() {
  thinlun-create-lun --size 128M pool/web --iscsi $IQN --portal 127.0.0.1 --acl $CLIENT --user web --secret-file /tmp/secret \
    --mutual-user pool --mutual-secret-file /tmp/mutual "$@"
}
create_web --dry-run >/tmp/dry
same 'state after a dry run' "$done_once" "$(state)"
commands=$(grep -c ^targetcli /tmp/dry)
for n in $(seq "$commands"); do
  : >/tmp/commands
  FAIL_AT=$n refuses 1 'made to fail' create_web
  [ $((n % 4)) = 0 ] || continue
  # Taken back from any state, too.
  thinlun-remove-lun --delete-volume pool/web 2>/dev/null
  same "state after command $n failed and all was removed" "$done_once" "$(state)"
done
create_web >/tmp/created
grep -qx "target: $IQN on $PORTAL, LUN 0" /tmp/created || { cat /tmp/created; fail 'where it is'; }
web=$(state)
: >/tmp/commands
create_web >/dev/null
same 'the second time' "targetcli saveconfig $web" "$(cat /tmp/commands) $(state)"
thinlun-remove-lun --delete-volume pool/web
: >/tmp/commands
create_web >/dev/null
serial=$(thinlun volume list $POOL --json | json '.find((v) => v.name === "web").serial')
same 'commands of the dry run' "$(sed "s/wwn=$serial/wwn=SERIAL/" /tmp/commands)" "$(grep ^targetcli /tmp/dry)"
ok "one command makes a target with ACL and CHAP; whichever of its $commands steps fails, once more finishes it, or remove takes it back"

thinlun-remove-lun --delete-volume pool/web
strace -f -qq -s 4000 -e trace=execve -o /tmp/executed bash -c "$(declare -f create_web); create_web" >/dev/null
grep -q saveconfig /tmp/executed || fail 'strace saw nothing'
grep -e 'the secret of web' -e 'what pool proves' /tmp/executed /tmp/dry && fail 'a secret is among the arguments of a process'
tpg=$CONFIGFS/iscsi/$IQN/tpgt_1
same 'demo mode, discovery by strangers, authentication' '0 0 1' \
  "$(cat $tpg/attrib/generate_node_acls $tpg/attrib/demo_mode_discovery $tpg/attrib/authentication | xargs)"
ok "no secret is seen in an argument; demo mode is off"
thinlun-list-luns
thinlun-list-luns --json
