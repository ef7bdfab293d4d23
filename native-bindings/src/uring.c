/*
 * io_uring on an event loop.
 *
 * createRing(entries, callback) gives an object:
 *
 *   queue    Float64Array, `entries` rows of eight numbers that the caller fills in before submit():
 *              0 slot            1 operation        2 file descriptor   3 offset in the file
 *              4 length, bytes   5 index of memory  6 offset in memory  7 fallocate mode
 *            Operations: 0 read, 1 write, 2 fdatasync, 3 fallocate; and two that are done in submit() where that is quick: 4 write, by pwrite(2);
 *            5 zero: fallocate, which is left out where the file has a hole. 6 read, by a thread of the kernel from the start: what the page cache has is
 *            read within submit() otherwise.
 *            A slot is any number below `entries` that is not in flight; its completion names it.
 *   results  Int32Array, pairs (slot, result): what reap() and the callback filled in.
 *   submit(count, memories, memoryCount)   starts the first `count` rows of the queue with one io_uring_enter(2);
 *            gives the number that the kernel did not take yet (EAGAIN): to be tried again with submit(0, [], 0).
 *   reap()   takes what has completed; gives the number of pairs.
 *   close()  EBUSY while operations are in flight.
 *
 * The callback is called from the event loop, with the number of pairs, when something has completed. The descriptor of the
 * ring itself is what is polled: no eventfd to read, and nothing wakes up for completions that reap() has taken.
 *
 * What was done at once has completed when submit() returns, and waits for reap(): the callback is not called for it. The page cache takes a write
 * in a microsecond or two, but many file systems never without waiting, as io_uring wants it (ext4): each such write would cost a hand-over to a thread
 * of the kernel, 15 us of CPU time and more. The price is that a write which has to wait, for dirty pages to be written or for a journal, makes the event loop
 * wait. So what is done at once is rationed: a slow call means that the next ones go through the ring, for a time that doubles up to seconds as long as that repeats.
 * The same for zeroing a hole, which fallocate(2) would fill with extents by way of a thread: to ask for it takes the lock that writes hold.
 *
 * `memories` are Uint8Arrays; their addresses are looked up in each submit(), so a detached one is refused, and memory need
 * not be registered or pinned. The caller keeps them referenced until the completion.
 */
#include "at-once.h"
#include "poll.h"
#include "uring-abi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_ENTRIES 4096
#define MAX_LENGTH 2147479552.0 /* what one read(2) or write(2) moves at most */
#define ROW_NUMBERS 8
/* What looking for a hole counts for in the ration. */
#define HOLE_CHECK_BYTES 4096

enum row { ROW_SLOT, ROW_OPERATION, ROW_FD, ROW_OFFSET, ROW_LENGTH, ROW_MEMORY, ROW_MEMORY_OFFSET, ROW_MODE };
enum operation {
  OPERATION_READ,
  OPERATION_WRITE,
  OPERATION_DATASYNC,
  OPERATION_FALLOCATE,
  OPERATION_WRITE_AT_ONCE,
  OPERATION_ZERO_AT_ONCE,
  OPERATION_READ_ASIDE,
  OPERATION_COUNT
};

struct memory {
  uint8_t *bytes;
  size_t size;
};

struct slot {
  struct memory memory;
  bool busy;
};

struct completion {
  uint32_t slot;
  int32_t result;
};

struct ring {
  struct watcher watcher; /* first: a watcher is cast to its ring */
  struct instance *instance;
  struct ring *next, *previous;
  int references; /* two buffers, three functions, the watcher */
  int fd;
  bool open;
  uint32_t entries;
  uint32_t in_flight;
  uint32_t unsubmitted; /* in the submission queue, not taken by the kernel */
  void *rings, *sqes_map;
  size_t rings_size, sqes_size;
  uint32_t *sq_tail, *cq_head, *cq_tail;
  uint32_t sq_mask, cq_mask;
  struct uring_sqe *sqes;
  struct uring_cqe *cqes;
  double *queue;
  int32_t *results;
  struct slot *slots;
  struct memory *memories;
  struct completion *done; /* at once, not reaped yet */
  uint32_t done_count;
  struct ration ration;
};

