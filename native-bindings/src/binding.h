/*
 * What every file of the addon shares. Rules: an export validates its arguments, makes one system call and
 * reports; it decides nothing. There is no mutable global: state of an event loop (a worker thread has its own)
 * hangs on `struct instance`, so that the addon can be loaded any number of times in one process.
 */
#ifndef THINLUN_BINDING_H
#define THINLUN_BINDING_H

#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct copies;
struct mapping;
struct ring;

/* One per loaded addon and event loop; freed with the last thing that points at it. */
struct instance {
  size_t references;
  /* Doubly linked lists of what is open, newest first. */
  struct mapping *mappings;
  struct ring *rings;
  struct copies *copies;
  /* CRC-32C: tables for processors without the instruction. */
  bool crc32c_hardware;
  uint32_t crc32c_table[8][256];
};

struct instance *instance_retain(struct instance *instance);
void instance_release(struct instance *instance);

#define MAX_SAFE_INTEGER 9007199254740991.0

/* errors.c: each throws a JavaScript error and returns NULL, so that `return throw_...` ends an export. */
napi_value throw_errno(napi_env env, const char *syscall, int error_number);
napi_value throw_argument(napi_env env, const char *function, const char *reason);
/* For Node-API calls that fail only when JavaScript can no longer run or memory is out. */
napi_value throw_napi(napi_env env, const char *function);
/* "EIO" of EIO; "EUNKNOWN" of what has no name here. Never NULL. */
const char *errno_name(int error_number);

/* arguments.c: each throws and returns false when the value is not what its name says. */
struct call {
  napi_env env;
  const char *function; /* name of the export, for messages */
  napi_value arguments[8];
  void *data;
};
bool call_begin(napi_env env, napi_callback_info info, const char *function, size_t count, struct call *call);
/* Whether a number of a row is an integer from 0 to `maximum`. Throws nothing. */
bool whole(double value, double maximum);
bool argument_integer(const struct call *call, size_t index, double minimum, double maximum, double *value);
bool argument_fd(const struct call *call, size_t index, int *fd);
bool argument_boolean(const struct call *call, size_t index, bool *value);
/* One word of `words` (ends with NULL); gives its index. */
bool argument_word(const struct call *call, size_t index, const char *const *words, int *value);
/* A Uint8Array. The pointer is valid during this call only. */
bool argument_bytes(const struct call *call, size_t index, uint8_t **bytes, size_t *size);
/* A Uint8Array and a range (offset, length) inside it, from three arguments in a row. */
bool argument_range(const struct call *call, size_t index, uint8_t **begin, size_t *length);
bool argument_function(const struct call *call, size_t index);

napi_value make_undefined(napi_env env);
napi_value make_number(napi_env env, double value);

/* Adds functions, all with `data`, to an object. */
struct export_entry {
  const char *name;
  napi_callback callback;
};
bool add_functions(napi_env env, napi_value object, const struct export_entry *entries, size_t count, void *data);

/* One for each theme; false with an exception pending. */
bool copy_register(napi_env env, napi_value exports, struct instance *instance);
bool crc32c_register(napi_env env, napi_value exports, struct instance *instance);
bool files_register(napi_env env, napi_value exports, struct instance *instance);
bool mmap_register(napi_env env, napi_value exports, struct instance *instance);
bool netlink_register(napi_env env, napi_value exports, struct instance *instance);
bool pass_fds_register(napi_env env, napi_value exports, struct instance *instance);
bool notify_register(napi_env env, napi_value exports, struct instance *instance);
bool poll_register(napi_env env, napi_value exports, struct instance *instance);
bool process_register(napi_env env, napi_value exports, struct instance *instance);
bool uring_register(napi_env env, napi_value exports, struct instance *instance);
bool work_register(napi_env env, napi_value exports, struct instance *instance);

/* uring.c: whether an operation in flight on any ring of the instance uses a byte of [begin, begin + size). */
bool rings_use_memory(const struct instance *instance, const void *begin, size_t size);
/* copy.c: the same for copies on the thread pool. */
bool copies_use_memory(const struct instance *instance, const void *begin, size_t size);

#endif
