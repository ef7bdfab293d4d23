/* Memory that JavaScript sees as an ArrayBuffer but does not own: shared maps and aligned anonymous pages. */
#include "binding.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Outlives its ArrayBuffer's detachment: the engine calls the finalizer at a time of its own. */
struct mapping {
  struct instance *instance;
  struct mapping *next, *previous;
  void *map; /* NULL once unmapped */
  size_t map_size;
  void *begin; /* what the ArrayBuffer shows: [begin, begin + size) inside the map */
  size_t size;
  bool shared;
};

static void mapping_unmap(struct mapping *mapping) {
  if (mapping->map == NULL) return;
  munmap(mapping->map, mapping->map_size);
  mapping->map = NULL;
  if (mapping->previous != NULL)
    mapping->previous->next = mapping->next;
  else
    mapping->instance->mappings = mapping->next;
  if (mapping->next != NULL) mapping->next->previous = mapping->previous;
}

static void mapping_finalize(napi_env env, void *data, void *hint) {
  (void)env;
  (void)data;
  struct mapping *mapping = hint;
  mapping_unmap(mapping);
  instance_release(mapping->instance);
  free(mapping);
}

/* Makes the ArrayBuffer; takes the map over, also when it fails. */
static napi_value mapping_expose(napi_env env, struct instance *instance, const char *function, void *map,
                                 size_t map_size, void *begin, size_t size, bool shared) {
  struct mapping *mapping = calloc(1, sizeof *mapping);
  if (mapping == NULL) {
    munmap(map, map_size);
    return throw_errno(env, function, ENOMEM);
  }
  *mapping = (struct mapping){instance_retain(instance), instance->mappings, NULL, map, map_size, begin, size, shared};
  if (mapping->next != NULL) mapping->next->previous = mapping;
  instance->mappings = mapping;
  napi_value buffer;
  if (napi_create_external_arraybuffer(env, begin, size, mapping_finalize, mapping, &buffer) == napi_ok) return buffer;
  mapping_unmap(mapping);
  instance_release(instance);
  free(mapping);
  return throw_napi(env, function);
}