bool rings_use_memory(const struct instance *instance, const void *begin, size_t size) {
  uintptr_t from = (uintptr_t)begin, to = from + size;
  for (const struct ring *ring = instance->rings; ring != NULL; ring = ring->next) {
    for (uint32_t i = 0; i < ring->entries; i++) {
      const struct slot *slot = &ring->slots[i];
      uintptr_t at = (uintptr_t)slot->memory.bytes;
      if (slot->busy && at < to && at + slot->memory.size > from) return true;
    }
  }
  return false;
}

static int enter(const struct ring *ring, unsigned submit, unsigned minimum, unsigned flags) {
  return (int)syscall(URING_SYS_ENTER, ring->fd, submit, minimum, flags, NULL, 0);
}

/* Takes completions into `results`. */
static uint32_t take_completions(struct ring *ring) {
  uint32_t head = *ring->cq_head, count = ring->done_count;
  for (uint32_t i = 0; i < count; i++) {
    ring->results[2 * i] = (int32_t)ring->done[i].slot;
    ring->results[2 * i + 1] = ring->done[i].result;
    ring->slots[ring->done[i].slot].busy = false;
  }
  ring->done_count = 0;
  uint32_t tail = __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE);
  for (; head != tail; head++, count++) {
    const struct uring_cqe *cqe = &ring->cqes[head & ring->cq_mask];
    uint32_t slot = (uint32_t)cqe->user_data;
    ring->slots[slot].busy = false;
    ring->results[2 * count] = (int32_t)slot;
    ring->results[2 * count + 1] = cqe->res;
  }
  if (count > 0) {
    __atomic_store_n(ring->cq_head, head, __ATOMIC_RELEASE);
    ring->in_flight -= count;
    if (ring->in_flight == 0) uv_unref((uv_handle_t *)&ring->watcher.handle);
  }
  return count;
}

/* End of life */

static void ring_release(struct ring *ring) {
  if (--ring->references > 0) return;
  if (ring->previous != NULL)
    ring->previous->next = ring->next;
  else if (ring->instance->rings == ring)
    ring->instance->rings = ring->next;
  if (ring->next != NULL) ring->next->previous = ring->previous;
  if (ring->rings != NULL) munmap(ring->rings, ring->rings_size);
  if (ring->sqes_map != NULL) munmap(ring->sqes_map, ring->sqes_size);
  if (ring->fd >= 0) close(ring->fd);
  instance_release(ring->instance);
  free(ring->queue);
  free(ring->results);
  free(ring->slots);
  free(ring->memories);
  free(ring->done);
  free(ring);
}

/* Of a worker that is terminated, operations may be in flight: they use its memory, so it must not go before they end. */
static void ring_closed(struct watcher *watcher) {
  struct ring *ring = (struct ring *)watcher;
  ring->open = false;
  while (ring->in_flight > 0) {
    if (take_completions(ring) > 0) continue;
    int result = enter(ring, ring->unsubmitted, 1, URING_ENTER_GETEVENTS);
    if (result > 0) ring->unsubmitted -= (uint32_t)result;
    if (result < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) break;
  }
  close(ring->fd);
  ring->fd = -1;
  ring_release(ring);
}

static void ring_finalize(napi_env env, void *data, void *hint) {
  (void)env;
  (void)data;
  ring_release(hint);
}

/* Start of life */

/*
 * IORING_SETUP_DEFER_TASKRUN is left out on purpose: completions then wait for the next io_uring_enter(2), and a poll of the ring's
 * descriptor is not woken by them (seen on 6.18).
 */
static int setup(uint32_t entries, struct uring_params *params) {
  static const unsigned flags[] = {URING_SETUP_SUBMIT_ALL | URING_SETUP_COOP_TASKRUN, 0};
  int fd = -1;
  for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
    memset(params, 0, sizeof *params);
    params->flags = flags[i];
    fd = (int)syscall(URING_SYS_SETUP, entries, params);
    if (fd >= 0 || errno != EINVAL) break;
  }
  return fd;
}

