# title: whatever length a command announces over LIO, it gets and changes what its CDB says, and nothing that others have left in the data area
# needs: dist native-bindings/build/Release
# timeout: 150
. /project/test/kernel/lib.sh

background serve node $KERNEL_TESTS/support/serve-ram.mjs
wait_for 60 'the handler' grep -q ^ready /tmp/serve.log
dir=$(tcmu_create vol thin/ram/vol 16777216 hw_max_sectors=2048,max_data_area_mb=4)
disk=$(tcm_loop_create vol $dir)

# Leaves secrets (0xa5) in every page of the data area that commands below will get.
secrets() {
  head -c 1048576 /dev/zero | tr '\0' '\245' >/tmp/secrets
  dd if=/tmp/secrets of=$disk bs=1M seek=8 oflag=direct 2>/dev/null
}
# raw WHAT STATUS ARGUMENTS...: sg_raw, whose exit status is by the sense key (0 good, 5 illegal request, 9 invalid opcode). What it got is in /tmp/got.
raw() {
  local what=$1 wanted=$2 status=0
  shift 2
  secrets
  rm -f /tmp/got
  sg_raw "$@" >/tmp/raw.out 2>&1 || status=$?
  [ $status = $wanted ] || { cat /tmp/raw.out; fail "$what: exit status $status, expected $wanted"; }
}
# get WHAT STATUS AT_MOST BUFFER CDB...: asks for data; none of it is anybody else's, and there is no more than that.
get() {
  local what=$1 status=$2 most=$3 buffer=$4 size stale
  shift 4
  raw "$what" $status -r $buffer -o /tmp/got $disk "$@"
  touch /tmp/got
  size=$(stat -c %s /tmp/got) stale=$(tr -dc '\245' </tmp/got | wc -c)
  [ $stale = 0 ] || fail "$what: $stale bytes of $size are of other commands"
  [ $size -le $most ] || fail "$what: got $size bytes, expected at most $most"
}
sum() { dd if=$disk bs=4k count=${2:-1} skip=$1 iflag=direct 2>/dev/null | md5sum; }

head -c 65536 /dev/urandom | tr '\245' '\0' >/tmp/data
dd if=/tmp/data of=$disk bs=64k oflag=direct 2>/dev/null

get 'INQUIRY' 0 255 4096 12 00 00 00 ff 00
[ -s /tmp/got ] && grep -q THINLUN /tmp/got || fail 'INQUIRY returned nothing'
get 'INQUIRY of 5 bytes' 0 5 4096 12 00 00 00 05 00
get 'INQUIRY of no byte' 0 1 4096 12 00 00 00 00 00
get 'MODE SENSE' 0 255 65536 5a 00 3f 00 00 00 00 00 ff 00
get 'TEST UNIT READY that wants data' 0 1 4096 00 00 00 00 00 00
get 'a READ of no block' 0 1 65536 28 00 00 00 00 00 00 00 00 00
ok "short replies are as long as they are, and hold nothing of other commands"

get 'a READ with a larger buffer' 0 4096 65536 28 00 00 00 00 00 00 00 08 00
same 'what it read' "$(head -c 4096 /tmp/data | md5sum)" "$(md5sum </tmp/got)"
get 'a READ with a smaller buffer' 0 512 512 28 00 00 00 00 00 00 00 08 00
same 'what it read' "$(head -c 512 /tmp/data | md5sum)" "$(md5sum </tmp/got)"
get 'a READ with a smaller buffer of several pages' 0 20480 20480 28 00 00 00 00 00 00 00 80 00
same 'what it read' "$(head -c 20480 /tmp/data | md5sum)" "$(md5sum </tmp/got)"
ok "a READ returns what its CDB says, as far as there is room"

head -c 8192 /dev/urandom >/tmp/new
before=$(sum 0 16)
raw 'a WRITE with less data' 5 -s 2048 -i /tmp/new $disk 2a 00 00 00 00 00 00 00 08 00
grep -qi 'command information unit' /tmp/raw.out || { cat /tmp/raw.out; fail 'another reason'; }
raw 'a WRITE without data' 5 $disk 2a 00 00 00 00 00 00 00 08 00
raw 'an UNMAP with less than its list' 5 -s 8 -i /tmp/new $disk 42 00 00 00 00 00 00 00 18 00
same 'the disk after refused writes' "$before" "$(sum 0 16)"
ok "a WRITE with less data than its CDB says is refused and changes nothing: LIO could not say how much was taken"
raw 'a WRITE with more data' 0 -s 8192 -i /tmp/new $disk 2a 00 00 00 00 00 00 00 08 00
same 'what was written' "$(head -c 4096 /tmp/new | md5sum)" "$(sum 0)"
same 'what follows it' "$(dd if=/tmp/data bs=4k skip=1 count=15 2>/dev/null | md5sum)" "$(sum 1 15)"
ok "a WRITE with more data takes as much as its CDB says"

before=$(sum 0 16)
raw 'a READ that sends data' 0 -s 4096 -i /tmp/new $disk 28 00 00 00 00 00 00 00 08 00
same 'the disk after a READ that sends data' "$before" "$(sum 0 16)"
get 'a WRITE that wants data' 0 1 4096 2a 00 00 00 20 00 00 00 08 00
ok "a CDB that goes the other way than its data gives nothing away"

get 'an opcode that is not there' 9 0 4096 c1 00 00 00 00 00 00 00 00 00
get 'a vendor opcode of group 7' 9 0 4096 e5 00 00 00 00 00 00 00 00 00
get 'a CDB of variable length' 5 0 4096 7f 00 00 00 00 00 00 18 0f ff 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
ok "CDBs of no known length are answered, and errors come without data"

kill -HUP "$(cat /tmp/serve.pid)"
wait_for 30 'the status' grep -q '^status' /tmp/serve.log
same 'entries refused' 0 "$(grep '^status' /tmp/serve.log | sed 's/^status //; s/ rss.*//' | json '.devices[0].refused')"
tcm_loop_remove vol
tcmu_remove $dir
kill -TERM "$(cat /tmp/serve.pid)"
ended serve 0
no_stuck_tasks
kernel_log_clean
ok "nothing is stuck, the kernel's log is clean"
