# title: two servers on one host: what kills, stops or hangs one, or fails under it, does not touch the other; each event has one answer
# needs: dist native-bindings/build/Release
# timeout: 300
# memory: 2G
. /project/test/kernel/lib.sh

# server NAME ARGUMENTS...: until it is ready.
server() {
  : >/tmp/$1.log
  background $1 node $PROJECT/bin/thinlun serve "${@:2}" --tcmu --no-portal
  wait_for 60 "the server $1" grep -q '^Ready' /tmp/$1.log
}
pid() { cat /tmp/$1.pid; }
end() { kill -9 $(pid $1); wait $(pid $1) 2>/dev/null || true; }
SERVICE_NAME=org.kernel.TCMUService1
check() { timeout 30 dbus-send --system --print-reply --reply-timeout=20000 --dest=$SERVICE_NAME /org/kernel/TCMUService1/thin $SERVICE_NAME.CheckConfig "string:thin/$1"; }
accepted() { check $1 | grep -q 'boolean true'; }

# A pool on device-mapper, so that its devices can hang and fail.
loop_device() { truncate -s $2 /tmp/$1.img; dmsetup create $1 --table "0 $(($(numfmt --from=iec $2) / 512)) linear $(losetup -f --show /tmp/$1.img) 0"; }
loop_device hangs-data 512M
loop_device hangs-metadata 16M
dmsetup mknodes # no udev runs
thinlun pool create /tmp/steady --data-size 512M
thinlun pool create /tmp/hangs --data /dev/mapper/hangs-data --metadata /dev/mapper/hangs-metadata
server a /tmp/steady
server b /tmp/hangs
told /tmp/b.log 'another server here answers targetcli' 'b does not wait for the name'
accepted steady/x && accepted hangs/x || fail 'one of the pools is not known'
thinlun pool create /tmp/second/steady --data-size 64M
if thinlun serve /tmp/second/steady --tcmu --no-portal >/tmp/twin 2>&1; then fail 'two pools of one name were served'; fi
grep -q 'serves a pool of the same name, steady, from "/tmp/steady"' /tmp/twin || { cat /tmp/twin; fail 'the reason is not told'; }
ok "two servers share the name on the bus and answer for each other's pools; a second pool of a name is refused"

steady_dir=$(tcmu_create steady thin/steady/vol 134217728)
hangs_dir=$(tcmu_create hangs thin/hangs/vol 134217728)
# A device is mapped, and a refusal is told, after the kernel has the answer.
for name in a b; do wait_for 30 "the service of the device of $name" grep -q 'serving a TCMU device' /tmp/$name.log; done
same 'serving' '1 1' "$(grep -c 'serving a TCMU device' /tmp/a.log) $(grep -c 'serving a TCMU device' /tmp/b.log)"
if tcmu_create none thin/none/vol 1048576 2>/dev/null; then fail 'a device of a pool that nobody serves was made'; fi
refusals() { cat /tmp/a.log /tmp/b.log | grep 'no pool \\"none\\" is served on this machine'; }
wait_for 30 'the refusal' refusals
sleep 1
same 'refusals' 1 "$(refusals | wc -l)"
kill -STOP $(pid a)
if tcmu_create none thin/none/vol 1048576 2>/dev/null; then fail 'a device of a pool that nobody serves was made'; fi
kill -CONT $(pid a)
ok "each device is served by the one that has its pool; for a pool that nobody serves one of them refuses, even while the other is stopped"

# What a server owes the kernel when it is killed is answered by the other.
kill -STOP $(pid b)
background made bash -c ". $KERNEL_TESTS/lib.sh; tcmu_create late thin/hangs/late 1048576"
background removed rmdir $hangs_dir
sleep 1
alive made && alive removed || fail 'somebody answered for a server that lives'
end b
over() { ! alive $1; }
wait_for 30 'the one who made a device' over made
wait_for 30 'the one who removed a device' over removed
wait $(pid made) && fail 'a device without a server was made' || true
ended removed 0
rmdir $(dirname $hangs_dir)
server b /tmp/hangs
hangs_dir=$(tcmu_create hangs thin/hangs/vol 134217728)
ok "who waits for a server that is killed has the other's answer; the new one serves again"

