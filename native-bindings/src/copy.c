/*
 * Copies within a file on libuv's thread pool, several of them in one piece of work:
 * copyAsync(fd, rows, count, memory, callback).
 *
 * `rows` are the bytes of `count` rows of six numbers: source, target, length, offset in `memory`, and the begin and length of what `memory` holds already
 * of that range and the source is not to overwrite. Each is read into its part of `memory` and written from there, as long as the page cache has the
 * source: otherwise the row ends with -EAGAIN, for somebody who can wait. callback(row, 0 or a negative errno) is called for each, all in one turn
 * of the event loop.
 */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_ROWS 64
#define ROW_NUMBERS 6
#define MAX_LENGTH 1073741824.0

enum row { ROW_SOURCE, ROW_TARGET, ROW_LENGTH, ROW_MEMORY, ROW_KEEP_AT, ROW_KEEP_LENGTH };

struct range_copy {
  off_t source, target;
  size_t length, keep_at, keep_length;
  uint8_t *memory;
  int result;
};

struct copies {
  struct copies *next, *previous;
  struct instance *instance;
  napi_async_work work;
  napi_ref callback, memory_reference;
  uint8_t *memory;
  size_t memory_size;
  int fd;
  uint32_t count;
  struct range_copy rows[];
};

bool copies_use_memory(const struct instance *instance, const void *begin, size_t size) {
  uintptr_t from = (uintptr_t)begin, to = from + size;
  for (const struct copies *copies = instance->copies; copies != NULL; copies = copies->next) {
    uintptr_t at = (uintptr_t)copies->memory;
    if (at < to && at + copies->memory_size > from) return true;
  }
  return false;
}

/* All or -errno; -EAGAIN where that would have to wait for the device. */
static int read_cached(int fd, uint8_t *memory, size_t length, off_t offset) {
  for (size_t done = 0; done < length;) {
    struct iovec piece = {memory + done, length - done};
    ssize_t result = preadv2(fd, &piece, 1, offset + (off_t)done, RWF_NOWAIT);
    if (result < 0 && errno == EINTR) continue;
    if (result < 0) return errno == EOPNOTSUPP ? -EAGAIN : -errno;
    if (result == 0) return -EIO;
    done += (size_t)result;
  }
  return 0;
}

static int write_all(int fd, const uint8_t *memory, size_t length, off_t offset) {
  for (size_t done = 0; done < length;) {
    ssize_t result = pwrite(fd, memory + done, length - done, offset + (off_t)done);
    if (result < 0 && errno == EINTR) continue;
    if (result <= 0) return result < 0 ? -errno : -EIO;
    done += (size_t)result;
  }
  return 0;
}

static int copy_row(int fd, const struct range_copy *row) {
  size_t after = row->keep_at + row->keep_length;
  int result = read_cached(fd, row->memory, row->keep_at, row->source);
  if (result == 0) result = read_cached(fd, row->memory + after, row->length - after, row->source + (off_t)after);
  if (result == 0) result = write_all(fd, row->memory, row->length, row->target);
  return result;
}

static void execute(napi_env env, void *data) {
  (void)env;
  struct copies *copies = data;
  for (uint32_t i = 0; i < copies->count; i++) copies->rows[i].result = copy_row(copies->fd, &copies->rows[i]);
}

static void copies_free(napi_env env, struct copies *copies) {
  if (copies->previous != NULL)
    copies->previous->next = copies->next;
  else if (copies->instance->copies == copies)
    copies->instance->copies = copies->next;
  if (copies->next != NULL) copies->next->previous = copies->previous;
  if (copies->callback != NULL) napi_delete_reference(env, copies->callback);
  if (copies->memory_reference != NULL) napi_delete_reference(env, copies->memory_reference);
  if (copies->work != NULL) napi_delete_async_work(env, copies->work);
  instance_release(copies->instance);
  free(copies);
}

