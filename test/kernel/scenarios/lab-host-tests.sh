# title: the suite runs on the kernel of a machine whose root agrees, leaves nothing behind there, and keeps off one that is in use
# timeout: 240
# guest: only
# needs: dist native-bindings/build/Release
. /project/test/kernel/lib.sh

# This guest is the machine, its own root folder is the suite's. The runner writes its logs into the checkout.
mkdir /tmp/root
mount --bind / /tmp/root
mount -t tmpfs tmpfs /project/build
suite() { THINLUN_LAB=/tmp/root node $KERNEL_TESTS/run.mjs "$@" >/tmp/suite.log 2>&1; }

THINLUN_HOST_TESTS=1 suite tcmu-loop || { cat /tmp/suite.log; fail 'the suite'; }
grep -qE '^tcmu-loop +pass' /tmp/suite.log || { cat /tmp/suite.log; fail 'no row for the scenario'; }
same 'backstores' '' "$(compgen -G "$CONFIGFS/core/user_*" || true)"
ok 'a scenario passes on the kernel of the machine'

# One that dies in the middle leaves a backstore, whose removal nobody answers any more.
KILLER='kill -9 $(cat /tmp/serve.pid) $$'
THINLUN_HOST_TESTS=1 $KERNEL_TESTS/on-host.sh --root /tmp/root --bind /project:/project:ro -- \
  "bash -c '. /project/test/kernel/lib.sh
    background serve node \$KERNEL_TESTS/support/serve-ram.mjs
    wait_for 20 handler grep -q ready /tmp/serve.log
    tcm_loop_create vol \$(tcmu_create vol thin/ram/vol 67108864)
    $KILLER'" >/tmp/died.log 2>&1 && fail 'a scenario that was killed passed'
grep -q 'removed what was left: LIO' /tmp/died.log || { cat /tmp/died.log; fail 'nothing was left'; }
same 'backstores' '' "$(compgen -G "$CONFIGFS/core/user_*" || true)"
no_stuck_tasks
ok 'what a scenario leaves in the kernel is removed'

mkdir -p $CONFIGFS/core/fileio_0/mine
suite_in_use() { THINLUN_HOST_TESTS=1 suite tcmu-loop; }
suite_in_use && fail 'it ran beside a backstore of the machine'
grep -q 'LIO has backstores' /tmp/suite.log || { cat /tmp/suite.log; fail 'it does not say why'; }
rmdir $CONFIGFS/core/fileio_0/mine $CONFIGFS/core/fileio_0
$KERNEL_TESTS/on-host.sh -- true >/tmp/refused.log 2>&1 && fail 'it ran though nobody agreed'
grep -q 'THINLUN_HOST_TESTS=1 is not set' /tmp/refused.log
ok 'a machine whose LIO is in use is left alone, and one whose root has not agreed'