steady=$(tcm_loop_create steady $steady_dir)
hangs=$(tcm_loop_create hangs $hangs_dir)
load() { # NAME DISK
  background load-$1 fio --eta=never --name=$1 --filename=$2 --size=64M --rw=randwrite --bs=4k-64k --ioengine=libaio --direct=1 --iodepth=4 \
    --fsync=32 --time_based --runtime=${3:-600} --verify=crc32c --verify_backlog=256 --output=/tmp/fio.$1
}
# The longest that a request of the steady pool took while something happened to the other, in milliseconds.
MAX_PAUSE_MS=${MAX_PAUSE_MS:-5000}
probe() { # WHAT SECONDS
  fio --eta=never --name=probe --filename=$steady --offset=64M --size=32M --rw=randrw --bs=4k --ioengine=libaio --direct=1 --iodepth=2 --fsync=64 \
    --verify=crc32c --verify_backlog=64 --time_based --runtime=$2 --output-format=json --output=/tmp/probe.json || { cat /tmp/probe.json; fail "fio during $1"; }
  node -e '
    const [job] = JSON.parse(require("fs").readFileSync("/tmp/probe.json")).jobs;
    const pause = Math.max(job.read.clat_ns.max, job.write.clat_ns.max, job.sync.lat_ns.max ?? 0) / 1e6;
    console.log(`result: ${process.argv[1]}: longest pause of the other pool ${pause.toFixed(0)} ms, ${job.read.total_ios + job.write.total_ios} requests`);
    process.exit(job.error === 0 && job.write.total_ios > 10 && pause < Number(process.argv[2]) ? 0 : 1)' "$1" $MAX_PAUSE_MS || { cat /tmp/probe.json; fail "the other pool paused during: $1"; }
}
load hangs $hangs
sleep 1

(sleep 0.5; end b) &
probe 'kill -9' 2
wait $!
accepted steady/x || fail 'a does not answer any more'
server b /tmp/hangs
(sleep 0.5; kill -STOP $(pid b)) &
probe 'SIGSTOP' 2
check hangs/x | grep -q 'the pool does not answer' || { check hangs/x; fail 'nobody noticed that b is stopped'; }
kill -CONT $(pid b)
(sleep 0.5; dmsetup suspend --noflush hangs-metadata; dmsetup suspend --noflush hangs-data) &
probe 'devices that hang' 2
# Requests are under way, and none ends.
stuck() { local before=$(awk '{print $1 + $5}' /sys/block/${hangs##*/}/stat); sleep 1; awk -v before=$before '{exit !($1 + $5 == before && $9 > 0)}' /sys/block/${hangs##*/}/stat; }
stuck || fail 'the devices do not hang'
dmsetup resume hangs-data
dmsetup resume hangs-metadata
wait_for 60 'b to answer' accepted hangs/x
ok "kill -9, SIGSTOP and devices that hang stop one server; the other pool never pauses, and the first goes on afterwards"

# The same with both pools in one process: a device that fails takes away its pool only.
kill -INT $(pid load-hangs)
wait $(pid load-hangs) || true
! grep -q 'verify: bad\|err=[^ 0]' /tmp/fio.hangs || { cat /tmp/fio.hangs; fail 'the pool that was killed, stopped and hung has lost something'; }
for name in a b; do kill -TERM $(pid $name); ended $name 0; done
server both /tmp/steady /tmp/hangs
same 'devices served' 2 "$(grep -c 'serving a TCMU device' /tmp/both.log)"
dd if=$hangs of=/dev/null bs=1M count=1 iflag=direct 2>/dev/null
for name in hangs-metadata hangs-data; do
  dmsetup suspend --noflush $name
  dmsetup load $name --table "0 $(blockdev --getsz /dev/mapper/$name) error"
done
(sleep 0.5; dmsetup resume hangs-metadata; dmsetup resume hangs-data; dd if=/dev/zero of=$hangs bs=64k count=64 oflag=direct conv=fsync 2>/tmp/dd) &
probe 'devices that fail, in the same process' 2
wait $! && fail 'writes to devices that fail were acknowledged' || true
grep -q 'error' /tmp/dd || { cat /tmp/dd; fail 'no error was reported'; }
ok "in one process, devices that fail take away their own pool only"

tcm_loop_remove steady
tcm_loop_remove hangs
tcmu_remove $steady_dir
tcmu_remove $hangs_dir
kill -TERM $(pid both)
wait $(pid both) || true
check_pool /tmp/steady
no_stuck_tasks
ok "thin_check is content, nothing is stuck"