static int check_support(int fd, const struct uring_params *params) {
  const uint32_t features = URING_FEATURE_SINGLE_MMAP | URING_FEATURE_NODROP | URING_FEATURE_SUBMIT_STABLE;
  static const uint8_t needed[] = {URING_OP_FSYNC, URING_OP_FALLOCATE, URING_OP_READ, URING_OP_WRITE};
  struct uring_probe probe;
  memset(&probe, 0, sizeof probe);
  if ((params->features & features) != features) return EOPNOTSUPP;
  if (syscall(URING_SYS_REGISTER, fd, URING_REGISTER_PROBE, &probe, sizeof probe.ops / sizeof probe.ops[0]) != 0)
    return errno == EINVAL ? EOPNOTSUPP : errno;
  for (size_t i = 0; i < sizeof needed; i++)
    if (needed[i] >= probe.ops_len || (probe.ops[needed[i]].flags & URING_OP_SUPPORTED) == 0) return EOPNOTSUPP;
  return 0;
}

static int map_rings(struct ring *ring, const struct uring_params *params) {
  size_t sq_size = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
  size_t cq_size = params->cq_off.cqes + params->cq_entries * sizeof(struct uring_cqe);
  ring->rings_size = sq_size > cq_size ? sq_size : cq_size;
  ring->sqes_size = params->sq_entries * sizeof(struct uring_sqe);
  const int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
  void *rings = mmap(NULL, ring->rings_size, protection, flags, ring->fd, URING_OFFSET_SQ_RING);
  if (rings == MAP_FAILED) return errno;
  ring->rings = rings;
  void *sqes = mmap(NULL, ring->sqes_size, protection, flags, ring->fd, URING_OFFSET_SQES);
  if (sqes == MAP_FAILED) return errno;
  ring->sqes_map = sqes;
  uint8_t *base = rings;
  ring->sq_tail = (uint32_t *)(void *)(base + params->sq_off.tail);
  ring->cq_head = (uint32_t *)(void *)(base + params->cq_off.head);
  ring->cq_tail = (uint32_t *)(void *)(base + params->cq_off.tail);
  ring->cqes = (struct uring_cqe *)(void *)(base + params->cq_off.cqes);
  ring->sqes = sqes;
  ring->sq_mask = params->sq_entries - 1;
  ring->cq_mask = params->cq_entries - 1;
  /* The indirection of the submission queue stays what it is: entry i is at place i. */
  uint32_t *array = (uint32_t *)(void *)(base + params->sq_off.array);
  for (uint32_t i = 0; i < params->sq_entries; i++) array[i] = i;
  return 0;
}

static int ring_open(struct ring *ring, uint32_t entries) {
  struct uring_params params;
  ring->entries = entries;
  ring->fd = setup(entries, &params);
  if (ring->fd < 0) return errno;
  int error = check_support(ring->fd, &params);
  if (error == 0) error = map_rings(ring, &params);
  if (error != 0) return error;
  ring->queue = calloc((size_t)entries * ROW_NUMBERS, sizeof *ring->queue);
  ring->results = calloc((size_t)entries * 2, sizeof *ring->results);
  ring->slots = calloc(entries, sizeof *ring->slots);
  ring->memories = calloc(entries, sizeof *ring->memories);
  ring->done = calloc(entries, sizeof *ring->done);
  if (ring->queue == NULL || ring->results == NULL || ring->slots == NULL || ring->memories == NULL || ring->done == NULL)
    return ENOMEM;
  return 0;
}

/* Operation */

