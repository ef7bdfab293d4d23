/*
 * The part of the kernel's io_uring interface that we use, as of Linux 6.1 (io_uring_setup(2), io_uring_enter(2)). Written down
 * here so that the addon builds against older kernel headers and finds out at run time what it may use.
 */
#ifndef THINLUN_URING_ABI_H
#define THINLUN_URING_ABI_H

#include <stddef.h>
#include <stdint.h>

/* The numbers are the same on every architecture since they came after the common table. */
#define URING_SYS_SETUP 425
#define URING_SYS_ENTER 426
#define URING_SYS_REGISTER 427

/* Submission queue entry. */
struct uring_sqe {
  uint8_t opcode;
  uint8_t flags;
  uint16_t ioprio;
  int32_t fd;
  uint64_t off;
  uint64_t addr;
  uint32_t len;
  uint32_t op_flags; /* rw_flags, fsync_flags */
  uint64_t user_data;
  uint16_t buf_index;
  uint16_t personality;
  int32_t splice_fd_in;
  uint64_t pad[2];
};
_Static_assert(sizeof(struct uring_sqe) == 64, "io_uring_sqe is 64 bytes");
_Static_assert(offsetof(struct uring_sqe, fd) == 4, "io_uring_sqe.fd");
_Static_assert(offsetof(struct uring_sqe, off) == 8, "io_uring_sqe.off");
_Static_assert(offsetof(struct uring_sqe, addr) == 16, "io_uring_sqe.addr");
_Static_assert(offsetof(struct uring_sqe, len) == 24, "io_uring_sqe.len");
_Static_assert(offsetof(struct uring_sqe, op_flags) == 28, "io_uring_sqe.fsync_flags");
_Static_assert(offsetof(struct uring_sqe, user_data) == 32, "io_uring_sqe.user_data");

/* Completion queue entry. */
struct uring_cqe {
  uint64_t user_data;
  int32_t res;
  uint32_t flags;
};
_Static_assert(sizeof(struct uring_cqe) == 16, "io_uring_cqe is 16 bytes");

struct uring_sq_offsets {
  uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, resv1;
  uint64_t user_addr;
};
_Static_assert(sizeof(struct uring_sq_offsets) == 40, "io_sqring_offsets is 40 bytes");

struct uring_cq_offsets {
  uint32_t head, tail, ring_mask, ring_entries, overflow, cqes, flags, resv1;
  uint64_t user_addr;
};
_Static_assert(sizeof(struct uring_cq_offsets) == 40, "io_cqring_offsets is 40 bytes");

struct uring_params {
  uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, resv[3];
  struct uring_sq_offsets sq_off;
  struct uring_cq_offsets cq_off;
};
_Static_assert(sizeof(struct uring_params) == 120, "io_uring_params is 120 bytes");

struct uring_probe_op {
  uint8_t op;
  uint8_t resv;
  uint16_t flags;
  uint32_t resv2;
};
struct uring_probe {
  uint8_t last_op;
  uint8_t ops_len;
  uint16_t resv;
  uint32_t resv2[3];
  struct uring_probe_op ops[64];
};
_Static_assert(sizeof(struct uring_probe_op) == 8, "io_uring_probe_op is 8 bytes");
_Static_assert(offsetof(struct uring_probe, ops) == 16, "io_uring_probe.ops");

enum {
  URING_OP_FSYNC = 3,
  URING_OP_FALLOCATE = 17,
  URING_OP_READ = 22,
  URING_OP_WRITE = 23,
};

#define URING_SQE_ASYNC (1u << 4)

#define URING_FSYNC_DATASYNC (1u << 0)

#define URING_SETUP_SUBMIT_ALL (1u << 7)     /* 5.18 */
#define URING_SETUP_COOP_TASKRUN (1u << 8)   /* 5.19 */

#define URING_FEATURE_SINGLE_MMAP (1u << 0)
#define URING_FEATURE_NODROP (1u << 1)
#define URING_FEATURE_SUBMIT_STABLE (1u << 2)

#define URING_OFFSET_SQ_RING 0ULL
#define URING_OFFSET_SQES 0x10000000ULL

#define URING_ENTER_GETEVENTS (1u << 0)
#define URING_REGISTER_PROBE 8
#define URING_OP_SUPPORTED (1u << 0)

#endif