static void complete(napi_env env, napi_status status, void *data) {
  struct copies *copies = data;
  napi_value callback, receiver, thrown = NULL;
  int results[MAX_ROWS];
  uint32_t count = copies->count;
  for (uint32_t i = 0; i < count; i++) results[i] = status == napi_ok ? copies->rows[i].result : -ECANCELED;
  bool ready = napi_get_reference_value(env, copies->callback, &callback) == napi_ok && napi_get_global(env, &receiver) == napi_ok;
  copies_free(env, copies);
  for (uint32_t i = 0; ready && i < count; i++) {
    napi_value arguments[2];
    if (napi_create_uint32(env, i, &arguments[0]) != napi_ok || napi_create_int32(env, results[i], &arguments[1]) != napi_ok) break;
    if (napi_call_function(env, receiver, callback, 2, arguments, NULL) == napi_ok) continue;
    /* One that throws must not keep the others from their end. */
    napi_value exception;
    if (napi_get_and_clear_last_exception(env, &exception) == napi_ok && thrown == NULL) thrown = exception;
  }
  if (thrown != NULL) napi_throw(env, thrown);
}

/* NULL when the row is fine. */
static const char *take_row(struct range_copy *to, const double *row, uint8_t *memory, size_t size) {
  if (!whole(row[ROW_LENGTH], MAX_LENGTH) || row[ROW_LENGTH] == 0) return "a length is out of range";
  if (!whole(row[ROW_SOURCE], MAX_SAFE_INTEGER - row[ROW_LENGTH]) || !whole(row[ROW_TARGET], MAX_SAFE_INTEGER - row[ROW_LENGTH]))
    return "a file offset is out of range";
  if (!whole(row[ROW_MEMORY], (double)size) || row[ROW_LENGTH] > (double)size - row[ROW_MEMORY]) return "a range is outside its memory";
  if (!whole(row[ROW_KEEP_AT], row[ROW_LENGTH]) || !whole(row[ROW_KEEP_LENGTH], row[ROW_LENGTH] - row[ROW_KEEP_AT]))
    return "what is kept is outside its range";
  to->source = (off_t)row[ROW_SOURCE];
  to->target = (off_t)row[ROW_TARGET];
  to->length = (size_t)row[ROW_LENGTH];
  to->memory = memory + (size_t)row[ROW_MEMORY];
  to->keep_at = (size_t)row[ROW_KEEP_AT];
  to->keep_length = (size_t)row[ROW_KEEP_LENGTH];
  return NULL;
}

/* Links the work to what it needs and starts it; false with an exception pending. */
static bool start(napi_env env, struct copies *copies, const struct call *call) {
  napi_value name;
  return napi_create_string_utf8(env, "thinlun:copy", NAPI_AUTO_LENGTH, &name) == napi_ok &&
         napi_create_reference(env, call->arguments[3], 1, &copies->memory_reference) == napi_ok &&
         napi_create_reference(env, call->arguments[4], 1, &copies->callback) == napi_ok &&
         napi_create_async_work(env, NULL, name, execute, complete, copies, &copies->work) == napi_ok &&
         napi_queue_async_work(env, copies->work) == napi_ok;
}

static napi_value copy_async(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint8_t *rows, *memory;
  size_t rows_size, memory_size;
  double count;
  if (!call_begin(env, info, "copyAsync", 5, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_bytes(&call, 1, &rows, &rows_size) || !argument_integer(&call, 2, 1, MAX_ROWS, &count) ||
      !argument_bytes(&call, 3, &memory, &memory_size) || !argument_function(&call, 4))
    return NULL;
  if ((size_t)count * ROW_NUMBERS * sizeof(double) > rows_size) return throw_argument(env, "copyAsync", "argument 3 is out of range");
  struct copies *copies = calloc(1, sizeof *copies + (size_t)count * sizeof copies->rows[0]);
  if (copies == NULL) return throw_errno(env, "copyAsync", ENOMEM);
  copies->fd = fd;
  copies->count = (uint32_t)count;
  copies->memory = memory;
  copies->memory_size = memory_size;
  for (uint32_t i = 0; i < copies->count; i++) {
    double row[ROW_NUMBERS];
    memcpy(row, rows + i * sizeof row, sizeof row);
    const char *reason = take_row(&copies->rows[i], row, memory, memory_size);
    if (reason == NULL) continue;
    free(copies);
    return throw_argument(env, "copyAsync", reason);
  }
  copies->instance = instance_retain(call.data);
  copies->next = copies->instance->copies;
  if (copies->next != NULL) copies->next->previous = copies;
  copies->instance->copies = copies;
  if (!start(env, copies, &call)) {
    copies_free(env, copies);
    return throw_napi(env, "copyAsync");
  }
  return make_undefined(env);
}

bool copy_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {{"copyAsync", copy_async}};
  return add_functions(env, exports, entries, 1, instance);
}