/* NULL when the row may be submitted. Marks its slot busy then. */
static const char *check_row(struct ring *ring, const double *row, uint32_t memory_count) {
  if (!whole(row[ROW_SLOT], ring->entries - 1)) return "a slot is out of range";
  struct slot *slot = &ring->slots[(uint32_t)row[ROW_SLOT]];
  if (slot->busy) return "a slot is in flight";
  if (!whole(row[ROW_OPERATION], OPERATION_COUNT - 1)) return "an operation is unknown";
  if (!whole(row[ROW_FD], INT32_MAX)) return "a file descriptor is out of range";
  struct memory used = {NULL, 0};
  if (row[ROW_OPERATION] != OPERATION_DATASYNC) {
    if (!whole(row[ROW_OFFSET], MAX_SAFE_INTEGER)) return "a file offset is out of range";
    if (!whole(row[ROW_LENGTH], MAX_SAFE_INTEGER - row[ROW_OFFSET]) || row[ROW_LENGTH] == 0)
      return "a length is out of range";
  }
  if (row[ROW_OPERATION] == OPERATION_FALLOCATE || row[ROW_OPERATION] == OPERATION_ZERO_AT_ONCE) {
    if (!whole(row[ROW_MODE], INT32_MAX)) return "a fallocate mode is out of range";
  } else if (row[ROW_OPERATION] != OPERATION_DATASYNC) {
    if (row[ROW_LENGTH] > MAX_LENGTH) return "a length is out of range";
    if (!whole(row[ROW_MEMORY], (double)memory_count - 1)) return "an index of memory is out of range";
    const struct memory *memory = &ring->memories[(uint32_t)row[ROW_MEMORY]];
    if (!whole(row[ROW_MEMORY_OFFSET], (double)memory->size) ||
        row[ROW_LENGTH] > (double)memory->size - row[ROW_MEMORY_OFFSET])
      return "a range is outside its memory";
    used = (struct memory){memory->bytes + (size_t)row[ROW_MEMORY_OFFSET], (size_t)row[ROW_LENGTH]};
  }
  slot->memory = used;
  slot->busy = true;
  return NULL;
}

static void fill_sqe(const struct ring *ring, const double *row, struct uring_sqe *sqe) {
  uint32_t number = (uint32_t)row[ROW_SLOT];
  memset(sqe, 0, sizeof *sqe);
  sqe->fd = (int32_t)row[ROW_FD];
  sqe->user_data = number;
  switch ((enum operation)row[ROW_OPERATION]) {
    case OPERATION_DATASYNC:
      sqe->opcode = URING_OP_FSYNC;
      sqe->op_flags = URING_FSYNC_DATASYNC;
      return;
    case OPERATION_FALLOCATE:
    case OPERATION_ZERO_AT_ONCE:
      sqe->opcode = URING_OP_FALLOCATE;
      sqe->off = (uint64_t)row[ROW_OFFSET];
      sqe->addr = (uint64_t)row[ROW_LENGTH];
      sqe->len = (uint32_t)row[ROW_MODE];
      return;
    case OPERATION_READ_ASIDE:
      sqe->flags = URING_SQE_ASYNC;
      sqe->opcode = URING_OP_READ;
      break;
    case OPERATION_READ:
      sqe->opcode = URING_OP_READ;
      break;
    case OPERATION_WRITE:
    case OPERATION_WRITE_AT_ONCE:
    case OPERATION_COUNT:
      sqe->opcode = URING_OP_WRITE;
      break;
  }
  sqe->off = (uint64_t)row[ROW_OFFSET];
  sqe->addr = (uint64_t)(uintptr_t)ring->slots[number].memory.bytes;
  sqe->len = (uint32_t)row[ROW_LENGTH];
}

/* Does a row with a system call of its own. False: it goes to the ring. */
static bool do_at_once(struct ring *ring, const double *row) {
  uint32_t number = (uint32_t)row[ROW_SLOT];
  int fd = (int)row[ROW_FD];
  ssize_t result = 0;
  if (row[ROW_OPERATION] == OPERATION_WRITE_AT_ONCE) {
    const struct memory *memory = &ring->slots[number].memory;
    result = pwrite(fd, memory->bytes, memory->size, (off_t)row[ROW_OFFSET]);
    if (result < 0) result = -errno;
    ration_use(&ring->ration, memory->size);
  } else {
    off_t data = lseek(fd, (off_t)row[ROW_OFFSET], SEEK_DATA);
    bool hole = data < 0 ? errno == ENXIO : (double)data >= row[ROW_OFFSET] + row[ROW_LENGTH];
    ration_use(&ring->ration, HOLE_CHECK_BYTES);
    if (!hole) return false;
  }
  ring->done[ring->done_count++] = (struct completion){number, (int32_t)result};
  return true;
}

