# title: every test of iscsi-test-cu over LIO's iSCSI target with our TCMU handler below it: none does worse than on record
# timeout: 600
# memory: 2G
. /project/test/kernel/lib.sh

POOL=/tmp/pool IQN=iqn.2026-11.org.example:conformance
thinlun pool create $POOL --data-size 4G
start_thinlun $POOL --tcmu --no-portal
$PROJECT/targetcli-scripts/thinlun-create-lun --size 1G --iscsi $IQN --portal 127.0.0.1:3260 --anybody pool/vol

# Sanitize.Reset sleeps for a minute.
node $PROJECT/test/conformance/iscsi-test-cu.mjs --only '^(?!.*Sanitize.Reset)' --profile lio --url iscsi://127.0.0.1:3260/$IQN/0 | tee /tmp/conformance ||
  fail "$(grep -m 1 '^PROBLEM' /tmp/conformance || tail -n 1 /tmp/conformance)"
echo "result: $(grep '^profile lio' /tmp/conformance)"
ok "every test does as well as docs/conformance.md says"

alive serve || fail 'the handler has ended'
$PROJECT/targetcli-scripts/thinlun-remove-lun pool/vol || { iscsiadm -m session || true; ls $tpg/acls; fail 'the LUN cannot be removed'; }
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "the handler lives, thin_check is content, nothing is stuck"
