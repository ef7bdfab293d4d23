# title: memory runs out under a disk of ours that is used on this machine: nothing hangs, the server is not the victim, and where it is, I/O goes on
# timeout: 240
# memory: 900M
. /project/test/kernel/lib.sh

POOL=/tmp/pool
thinlun pool create $POOL --data-size 1G
start_thinlun $POOL --tcmu --no-portal
dir=$(tcmu_create vol thin/pool/vol 268435456 hw_max_sectors=2048,max_data_area_mb=16)
disk=$(tcm_loop_create vol $dir)
make_fs ext4 $disk
mkdir -p /tmp/mnt
mount $disk /tmp/mnt

thinlun pool status $POOL | tee /tmp/status
grep -q 'protection *IO_FLUSHER, .* locked, no swap' /tmp/status || fail 'the server is not protected'
# PF_MEMALLOC_NOIO of every thread but Node's own for debuggers, which never runs anything.
pid=$(cat /tmp/serve.pid)
flushers=$(cat /proc/$pid/task/*/stat | sed 's/.*) //' | awk '{ if (int($7 / 524288) % 2) n++ } END { print n }')
threads=$(ls /proc/$pid/task | wc -l)
[ "$flushers" -ge $((threads - 1)) ] || fail "$flushers of $threads threads are I/O flushers"
locked=$(awk '/^VmLck/ { print $2 }' /proc/$pid/status)
[ "$locked" -gt 20000 ] || fail "only $locked KiB are locked"
ok "$flushers of $threads threads are I/O flushers, $((locked / 1024)) MiB of program are locked, RSS is $(awk '/^VmRSS/ { print int($2 / 1024) }' /proc/$pid/status) MiB"

# As the service does it: the server is the last to go.
echo -1000 >/proc/$pid/oom_score_adj
# What the disk needs is there before memory goes.
dd if=/dev/zero of=/tmp/mnt/file bs=1M count=160 conv=fsync 2>/dev/null
echo 90 >/proc/sys/vm/dirty_ratio
echo 80 >/proc/sys/vm/dirty_background_ratio
free -m
background hog node -e '
const parts = [];
// Leaves some tens of megabytes; memory that is full of dirty pages has to be written out, by the server, before anybody gets more.
const available = () => Number(/MemAvailable: *(\d+)/.exec(require("fs").readFileSync("/proc/meminfo", "utf8"))[1]);
setInterval(() => { if (available() > 120000) parts.push(Buffer.alloc(8 << 20, 1)); }, 20);
'
echo 1000 >/proc/"$(cat /tmp/hog.pid)"/oom_score_adj
sleep 4
free -m
for round in 1 2; do
  timeout 60 fio --eta=never --name=dirty --filename=/tmp/mnt/file --size=160M --rw=randwrite --bs=4k-256k --ioengine=psync --time_based --runtime=4 \
    --verify=crc32c --do_verify=0 --output=/tmp/fio.dirty || { cat /tmp/fio.dirty; fail 'buffered writes'; }
  timeout 60 dd if=/dev/urandom of=/tmp/mnt/other bs=1M count=40 conv=fsync 2>/dev/null || fail 'a write under memory pressure'
done
timeout 60 sync
grep -E 'pgsteal_direct |allocstall_normal|pgscan_kswapd ' /proc/vmstat | tr '\n' ' '
alive serve || fail 'the server was the victim'
no_stuck_tasks
ok "heavy dirty pages of our own disk with little memory: written out, nothing hangs"

kill "$(cat /tmp/hog.pid)" 2>/dev/null || true
kills() { dmesg | grep -c "Out of memory: Killed process" || true; }
before=$(kills)
background glutton node -e 'const parts = []; setInterval(() => parts.push(Buffer.alloc(16 << 20, 1)), 5)'
wait_for 60 'the out-of-memory killer' bash -c '[ "$(dmesg | grep -c "Out of memory: Killed process")" -gt '$before' ]'
dmesg | grep 'Out of memory: Killed process' | tail -n 1 | cut -c 1-120
alive serve || fail 'the server was the victim'
kill -9 "$(cat /tmp/glutton.pid)" 2>/dev/null || true
ok "with OOMScoreAdjust=-1000 somebody else is killed"

# Where it is the victim all the same.
background supervisor bash -c '. /project/test/kernel/lib.sh
  while [ ! -e /tmp/stop ]; do
    if ! alive serve; then start_thinlun '$POOL' --tcmu --no-portal; echo 1000 >/proc/$(cat /tmp/serve.pid)/oom_score_adj; echo restarted; fi
    sleep 0.2
  done'
background load fio --eta=never --name=v --directory=/tmp/mnt --size=24M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=8 --fsync=32 \
  --time_based --runtime=9 --verify=crc32c --verify_backlog=256 --output=/tmp/fio.out
echo 1000 >/proc/$pid/oom_score_adj
for round in 1 2; do
  sleep 2
  before=$(cat /tmp/serve.pid)
  echo f >/proc/sysrq-trigger
  wait_for 60 'the restart' bash -c "[ \$(cat /tmp/serve.pid) != $before ] && grep -q ^Ready /tmp/serve.log"
  dmesg | grep -q "Killed process $before" || fail 'another one was killed'
done
ended load 0
grep -q 'err= 0' /tmp/fio.out || { cat /tmp/fio.out; fail 'fio found errors'; }
ok "killed twice by the out-of-memory killer and restarted: fio --verify saw pauses"
umount /tmp/mnt
check_fs ext4 $disk
touch /tmp/stop
ended supervisor 0
tcm_loop_remove vol
tcmu_remove $dir
server=$(cat /tmp/serve.pid)
kill -TERM $server
wait_for 30 'the end' bash -c "! kill -0 $server"
check_pool $POOL
no_stuck_tasks
dmesg | grep -E 'ring is broken|BUG:|Oops|WARNING:|hung_task|I/O error' && fail 'the kernel complains' || true
ok "fsck and thin_check are content, nothing is stuck"