static bool may_be_at_once(const double *row) {
  return row[ROW_OPERATION] == OPERATION_WRITE_AT_ONCE || row[ROW_OPERATION] == OPERATION_ZERO_AT_ONCE;
}

static bool read_memories(struct ring *ring, struct call *call, uint32_t count) {
  napi_value array = call->arguments[1];
  bool is_array = false;
  if (napi_is_array(call->env, array, &is_array) != napi_ok || !is_array) {
    throw_argument(call->env, call->function, "argument 2 is not an array");
    return false;
  }
  for (uint32_t i = 0; i < count; i++) {
    if (napi_get_element(call->env, array, i, &call->arguments[1]) != napi_ok) {
      throw_napi(call->env, call->function);
      return false;
    }
    if (!argument_bytes(call, 1, &ring->memories[i].bytes, &ring->memories[i].size)) return false;
  }
  return true;
}

/* submit(count, memories, memoryCount): number of operations that the kernel did not take yet */
static napi_value ring_submit(napi_env env, napi_callback_info info) {
  struct call call;
  double count_value, memory_count_value;
  if (!call_begin(env, info, "submit", 3, &call)) return NULL;
  struct ring *ring = call.data;
  if (!ring->open) return throw_errno(env, "submit", EBADF);
  if (!argument_integer(&call, 0, 0, ring->entries - ring->in_flight, &count_value) ||
      !argument_integer(&call, 2, 0, ring->entries, &memory_count_value))
    return NULL;
  uint32_t count = (uint32_t)count_value, memory_count = (uint32_t)memory_count_value;
  if (!read_memories(ring, &call, memory_count)) return NULL;
  /* Getters of an array may run JavaScript, even close() or submit(). */
  if (!ring->open || count > ring->entries - ring->in_flight) return throw_errno(env, "submit", EBADF);
  bool at_once = false;
  for (uint32_t i = 0; i < count; i++) {
    const double *row = &ring->queue[(size_t)i * ROW_NUMBERS];
    const char *reason = check_row(ring, row, memory_count);
    if (reason != NULL) {
      /* All or nothing. */
      while (i-- > 0) ring->slots[(uint32_t)ring->queue[(size_t)i * ROW_NUMBERS]].busy = false;
      return throw_argument(env, "submit", reason);
    }
    if (may_be_at_once(row)) at_once = true;
  }
  uint32_t tail = *ring->sq_tail, queued = 0;
  if (at_once) ration_begin(&ring->ration);
  for (uint32_t i = 0; i < count; i++) {
    const double *row = &ring->queue[(size_t)i * ROW_NUMBERS];
    if (may_be_at_once(row) && ration_left(&ring->ration) && do_at_once(ring, row)) continue;
    fill_sqe(ring, row, &ring->sqes[(tail + queued++) & ring->sq_mask]);
  }
  if (at_once) ration_end(&ring->ration);
  __atomic_store_n(ring->sq_tail, tail + queued, __ATOMIC_RELEASE);
  if (count > 0 && ring->in_flight == 0) uv_ref((uv_handle_t *)&ring->watcher.handle);
  ring->in_flight += count;
  ring->unsubmitted += queued;
  while (ring->unsubmitted > 0) {
    int taken = enter(ring, ring->unsubmitted, 0, 0);
    if (taken < 0 && errno == EINTR) continue;
    if (taken < 0 && errno != EAGAIN && errno != EBUSY) return throw_errno(env, "io_uring_enter", errno);
    if (taken <= 0) break;
    ring->unsubmitted -= (uint32_t)taken;
  }
  return make_number(env, ring->unsubmitted);
}

/* reap(): number of pairs in `results` */
static napi_value ring_reap(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(env, info, "reap", 0, &call)) return NULL;
  struct ring *ring = call.data;
  if (!ring->open) return throw_errno(env, "reap", EBADF);
  return make_number(env, take_completions(ring));
}

