# title: 4 KiB random I/O over tcm_loop beside tcmu-runner in the same guest (ratios; no limit is asserted)
# kind: measurement
# needs: dist native-bindings/build/Release
# timeout: 300
# memory: 2G
. /project/test/kernel/lib.sh

SIZE=268435456
CASES='randread-1 randread-32 randwrite-1 randwrite-32'
# measure NAME DISK: IOPS of each case; the best of all rounds is kept, as whatever else runs on the machine only slows down.
measure() {
  local case best now
  echo none >/sys/block/${2##*/}/queue/scheduler
  fio --eta=never --name=fill --filename=$2 --rw=write --bs=1M --ioengine=libaio --direct=1 --iodepth=4 --output=/dev/null
  for case in $CASES; do
    fio --eta=never --name=m --filename=$2 --rw=${case%-*} --bs=4k --ioengine=libaio --direct=1 --iodepth=${case#*-} --time_based --runtime=2 \
      --ramp_time=1 --output-format=json --output=/tmp/fio.json
    now=$(node -p 'const j = JSON.parse(require("fs").readFileSync("/tmp/fio.json")).jobs[0]; Math.round(j.read.iops + j.write.iops)')
    best=$(cat /tmp/iops.$1.$case 2>/dev/null || echo 0)
    [ "$now" -lt "$best" ] || echo "$now" >/tmp/iops.$1.$case
  done
}

measure_ours() {
  : >/tmp/serve.log
  background serve node $KERNEL_TESTS/support/serve-ram.mjs
  wait_for 20 'the handler' grep -q ^ready /tmp/serve.log
  local kind dir disk
  for kind in memory ram; do # memory of the process; a file on a tmpfs, with a system call for each request
    dir=$(tcmu_create $kind thin/$kind/x $SIZE hw_max_sectors=1024,max_data_area_mb=64)
    disk=$(tcm_loop_create $kind $dir)
    measure $kind $disk
    tcm_loop_remove $kind
    tcmu_remove $dir
  done
  kill -TERM "$(cat /tmp/serve.pid)"
  ended serve 0
  rm -f /tmp/ram-*
}

owner() { dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner string:org.kernel.TCMUService1; }

measure_runner() {
  truncate -s $SIZE /tmp/raw.img
  background runner tcmu-runner
  wait_for 20 tcmu-runner owner
  local dir disk
  dir=$(tcmu_create raw qcow//tmp/raw.img $SIZE hw_max_sectors=1024,max_data_area_mb=64)
  disk=$(tcm_loop_create raw $dir)
  measure runner $disk
  tcm_loop_remove raw
  tcmu_remove $dir
  kill "$(cat /tmp/runner.pid)"
  wait "$(cat /tmp/runner.pid)" || true
  rm /tmp/raw.img
}

for round in 1 2 3; do
  measure_ours
  measure_runner
done
ok "measured our handler and tcmu-runner (its qcow handler on a raw file on a tmpfs), three rounds each in turn"
for kind in memory ram; do
  for case in $CASES; do
    ours=$(cat /tmp/iops.$kind.$case) theirs=$(cat /tmp/iops.runner.$case)
    echo "result: $case: $kind $ours, tcmu-runner $theirs, ratio $(node -p "($ours / $theirs).toFixed(2)")"
  done
done
