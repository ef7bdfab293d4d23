/* Calls on file descriptors that node:fs does not have. */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* flock(fd, 'exclusive' | 'shared' | 'unlock', nonblocking) */
static napi_value lock_file(napi_env env, napi_callback_info info) {
  static const char *const words[] = {"exclusive", "shared", "unlock", NULL};
  static const int operations[] = {LOCK_EX, LOCK_SH, LOCK_UN};
  struct call call;
  int fd, word;
  bool nonblocking;
  if (!call_begin(env, info, "flock", 3, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_word(&call, 1, words, &word) || !argument_boolean(&call, 2, &nonblocking))
    return NULL;
  int result;
  do {
    result = flock(fd, operations[word] | (nonblocking ? LOCK_NB : 0));
  } while (result != 0 && errno == EINTR);
  return result == 0 ? make_undefined(env) : throw_errno(env, "flock", errno);
}

/* fallocate(fd, mode, offset, length) */
static napi_value allocate_file(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  double mode, offset, length;
  if (!call_begin(env, info, "fallocate", 4, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_integer(&call, 1, 0, INT32_MAX, &mode) || !argument_integer(&call, 2, 0, MAX_SAFE_INTEGER, &offset) ||
      !argument_integer(&call, 3, 1, MAX_SAFE_INTEGER, &length))
    return NULL;
  int result;
  do {
    result = fallocate(fd, (int)mode, (off_t)offset, (off_t)length);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? make_undefined(env) : throw_errno(env, "fallocate", errno);
}

/* blkGetSize64(fd): number */
static napi_value block_size_bytes(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint64_t size = 0;
  if (!call_begin(env, info, "blkGetSize64", 1, &call) || !argument_fd(&call, 0, &fd)) return NULL;
  if (ioctl(fd, BLKGETSIZE64, &size) != 0) return throw_errno(env, "BLKGETSIZE64", errno);
  if ((double)size > MAX_SAFE_INTEGER) return throw_errno(env, "BLKGETSIZE64", EFBIG);
  return make_number(env, (double)size);
}

/* blkSectorSize(fd): number, of the logical sector */
static napi_value block_sector_size(napi_env env, napi_callback_info info) {
  struct call call;
  int fd, size = 0;
  if (!call_begin(env, info, "blkSectorSize", 1, &call) || !argument_fd(&call, 0, &fd)) return NULL;
  if (ioctl(fd, BLKSSZGET, &size) != 0) return throw_errno(env, "BLKSSZGET", errno);
  return make_number(env, size);
}

static napi_value block_range(napi_env env, napi_callback_info info, const char *name, unsigned long request,
                              const char *request_name) {
  struct call call;
  int fd;
  double offset, length;
  if (!call_begin(env, info, name, 3, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_integer(&call, 1, 0, MAX_SAFE_INTEGER, &offset) || !argument_integer(&call, 2, 1, MAX_SAFE_INTEGER, &length))
    return NULL;
  uint64_t range[2] = {(uint64_t)offset, (uint64_t)length};
  return ioctl(fd, request, range) == 0 ? make_undefined(env) : throw_errno(env, request_name, errno);
}

/* blkDiscard(fd, offset, length) */
static napi_value block_discard(napi_env env, napi_callback_info info) {
  return block_range(env, info, "blkDiscard", BLKDISCARD, "BLKDISCARD");
}

/* blkZeroOut(fd, offset, length) */
static napi_value block_zero_out(napi_env env, napi_callback_info info) {
  return block_range(env, info, "blkZeroOut", BLKZEROOUT, "BLKZEROOUT");
}

/* readFd(fd, bytes, offset, length): number of bytes, 0 at the end, -1 for EAGAIN */
static napi_value read_fd(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint8_t *bytes;
  size_t length;
  if (!call_begin(env, info, "readFd", 4, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_range(&call, 1, &bytes, &length))
    return NULL;
  ssize_t count;
  do {
    count = read(fd, bytes, length);
  } while (count < 0 && errno == EINTR);
  if (count < 0 && errno != EAGAIN) return throw_errno(env, "read", errno);
  return make_number(env, (double)count);
}

/* writeFd(fd, bytes, offset, length): number of bytes, -1 for EAGAIN */
static napi_value write_fd(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint8_t *bytes;
  size_t length;
  if (!call_begin(env, info, "writeFd", 4, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_range(&call, 1, &bytes, &length))
    return NULL;
  ssize_t count;
  do {
    count = write(fd, bytes, length);
  } while (count < 0 && errno == EINTR);
  if (count < 0 && errno != EAGAIN) return throw_errno(env, "write", errno);
  return make_number(env, (double)count);
}

bool files_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {
      {"flock", lock_file},
      {"fallocate", allocate_file},
      {"blkGetSize64", block_size_bytes},
      {"blkSectorSize", block_sector_size},
      {"blkDiscard", block_discard},
      {"blkZeroOut", block_zero_out},
      {"readFd", read_fd},
      {"writeFd", write_fd},
  };
  return add_functions(env, exports, entries, sizeof entries / sizeof entries[0], instance);
}