/* close(). May be repeated. */
static napi_value ring_close(napi_env env, napi_callback_info info) {
  struct call call;
  if (!call_begin(env, info, "close", 0, &call)) return NULL;
  struct ring *ring = call.data;
  if (ring->open && ring->in_flight > 0) return throw_errno(env, "close", EBUSY);
  ring->open = false;
  watcher_stop(&ring->watcher);
  return make_undefined(env);
}

static void ring_event(struct watcher *watcher, int events) {
  (void)events;
  struct ring *ring = (struct ring *)watcher;
  uint32_t count = take_completions(ring);
  if (count > 0) watcher_call(watcher, count);
}

static bool add_view(napi_env env, napi_value object, const char *name, struct ring *ring, void *data, size_t count,
                     size_t element_size, napi_typedarray_type type) {
  napi_value buffer, view;
  ring->references++;
  if (napi_create_external_arraybuffer(env, data, count * element_size, ring_finalize, ring, &buffer) != napi_ok) {
    ring_release(ring);
    return false;
  }
  return napi_create_typedarray(env, type, count, buffer, 0, &view) == napi_ok &&
         napi_set_named_property(env, object, name, view) == napi_ok;
}

static bool add_method(napi_env env, napi_value object, const char *name, struct ring *ring, napi_callback callback) {
  napi_value function;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, ring, &function) != napi_ok) return false;
  ring->references++;
  if (napi_add_finalizer(env, function, ring, ring_finalize, ring, NULL) != napi_ok) {
    ring_release(ring);
    return false;
  }
  return napi_set_named_property(env, object, name, function) == napi_ok;
}

/* createRing(entries, callback: (count) => void): object. ENOSYS, EPERM, EOPNOTSUPP where io_uring cannot be used. */
static napi_value create_ring(napi_env env, napi_callback_info info) {
  struct call call;
  double entries;
  napi_value object;
  if (!call_begin(env, info, "createRing", 2, &call) || !argument_integer(&call, 0, 1, MAX_ENTRIES, &entries) ||
      !argument_function(&call, 1))
    return NULL;
  if (((uint32_t)entries & ((uint32_t)entries - 1)) != 0)
    return throw_argument(env, "createRing", "argument 1 is not a power of two");
  struct ring *ring = calloc(1, sizeof *ring);
  if (ring == NULL) return throw_errno(env, "createRing", ENOMEM);
  ring->references = 1; /* ours, until the watcher takes it over */
  ring->instance = instance_retain(call.data);
  int error = ring_open(ring, (uint32_t)entries);
  if (error != 0) {
    ring_release(ring);
    return throw_errno(env, "io_uring_setup", error);
  }
  ring->next = ring->instance->rings;
  if (ring->next != NULL) ring->next->previous = ring;
  ring->instance->rings = ring;
  if (napi_create_object(env, &object) != napi_ok ||
      !add_view(env, object, "queue", ring, ring->queue, ring->entries * ROW_NUMBERS, sizeof *ring->queue, napi_float64_array) ||
      !add_view(env, object, "results", ring, ring->results, ring->entries * 2, sizeof *ring->results, napi_int32_array) ||
      !add_method(env, object, "submit", ring, ring_submit) || !add_method(env, object, "reap", ring, ring_reap) ||
      !add_method(env, object, "close", ring, ring_close)) {
    ring_release(ring);
    return throw_napi(env, "createRing");
  }
  if (!watcher_start(env, &ring->watcher, ring->fd, UV_READABLE, call.arguments[1], "thinlun:ring", ring_event, ring_closed)) {
    if (!ring->watcher.closing) {
      ring->watcher.closing = true;
      ring_release(ring);
    }
    return NULL;
  }
  ring->open = true;
  uv_unref((uv_handle_t *)&ring->watcher.handle);
  return object;
}

bool uring_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {{"createRing", create_ring}};
  return add_functions(env, exports, entries, 1, instance);
}
