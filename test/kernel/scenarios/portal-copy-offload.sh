# title: sg_xcopy, ddpt and sg_raw against the portal: copies between LUNs and within one by EXTENDED COPY and by ROD tokens
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh
modprobe sg

POOL=/tmp/pool PORTAL=127.0.0.1:3260
thinlun pool create $POOL --data-size 1G
thinlun volume create $POOL a --size 256M
thinlun volume create $POOL b --size 256M
thinlun volume create $POOL c --size 256M
start_thinlun $POOL --portal $PORTAL
start_iscsid
iscsiadm -m discovery -t st -p $PORTAL >/tmp/discovery
IQN=$(awk '{print $2; exit}' /tmp/discovery)
iscsiadm -m node -T $IQN -p $PORTAL -l
wait_for 30 'the disks' iscsi_disk $IQN 2
A=$(iscsi_disk $IQN 0) B=$(iscsi_disk $IQN 1) C=$(iscsi_disk $IQN 2)
# udev's links, by which sg_xcopy opens a disk.
mkdir -p /dev/block
for disk in $A $B $C; do ln -sf $disk /dev/block/$(cat /sys/class/block/$(basename $disk)/dev); done

sg_inq $A | grep -q '3PC=1' || fail "INQUIRY does not say 3PC: $(sg_inq $A)"
sg_vpd --page=tpc $A >/tmp/tpc || fail "no third-party copy page"
cat /tmp/tpc
grep -q 'WRITE USING TOKEN\|Write using token' /tmp/tpc || fail "the page does not list WRITE USING TOKEN"
sg_copy_results --params $A >/tmp/params || fail "no operating parameters"
cat /tmp/params
ok "sg_inq, sg_vpd and sg_copy_results read what is offered"

MIB=64 BLOCKS=$((64 * 2048))
dd if=/dev/urandom of=/tmp/data bs=1M count=$MIB 2>/dev/null
dd if=/tmp/data of=$A bs=1M oflag=direct 2>/dev/null
sync
used=$(pool_used $POOL)
# What is on the disk, not what the kernel has in its cache.
same_data() { # TITLE DISK SKIP_MIB
  blockdev --flushbufs $2
  dd if=$2 bs=1M skip=$3 count=$MIB iflag=direct 2>/dev/null | cmp - /tmp/data || fail "$1: the data is not the same"
}

sg_xcopy if=$A of=$B count=$BLOCKS bs=512 bpt=16384
same_data 'sg_xcopy between disks' $B 0
[ "$(pool_used $POOL)" -eq "$used" ] || fail "a copy of whole blocks took space: $used, then $(pool_used $POOL)"
# No device maps a block twice: within a disk the data is moved.
sg_xcopy if=$A of=$A seek=$((128 * 2048)) count=$BLOCKS bs=512 bpt=32768
same_data 'sg_xcopy within a disk' $A 128
[ "$(pool_used $POOL)" -eq $((2 * used)) ] || fail "a copy within a disk: $used, then $(pool_used $POOL)"
sg_xcopy if=$A of=$B seek=$((100 * 2048 + 7)) count=1000 bs=512
blockdev --flushbufs $B
dd if=$B bs=512 skip=$((100 * 2048 + 7)) count=1000 iflag=direct 2>/dev/null | cmp - /tmp/data -n 512000 || fail 'an unaligned copy differs'
ok "sg_xcopy: between two disks, within one, and where blocks do not fit; between disks without taking space"

# In one command: ddpt 0.97 sends every further one with the first one's LBAs.
ddpt --xcopy if=$A of=$B seek=$((128 * 2048)) count=65535 bs=512 2>/tmp/ddpt.log || { cat /tmp/ddpt.log; fail 'ddpt --xcopy'; }
blockdev --flushbufs $B
dd if=$B bs=512 skip=$((128 * 2048)) count=65535 iflag=direct 2>/dev/null | cmp - /tmp/data -n $((65535 * 512)) || fail 'ddpt --xcopy differs'
ok "ddpt: EXTENDED COPY"

# Of ODX, ddpt 0.97 writes the number of blocks a byte too far to the left; so what it would send is put together here.
be() { # BYTES NUMBER
  printf "%0$(($1 * 2))x" "$2"
}
bytes() { node -e 'process.stdout.write(Buffer.from(process.argv[1], "hex"))' "$1"; }
write_token() { # LBA DISK LIST_ID
  { bytes "$(be 2 550)$(be 6 0)$(be 8 0)"; cat /tmp/token; bytes "$(be 6 0)$(be 2 16)$(be 8 $1)$(be 4 $BLOCKS)$(be 4 0)"; } >/tmp/wut
  sg_raw -s 552 -i /tmp/wut $2 83 11 00 00 00 00 00 00 00 $3 00 00 02 28 00 00
}
bytes "$(be 2 30)$(be 12 0)$(be 2 16)$(be 8 0)$(be 4 $BLOCKS)$(be 4 0)" >/tmp/pt
sg_raw -s 32 -i /tmp/pt $A 83 10 00 00 00 00 00 00 00 07 00 00 00 20 00 00
sg_raw -r 1024 -o /tmp/rrti $A 84 07 00 00 00 07 00 00 00 00 00 00 04 00 00 00
dd if=/tmp/rrti of=/tmp/token bs=1 skip=38 count=512 2>/dev/null
[ "$(stat -c %s /tmp/token)" = 512 ] || fail "no token: $(od -An -tx1 /tmp/rrti)"
ddptctl --info --rtf=/tmp/token
ddptctl --all_toks $A
before=$(pool_used $POOL)
write_token $((128 * 2048)) $C 08
same_data 'a token' $C 128
[ "$(pool_used $POOL)" -eq "$before" ] || fail "a token took space: $before, then $(pool_used $POOL)"
dd if=/dev/zero of=$A bs=512 seek=5 count=1 oflag=direct conv=notrunc 2>/dev/null
if write_token 0 $C 09 >/tmp/revoked 2>&1; then fail "a token outlived a write to what it represents: $(cat /tmp/revoked)"; fi
grep -i 'revoked' /tmp/revoked || fail "not revoked: $(cat /tmp/revoked)"
ok "a token is written without taking space, and ends when its source is"

iscsiadm -m node -T $IQN -u
stop_thinlun
check_pool $POOL
no_stuck_tasks
kernel_log_clean
ok "thin_check is content"
