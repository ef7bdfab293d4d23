/*
 * Range calls that may take long and that a ring cannot do everywhere, on libuv's thread pool:
 * rangeAsync(call, fd, offset, length, callback), callback(0 or a negative errno).
 */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>

enum range_call { PUNCH_HOLE, ZERO_RANGE, BLK_DISCARD, BLK_ZERO_OUT };

struct work {
  napi_async_work work;
  napi_ref callback;
  enum range_call range_call;
  int fd;
  uint64_t range[2];
  int result;
};

static int call_range(const struct work *work) {
  off_t offset = (off_t)work->range[0], length = (off_t)work->range[1];
  uint64_t range[2] = {work->range[0], work->range[1]};
  switch (work->range_call) {
    case PUNCH_HOLE:
      return fallocate(work->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
    case ZERO_RANGE:
      return fallocate(work->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
    case BLK_DISCARD:
      return ioctl(work->fd, BLKDISCARD, range);
    case BLK_ZERO_OUT:
      return ioctl(work->fd, BLKZEROOUT, range);
  }
  errno = EINVAL;
  return -1;
}

static void execute(napi_env env, void *data) {
  (void)env;
  struct work *work = data;
  int result;
  do {
    result = call_range(work);
  } while (result != 0 && errno == EINTR);
  work->result = result == 0 ? 0 : -errno;
}

static void complete(napi_env env, napi_status status, void *data) {
  struct work *work = data;
  napi_value callback, receiver, result;
  int outcome = status == napi_ok ? work->result : -ECANCELED;
  bool ready = napi_get_reference_value(env, work->callback, &callback) == napi_ok &&
               napi_get_global(env, &receiver) == napi_ok && napi_create_int32(env, outcome, &result) == napi_ok;
  napi_delete_reference(env, work->callback);
  napi_delete_async_work(env, work->work);
  free(work);
  /* Node opened the callback scope: an exception becomes its uncaught exception, microtasks run afterwards. */
  if (ready) napi_call_function(env, receiver, callback, 1, &result, NULL);
}

static napi_value range_async(napi_env env, napi_callback_info info) {
  static const char *const words[] = {"punch-hole", "zero-range", "blkdiscard", "blkzeroout", NULL};
  struct call call;
  int word, fd;
  double offset, length;
  if (!call_begin(env, info, "rangeAsync", 5, &call) || !argument_word(&call, 0, words, &word) ||
      !argument_fd(&call, 1, &fd) || !argument_integer(&call, 2, 0, MAX_SAFE_INTEGER, &offset) ||
      !argument_integer(&call, 3, 1, MAX_SAFE_INTEGER, &length) || !argument_function(&call, 4))
    return NULL;
  struct work *work = calloc(1, sizeof *work);
  if (work == NULL) return throw_errno(env, "rangeAsync", ENOMEM);
  work->range_call = (enum range_call)word;
  work->fd = fd;
  work->range[0] = (uint64_t)offset;
  work->range[1] = (uint64_t)length;
  napi_value name;
  if (napi_create_string_utf8(env, "thinlun:range", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_reference(env, call.arguments[4], 1, &work->callback) != napi_ok) {
    free(work);
    return throw_napi(env, "rangeAsync");
  }
  if (napi_create_async_work(env, NULL, name, execute, complete, work, &work->work) != napi_ok) {
    napi_delete_reference(env, work->callback);
    free(work);
    return throw_napi(env, "rangeAsync");
  }
  if (napi_queue_async_work(env, work->work) != napi_ok) {
    napi_delete_async_work(env, work->work);
    napi_delete_reference(env, work->callback);
    free(work);
    return throw_napi(env, "rangeAsync");
  }
  return make_undefined(env);
}

bool work_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {{"rangeAsync", range_async}};
  return add_functions(env, exports, entries, 1, instance);
}
