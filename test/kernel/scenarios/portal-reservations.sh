# title: three nodes share a volume as fence_scsi has it: registered, reserved, one fenced under load, which outlives a kill of the server
# timeout: 240
# memory: 1G
. /project/test/kernel/lib.sh

POOL=/tmp/pool PORTAL=127.0.0.1:3260 WERO=5
thinlun pool create $POOL --data-size 256M
thinlun volume create $POOL shared --size 128M
start_thinlun $POOL --portal $PORTAL
start_iscsid

# Every node is an initiator of its own, by an interface with its own name.
for node in 1 2 3; do
  iscsiadm -m iface -I node$node --op=new >/dev/null
  iscsiadm -m iface -I node$node --op=update -n iface.initiatorname -v iqn.2026-11.org.example:node$node >/dev/null
done
iscsiadm -m discovery -t st -p $PORTAL -I node1 -I node2 -I node3 >/tmp/discovery
IQN=$(awk '{print $2; exit}' /tmp/discovery)
declare -A DISK
# disk_of NODE: its /dev/sdX.
disk_of() {
  local session
  for session in /sys/class/iscsi_session/session*; do
    [ "$(cat "$session/ifacename")" = "node$1" ] || continue
    local disk
    disk=$(compgen -G "$session/device/target*/*:0/block/*" | head -n 1)
    [ -n "$disk" ] && { echo "/dev/${disk##*/}"; return 0; }
  done
  return 1
}
for node in 1 2 3; do
  # Sessions are to come back and commands to wait for them: the server is going to be killed.
  iscsiadm -m node -T "$IQN" -p $PORTAL -I node$node -l >/dev/null
  wait_for 30 "the disk of node $node" disk_of $node
  DISK[$node]=$(disk_of $node)
done
ok "three initiators have the same volume: ${DISK[*]}"

# pr NODE ARGUMENTS...: PERSISTENT RESERVE OUT of a node.
pr() {
  local node=$1
  shift
  sg_persist --no-inquiry --out "$@" "${DISK[$node]}"
}
may_write() { dd if=/dev/zero of="${DISK[$1]}" bs=4k count=1 oflag=direct conv=fsync 2>/dev/null; }
may_read() { dd if="${DISK[$1]}" of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; }
keys() { sg_persist --no-inquiry --in --read-keys "${DISK[1]}" | grep -oE '^ +0x[0-9a-f]+' | tr -d ' ' | sort | tr '\n' ' '; }

for node in 1 2; do pr $node --register-ignore --param-sark=0xabc$node --param-aptpl; done
pr 1 --reserve --param-rk=0xabc1 --prout-type=$WERO
same 'the keys' '0xabc1 0xabc2 ' "$(keys)"
sg_persist --no-inquiry --in --read-reservation "${DISK[2]}" >/tmp/reservation
grep -q 'Write Exclusive, registrants only' /tmp/reservation || fail "$(cat /tmp/reservation)"
sg_persist --no-inquiry --in --report-capabilities "${DISK[2]}" >/tmp/capabilities
grep -qE 'Persist Through Power Loss Capable\(PTPL_C\): 1' /tmp/capabilities || fail "$(cat /tmp/capabilities)"
sg_persist --no-inquiry --in --read-full-status "${DISK[3]}" >/tmp/status
grep -q 'iqn.2026-11.org.example:node2' /tmp/status || fail "$(cat /tmp/status)"
for node in 1 2; do may_write $node || fail "node $node cannot write"; done
may_write 3 && fail 'a node that has not registered may write'
may_read 3 || fail 'a node that has not registered cannot read'
ok 'registered nodes write, the other one only reads; sg_persist understands every answer'

background load fio --name=v --filename="${DISK[2]}" --rw=randwrite --bs=16k --iodepth=8 --ioengine=libaio --direct=1 --time_based --runtime=60
sleep 2
alive load || fail 'the load of node 2 has ended early'
pr 1 --preempt-abort --param-rk=0xabc1 --param-sark=0xabc2 --prout-type=$WERO
wait_for 20 'the end of the load' bash -c '! kill -0 $(cat /tmp/load.pid)'
wait "$(cat /tmp/load.pid)" && fail 'the load of the fenced node ended well'
may_write 2 && fail 'the fenced node may write'
may_read 2 || fail 'the fenced node cannot read'
may_write 1 || fail 'the node that fenced it cannot write'
same 'the keys' '0xabc1 ' "$(keys)"
ok 'a node that is fenced under load writes no more, and reads'

kill_thinlun
start_thinlun $POOL --portal $PORTAL
wait_for 60 'the sessions' may_read 1
wait_for 60 'the sessions' may_read 2
may_write 2 && fail 'the fenced node may write after a kill of the server'
may_write 1 || fail 'the holder cannot write after a kill of the server'
same 'the keys' '0xabc1 ' "$(keys)"
ok 'after a kill of the server it is still fenced, and the holder still holds'

pr 2 --register-ignore --param-sark=0xabc2 --param-aptpl
may_write 2 || fail 'the node that has registered again cannot write'
thinlun volume reservations $POOL shared >/tmp/told
cat /tmp/told
same 'who holds it' 'iqn.2026-11.org.example:node1' "$(awk '$3 == "yes" {print $5}' /tmp/told)"
iscsiadm -m node -T "$IQN" -p $PORTAL -I node1 -u >/dev/null
thinlun volume reservations clear $POOL shared --initiator iqn.2026-11.org.example:node1 >/tmp/told
may_write 3 || fail 'a node cannot write though nobody holds the volume'
ok 'the administrator frees a volume whose holder is gone'

iscsiadm -m node -u >/dev/null
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok 'thin_check is content, nothing is stuck'
