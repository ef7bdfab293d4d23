# title: open-iscsi proves who it is with CHAP, one way and both ways, for discovery, too; who cannot learns nothing
. /project/test/kernel/lib.sh

POOL=/tmp/pool PORTAL=127.0.0.1:3260 ME=iqn.2026-11.org.example:initiator
thinlun pool create $POOL --data-size 512M
thinlun volume create $POOL seen --size 128M
thinlun volume create $POOL hidden --size 128M
printf 'secret-of-alice' >/tmp/alice
printf 'secret-of-target' >/tmp/target
thinlun access allow $POOL $ME --user alice --secret-file /tmp/alice --mutual-user target --mutual-secret-file /tmp/target --volumes seen
start_thinlun $POOL --portal $PORTAL
start_iscsid

# setting NAME VALUE: of the discovery's or the node's record.
discovery() { iscsiadm -m discoverydb -t st -p $PORTAL -o update -n "discovery.sendtargets.auth.$1" -v "$2"; }
record() { iscsiadm -m node -T $IQN -p $PORTAL -o update -n "node.session.auth.$1" -v "$2"; }
sessions() { ls /sys/class/iscsi_session 2>/dev/null | wc -l; }
IQN=iqn.2026-11.io.thinlun:pool

iscsiadm -m discoverydb -t st -p $PORTAL -o new >/dev/null
iscsiadm -m discoverydb -t st -p $PORTAL -o update -n discovery.sendtargets.reopen_max -v 0
if timeout 20 iscsiadm -m discoverydb -t st -p $PORTAL --discover >/tmp/discovery 2>&1; then fail 'discovery without a user'; fi
! grep -q thinlun:pool /tmp/discovery || fail 'the target is shown to somebody who has proved nothing'
discovery authmethod CHAP
discovery username alice
discovery password wrong-secret-of-alice
if timeout 20 iscsiadm -m discoverydb -t st -p $PORTAL --discover >/tmp/discovery 2>&1; then fail 'discovery with a wrong secret'; fi
! grep -q thinlun:pool /tmp/discovery || fail 'the target is shown to somebody with a wrong secret'
ok "discovery shows nothing without a user and with a wrong secret"
discovery password secret-of-alice
iscsiadm -m discoverydb -t st -p $PORTAL --discover >/tmp/discovery || { cat /tmp/discovery; fail 'discovery with CHAP'; }
grep -q $IQN /tmp/discovery || { cat /tmp/discovery; fail 'the target is not shown'; }
discovery username_in target
discovery password_in secret-of-target
iscsiadm -m discoverydb -t st -p $PORTAL --discover >/tmp/discovery || { cat /tmp/discovery; fail 'discovery with mutual CHAP'; }
ok "discovery with CHAP, one way and both ways, shows $IQN"

iscsiadm -m node -T $IQN -p $PORTAL -o update -n node.session.initial_login_retry_max -v 1
if timeout 30 iscsiadm -m node -T $IQN -p $PORTAL -l >/tmp/login 2>&1; then fail 'a login without a user'; fi
same 'sessions' 0 "$(sessions)"
record authmethod CHAP
record username alice
record password wrong-secret-of-alice
if timeout 30 iscsiadm -m node -T $IQN -p $PORTAL -l >/tmp/login 2>&1; then fail 'a login with a wrong secret'; fi
grep -qi 'authorization' /tmp/login || { cat /tmp/login; fail 'the reason is not the authorization'; }
same 'sessions' 0 "$(sessions)"
ok "no login without a user, nor with a wrong secret"

# Both with every digest that the initiator has, and with only the strongest and the oldest.
for algorithms in MD5 SHA1 SHA256 SHA3-256,SHA256,SHA1,MD5; do
  record chap_algs $algorithms
  record password secret-of-alice
  record username_in ''
  record password_in ''
  iscsiadm -m node -T $IQN -p $PORTAL -l >/tmp/login 2>&1 || { cat /tmp/login; fail "login with $algorithms"; }
  wait_for 20 'the disk' iscsi_disk $IQN 0
  iscsiadm -m node -T $IQN -p $PORTAL -u >/dev/null
  record username_in target
  record password_in secret-of-target
  iscsiadm -m node -T $IQN -p $PORTAL -l >/tmp/login 2>&1 || { cat /tmp/login; fail "mutual login with $algorithms"; }
  wait_for 20 'the disk' iscsi_disk $IQN 0
  iscsiadm -m node -T $IQN -p $PORTAL -u >/dev/null
  ok "login with $algorithms, one way and both ways"
done
record password_in secret-of-somebody
if timeout 30 iscsiadm -m node -T $IQN -p $PORTAL -l >/tmp/login 2>&1; then fail 'the initiator took another target for ours'; fi
record password_in secret-of-target
ok "the initiator does not accept a target that does not know its secret"

iscsiadm -m node -T $IQN -p $PORTAL -l >/dev/null
wait_for 20 'the disk' iscsi_disk $IQN 0
same 'disks of the session' 1 "$(ls -d /sys/class/iscsi_session/session*/device/target*/*:*/block/* | wc -l)"
disk=$(iscsi_disk $IQN 0)
make_fs ext4 $disk
mkdir -p /tmp/mnt
mount $disk /tmp/mnt
verify_fio chap /tmp/mnt 16M
kill_thinlun
start_thinlun $POOL --portal $PORTAL
verify_fio again /tmp/mnt 16M
umount /tmp/mnt
check_fs ext4 $disk
ok "it sees the one volume that it may have; after the server was killed it comes back by itself"

grep -r -q 'secret-of' /tmp/serve.log && fail 'a secret is in the log'
thinlun access list $POOL >/tmp/list
grep -q alice /tmp/list || { cat /tmp/list; fail 'alice is not listed'; }
! grep -q 'secret-of' /tmp/list || fail 'a secret is shown'
same 'mode of the file' 600 "$(stat -c %a $POOL/access.json)"
thinlun access deny $POOL $ME >/dev/null
wait_for 20 'the session to end' bash -c '! grep -q LOGGED_IN /sys/class/iscsi_session/session*/state'
ok "no secret is shown or logged; who is denied loses the session"
iscsiadm -m node -T $IQN -p $PORTAL -u >/dev/null 2>&1 || true
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "thin_check is content, nothing is stuck"
