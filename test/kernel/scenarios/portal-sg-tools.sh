# title: every command of sg3-utils, sdparm and ddpt that a disk should answer, and those that it should refuse
. /project/test/kernel/lib.sh

POOL=/tmp/pool PORTAL=127.0.0.1:3260
thinlun pool create $POOL --data-size 1G
thinlun volume create $POOL one --size 256M
thinlun volume create $POOL two --size 256M --removable
start_thinlun $POOL --portal $PORTAL
start_iscsid
iscsiadm -m discovery -t st -p $PORTAL >/tmp/discovery
IQN=$(awk '{print $2; exit}' /tmp/discovery)
iscsiadm -m node -T $IQN -p $PORTAL -l >/dev/null
wait_for 30 'the disks' iscsi_disk $IQN 1
D=$(iscsi_disk $IQN 0) R=$(iscsi_disk $IQN 1)
# Linux keeps the medium of a removable disk locked while its block device is open; the tools open what they are given.
G=/dev/$(ls /sys/block/${D##*/}/device/scsi_generic) E=/dev/$(ls /sys/block/${R##*/}/device/scsi_generic)
dd if=/dev/urandom of=/tmp/data bs=512 count=8 2>/dev/null
dd if=/dev/urandom of=/tmp/other bs=512 count=8 2>/dev/null
cat /tmp/data /tmp/other >/tmp/swap

# A row: the exit status, what it says, the command. Exit statuses of sg3-utils: 0 good, 5 ILLEGAL REQUEST, 6 UNIT ATTENTION,
# 9 INVALID COMMAND OPERATION CODE, 11 ABORTED COMMAND, 14 MISCOMPARE, 24 RESERVATION CONFLICT. (This version's sg_turs sends no command,
# and its sg_wr_mode fails with any contents.)
rows=0 wrong=0
table() {
  local status pattern command said
  while IFS='|' read -r status pattern command; do
    status=${status// /} pattern=$(sed 's/^ *//;s/ *$//' <<<"$pattern")
    [ -n "$status" ] || continue
    said=0
    eval "timeout 60 $command" >/tmp/said 2>&1 </dev/null || said=$?
    rows=$((rows + 1))
    if [ "$said" = "$status" ] && { [ -z "$pattern" ] || grep -q -E -- "$pattern" /tmp/said; }; then continue; fi
    wrong=$((wrong + 1))
    echo "WRONG:$command: status $said, expected $status; it should have said '$pattern', and said:"
    head -n 12 /tmp/said
  done
}

table <<'ROWS'
 0 | Product identification: THIN VOLUME | sg_inq $D
 0 | version=0x06 | sg_inq $D
 0 | Good | sg_raw $G 00 00 00 00 00 00
 0 | 2 lun entries | sg_luns $D
 0 | Number of logical blocks=524288 | sg_readcap $D
 0 | lbpme=1, lbprz=1 | sg_readcap --long $D
 0 | Capacity | scsi_readcap $D
 0 | | scsi_ready $D
 0 | total number of bad errors: 0 | scsi_mandat $D
 0 | /dev/sg0 +/dev/sda +THINLUN +THIN VOLUME | sg_map -i
 0 | Block limits | sg_vpd $D
 0 | designator type: NAA | sg_vpd --page=di $D
 0 | Management network addresses | sg_vpd --page=mna $D
 0 | Logical block provisioning | sg_vpd --all $D
 0 | Product serial number | sg_vpd --page=sn $D
 0 | SIMPSUP=1 | sg_vpd --page=ei $D
 0 | Optimal unmap granularity: 0x80 | sg_vpd --page=bl $D
 0 | Non-rotating | sg_vpd --page=bdc $D
 0 | Provisioning type: thin | sg_vpd --page=lbpv $D
 0 | Extended copy\(LID1\) | sg_vpd --page=0x8f $D
 0 | Caching, page_control | sg_modes -a $D
 0 | Caching, page_control | sg_modes --page=8 --six $D
 0 | Disconnect-Reconnect, page_control | sg_modes --page=2 $D
 0 | Sectors per track +256 | sginfo -f $G
 0 | Number of cylinders +16$ | sginfo -g $G
 0 | Rotational Rate +1 | sginfo -a $G
 0 | Control, page_control: default | sg_modes --page=0xa --control=2 $D
 0 | Supported log pages | sg_logs $D
 0 | Logical block provisioning | sg_logs --page=0xc $D
 0 | [Uu]sed LBA mapping | sg_logs --page=0xc $D
 0 | General [Ss]tatistics | sg_logs --page=0x19 $D
 0 | | sg_logs --all $D
 0 | | sg_logs --page=0x2f $D
 0 | Mode page policy | sg_vpd --page=mpp $D
 0 | SCSI [Pp]orts | sg_vpd --page=sp $D
 0 | Write\(16\) | sg_opcodes $D
 0 | Command is supported | sg_opcodes --opcode=0x8a $D
 0 | NOT supported | sg_opcodes --opcode=0xff $D
 0 | Logical unit reset | sg_opcodes --tmf $D
 0 | No Sense | sg_requests $D
 0 | active/optimized | sg_rtpg --decode $D
 0 | | sg_stpg --optimized --tp=1 $D
19 | Illegal | printf '\0\0\0\0\2\0\0\1' >/tmp/list; sg_raw -s 8 -i /tmp/list $G a4 0a 00 00 00 00 00 00 00 08 00 00
 0 | | sg_timestamp $D
 0 | | sg_seek --lba=100 $D
 0 | | sg_write_buffer --mode=data --in=/tmp/data --length=4096 $D
 0 | | sg_read_buffer --mode=data --length=4096 --raw $D >/tmp/back && cmp /tmp/back /tmp/data
 0 | Success | sg_test_rwbuf --size=4096 --times=10 $G
 0 | buffer capacity=16384 | sg_rbuf --size=1 $G
 0 | Exclusive Access, registrants only: 1 | sg_persist --in --report-capabilities $D
 0 | | sg_persist --out --register --param-sark=0x1234 $D
 0 | | sg_persist --out --reserve --param-rk=0x1234 --prout-type=5 $D
 0 | 0x1234 | sg_persist --in --read-keys $D
 0 | Write Exclusive, registrants only | sg_persist --in --read-reservation $D
 0 | iqn.2026-11.org.example:initiator,i,0x | sg_persist --in --read-full-status $D
24 | | sg_persist --out --release --param-rk=0x4321 --prout-type=5 $D
 0 | | sg_persist --out --release --param-rk=0x1234 --prout-type=5 $D
 0 | | sg_persist --out --clear --param-rk=0x1234 $D
 0 | NO registered reservation keys | sg_persist --in --read-keys $D
 0 | | sg_raw $G 16 00 00 00 00 00
 0 | | sg_raw $G 17 00 00 00 00 00
 0 | | sg_sync $D
 0 | | sg_sync --16 --lba=8 --count=8 $D
 0 | GOOD | sg_senddiag --test $D
 0 | 8.0 records out | sg_dd if=/tmp/data of=$G bs=512 count=8 seek=200 fua=2
 0 | 8.0 records out | sg_dd if=$G of=/tmp/back bs=512 count=8 skip=200 cdbsz=16
 0 | | cmp /tmp/data /tmp/back
 0 | 8.0 records out | sg_dd if=$G of=/tmp/back bs=512 count=8 skip=200 cdbsz=6
 0 | | cmp /tmp/data /tmp/back
 0 | 8.0 records out | sg_dd if=$G of=/tmp/back bs=512 count=8 skip=200 cdbsz=12 dio=1
 0 | | cmp /tmp/data /tmp/back
 0 | 8.0 records out | sgm_dd if=$G of=/tmp/back bs=512 count=8 skip=200
 0 | | cmp /tmp/data /tmp/back
 0 | 8.0 records out | sgp_dd if=$G of=/tmp/back bs=512 count=8 skip=200 bpt=1 thr=4
 0 | | cmp /tmp/data /tmp/back
 0 | 64.0 records in | sg_read if=$G bs=512 count=64 bpt=8
 0 | | sg_verify --lba=0 --count=8 $D
 0 | | sg_verify --16 --lba=0 --count=1024 --bpc=128 $D
22 | | sg_verify --16 --lba=524288 --count=1 $D
 0 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=200 --count=8 $D
14 | MISCOMPARE | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/other --lba=200 --count=8 -v $D
 0 | | sg_write_verify --16 --lba=208 --num=8 --in=/tmp/data $D
 0 | | sg_write_verify --lba=208 --num=8 --bytchk=1 --in=/tmp/data $D
 0 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=208 --count=8 $D
 0 | | sg_compare_and_write --in=/tmp/swap --lba=208 --num=8 --xferlen=8192 $D
 0 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/other --lba=208 --count=8 $D
14 | | sg_compare_and_write --in=/tmp/swap --lba=208 --num=8 --xferlen=8192 --quiet $D
 0 | | sg_write_same --16 --lba=1000 --num=50 --in=/tmp/data --xferlen=512 $D
 0 | | sg_write_same --10 --lba=1050 --num=1 --in=/tmp/data --xferlen=512 $D
 0 | | sg_write_same --16 --ndob --lba=1000 --num=8 $D
 0 | | sg_write_same --10 --unmap --lba=1024 --num=128 $D
 0 | | sg_write_same --16 --unmap --lba=1024 --num=128 $D
 0 | | sg_write_x --normal --16 --lba=304 --num=8 --in=/tmp/data $D
 0 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=304 --count=8 $D
 0 | | sg_write_x --atomic=0 --16 --lba=312 --num=8 --in=/tmp/other $D
 0 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/other --lba=312 --count=8 $D
 0 | | sg_write_x --normal --32 --lba=320 --num=8 --in=/tmp/data $D
 0 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=320 --count=8 $D
 0 | | sg_write_same --32 --lba=320 --num=8 --in=/tmp/other --xferlen=512 $D
14 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=320 --count=8 $D
 0 | | sg_write_x --or --lba=304 --num=8 --in=/tmp/other $D
14 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=304 --count=8 $D
 0 | | sg_write_x --atomic=0 --16 --lba=304 --num=8 --in=/tmp/data $D
 0 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=304 --count=8 $D
 0 | | sg_write_same --32 --lba=2000 --num=8 --in=/tmp/data --xferlen=512 $D
 0 | Logical block provisioning | sg_logs --page=0xc $D
 0 | LBA: 0xc8 +blocks: +[0-9]+ +mapped | sg_get_lba_status --lba=200 $D
 0 | | sg_unmap --force --lba=0 --num=2048 $D
 0 | LBA: 0xc8 +blocks: +[0-9]+ +deallocated | sg_get_lba_status --lba=200 $D
 0 | | sg_unmap --force --all=0,4096 $D
 0 | | sg_unmap --force --anchor --lba=0 --num=128 $D
 0 | LBA: 0x0 +blocks: +128 +mapped | sg_get_lba_status --lba=0 $D
 0 | | sg_sanitize --block --quick --wait $D
 0 | LBA: 0x0 +blocks: +524288 +deallocated | sg_get_lba_status --lba=0 $D
 0 | | sg_sanitize --overwrite --zero --quick --wait $E
 0 | LBA: 0x0 +blocks: +524288 +mapped | sg_get_lba_status --lba=0 $E
 0 | | sg_format --format --quick --wait $E
 0 | LBA: 0x0 +blocks: +524288 +deallocated | sg_get_lba_status --lba=0 $E
 0 | grown defect list: 0 | sg_reassign --grown $D
 0 | 8.0 records out | sg_dd if=/tmp/data of=$G bs=512 count=8
 0 | 2048 blocks | sg_xcopy if=$G of=$E bs=512 count=2048
 0 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=0 --count=8 $E
 0 | xcopy command done | ddpt if=$D of=$R bs=512 count=2048 seek=4096 --xcopy
 0 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=4096 --count=8 $E
 0 | 2048.0 records out | ddpt if=$G of=$E bs=512 count=2048 iflag=pt oflag=pt seek=8192
 0 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=8192 --count=8 $E
 0 | Copy from block device to block device | sg_copy_results --params $D
 0 | | sg_start --stop $D
 0 | | sg_start --start $D
 0 | | scsi_stop $D
 0 | | scsi_start $D
 0 | | sg_prevent --prevent=1 $E
 5 | | sg_start --eject $E
 0 | | sg_prevent --allow $E
 0 | | sg_start --eject $E
 2 | Medium not present | sg_raw $E 00 00 00 00 00 00
 0 | | sg_start --load $E
 0 | | sg_raw $E 00 00 00 00 00 00; sg_raw $E 00 00 00 00 00 00
 0 | WCE +1 +.cha: y | sdparm --get=WCE --quiet $D
 0 | show current mode page data | sg_wr_mode --page=8 $D
 0 | | sdparm --clear=WCE $D
 0 | WCE +0 | sdparm --get=WCE $D
 0 | | sdparm --set=WCE $D
 0 | | sdparm --clear=WCE --save $D
 0 | WCE +0 .*sav: +0 | sdparm --long --get=WCE $D
 0 | | sdparm --set=WCE --save $D
 0 | WCE +1 .*sav: +1 | sdparm --long --get=WCE $D
 0 | | sdparm --clear=WCE --save $D
 0 | WCE +0.*sav: *0 | sdparm --get=WCE $D
 0 | | sdparm --set=WCE --save $D
 0 | NAA | sdparm --inquiry $D
 0 | | sg_sanitize --block --quick --wait $E
14 | | sg_verify --ebytchk=1 --ndo=4096 --in=/tmp/data --lba=8192 --count=8 $E
 0 | | sg_format --format --quick --early $E
 0 | | sg_reset --device $D
 6 | | sg_raw $G 00 00 00 00 00 00
 0 | | sg_raw $G 00 00 00 00 00 00
 0 | Received 36 bytes | sg_raw -r 36 $D 12 00 00 00 24 00
 0 | sg0 | sg_map26 $D
 0 | scsi0 | sg_scan
 9 | | sg_prevent --allow $D
 9 | | sg_read_long --lba=0 $D
 9 | | sg_write_long --lba=0 $D
 9 | | sg_reassign --address=0 $D
 9 | | sg_rmsn $D
 9 | | sg_read_block_limits $D
 9 | | sg_rep_zones $D
 9 | | sg_zone --open --zone=0 $D
 9 | | sg_reset_wp --all $D
 9 | | sg_rep_density $D
 9 | | sg_get_config $D
 9 | | sg_ses $D
 9 | | sg_sat_identify $D
 9 | | sg_sat_read_gplog $D
 9 | | sg_z_act_query $D
 9 | | sg_read_attr $D
 5 | | sg_referrals $D
 5 | | sg_get_elem_status $D
 5 | | sg_stream_ctl $D
 5 | | sg_rep_pip $D
 9 | | sg_sat_phy_event $D
 9 | | sg_sat_set_features --feature=2 $D
 9 | | sg_sat_datetime $D
 9 | | sg_ses_microcode $D
 5 | | sg_bg_ctl $D
 5 | | sg_ident $D
 5 | | sg_safte $D
 5 | | sg_rdac $D
19 | | sg_emc_trespass $G
ROWS
[ $wrong = 0 ] || fail "$wrong of $rows commands were not answered as they should be"
ok "$rows commands are answered as a disk should"

# scan WHAT ARGUMENTS...: what the script with these arguments finds.
scan() {
  local what=$1
  shift
  timeout 60 rescan-scsi-bus.sh "$@" >/tmp/said 2>&1 </dev/null || { cat /tmp/said; fail "rescan-scsi-bus.sh $*"; }
  grep -q "^$what" /tmp/said || { cat /tmp/said; fail "rescan-scsi-bus.sh $* did not say '$what'"; }
}
scan '0 new or changed device'
thinlun volume create $POOL three --size 64M >/dev/null
scan '1 new or changed device'
disk=$(iscsi_disk $IQN 2)
same 'size of the new disk' $((64 << 20)) "$(blockdev --getsize64 $disk)"
thinlun volume resize $POOL three --size 96M >/dev/null
scan '1 remapped or resized device' -s
same 'size of the resized disk' $((96 << 20)) "$(blockdev --getsize64 $disk)"
thinlun volume delete $POOL three >/dev/null
scan '1 device(s) removed' -r
[ ! -e "/sys/block/${disk##*/}" ] || fail "$disk is still there"
ok "rescan-scsi-bus.sh finds a volume that is made, resized and deleted"

iscsiadm -m node -T $IQN -u >/dev/null
stop_thinlun
check_pool $POOL
no_stuck_tasks
ok "thin_check is content, nothing is stuck"