/* mapShared(fd, length): ArrayBuffer */
static napi_value map_shared(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  double length;
  if (!call_begin(env, info, "mapShared", 2, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_integer(&call, 1, 1, MAX_SAFE_INTEGER, &length))
    return NULL;
  size_t size = (size_t)length;
  void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return throw_errno(env, "mmap", errno);
  return mapping_expose(env, call.data, "mapShared", map, size, map, size, true);
}

/* unmap(buffer): munmap of a mapShared() buffer, which is detached. EBUSY while a ring's operation uses it. */
static napi_value unmap(napi_env env, napi_callback_info info) {
  struct call call;
  bool is_array_buffer = false;
  void *data = NULL;
  size_t size = 0;
  if (!call_begin(env, info, "unmap", 1, &call)) return NULL;
  if (napi_is_arraybuffer(env, call.arguments[0], &is_array_buffer) != napi_ok || !is_array_buffer)
    return throw_argument(env, "unmap", "argument 1 is not an ArrayBuffer");
  if (napi_get_arraybuffer_info(env, call.arguments[0], &data, &size) != napi_ok) return throw_napi(env, "unmap");
  const struct instance *instance = call.data;
  struct mapping *mapping = instance->mappings;
  while (mapping != NULL && !(mapping->shared && mapping->begin == data && mapping->size == size)) mapping = mapping->next;
  if (mapping == NULL || size == 0) return throw_argument(env, "unmap", "argument 1 is not a buffer of mapShared, or is unmapped");
  if (rings_use_memory(instance, mapping->begin, mapping->size) || copies_use_memory(instance, mapping->begin, mapping->size))
    return throw_errno(env, "unmap", EBUSY);
  /* Detached first: there is no moment at which JavaScript could reach memory that is gone. */
  if (napi_detach_arraybuffer(env, call.arguments[0]) != napi_ok) return throw_napi(env, "unmap");
  mapping_unmap(mapping);
  return make_undefined(env);
}

/* alignedBuffer(sizeBytes, alignment): ArrayBuffer, zeroed; pages are made real when first touched */
static napi_value aligned_buffer(napi_env env, napi_callback_info info) {
  struct call call;
  double wanted, alignment;
  if (!call_begin(env, info, "alignedBuffer", 2, &call) || !argument_integer(&call, 0, 1, 1099511627776.0, &wanted) ||
      !argument_integer(&call, 1, 1, 1073741824.0, &alignment))
    return NULL;
  size_t size = (size_t)wanted, step = (size_t)alignment, page = (size_t)sysconf(_SC_PAGESIZE);
  if ((step & (step - 1)) != 0) return throw_argument(env, "alignedBuffer", "argument 2 is not a power of two");
  size_t map_size = size + (step > page ? step : 0);
  uint8_t *map = mmap(NULL, map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return throw_errno(env, "mmap", errno);
  size_t skip = (step - (uintptr_t)map % step) % step;
  return mapping_expose(env, call.data, "alignedBuffer", map, map_size, map + skip, size, false);
}

static bool argument_word32(const struct call *call, uint32_t **word) {
  uint8_t *bytes;
  size_t size;
  double offset;
  if (!argument_bytes(call, 0, &bytes, &size)) return false;
  if (!argument_integer(call, 1, 0, (double)size - 4, &offset)) return false;
  uint8_t *at = bytes + (size_t)offset;
  if ((uintptr_t)at % sizeof **word != 0) {
    throw_argument(call->env, call->function, "the word is not aligned to 4 bytes");
    return false;
  }
  *word = (uint32_t *)(void *)at;
  return true;
}

/* atomicLoadAcquire32(bytes, offset): number */
static napi_value atomic_load(napi_env env, napi_callback_info info) {
  struct call call;
  uint32_t *word;
  if (!call_begin(env, info, "atomicLoadAcquire32", 2, &call) || !argument_word32(&call, &word)) return NULL;
  return make_number(env, __atomic_load_n(word, __ATOMIC_ACQUIRE));
}

/* atomicStoreRelease32(bytes, offset, value) */
static napi_value atomic_store(napi_env env, napi_callback_info info) {
  struct call call;
  uint32_t *word;
  double value;
  if (!call_begin(env, info, "atomicStoreRelease32", 3, &call) || !argument_word32(&call, &word) ||
      !argument_integer(&call, 2, 0, UINT32_MAX, &value))
    return NULL;
  __atomic_store_n(word, (uint32_t)value, __ATOMIC_RELEASE);
  return make_undefined(env);
}

static void relax(void) {
  for (int i = 0; i < 32; i++) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }
}

/* awaitChange32(bytes, offset, value, tries): whether the word is another one, now or after a while of microseconds. Others get the processor in between. */
static napi_value await_change(napi_env env, napi_callback_info info) {
  struct call call;
  uint32_t *word;
  double value, tries;
  if (!call_begin(env, info, "awaitChange32", 4, &call) || !argument_word32(&call, &word) ||
      !argument_integer(&call, 2, 0, UINT32_MAX, &value) || !argument_integer(&call, 3, 0, 1000, &tries))
    return NULL;
  bool changed = __atomic_load_n(word, __ATOMIC_ACQUIRE) != (uint32_t)value;
  for (uint32_t left = (uint32_t)tries; left > 0 && !changed; left--) {
    sched_yield();
    changed = __atomic_load_n(word, __ATOMIC_ACQUIRE) != (uint32_t)value;
    if (!changed) relax();
  }
  napi_value result;
  return napi_get_boolean(env, changed, &result) == napi_ok ? result : throw_napi(env, "awaitChange32");
}

bool mmap_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {
      {"mapShared", map_shared},
      {"unmap", unmap},
      {"alignedBuffer", aligned_buffer},
      {"atomicLoadAcquire32", atomic_load},
      {"atomicStoreRelease32", atomic_store},
      {"awaitChange32", await_change},
  };
  return add_functions(env, exports, entries, sizeof entries / sizeof entries[0], instance);
}
