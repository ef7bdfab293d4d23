#include "at-once.h"

#include <sys/resource.h>
#include <time.h>

/* Time in one batch; what counts as slow; for how long there are none then, at least and at most; how many quick ones make good for it. */
#define BUDGET_NS 1000000
#define SLOW_NS 2000000
#define MIN_PAUSE_NS 20000000ULL
#define MAX_PAUSE_NS 5000000000ULL
#define QUICK_ONES 256
/* Bytes after which the time is asked for: at first in a batch, and at most. */
#define MIN_MEASURED_BYTES 16384
#define MAX_MEASURED_BYTES 65536
/* Batches after a slow one in which the next one is looked at. */
#define WATCHED_BATCHES 1024

static uint64_t monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Times that this thread gave its processor up to wait for something: not when another thread was given it. */
static int64_t thread_waits(void) {
  struct rusage usage;
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : 0;
}

void ration_begin(struct ration *ration) {
  ration->waits = -1;
  if (ration->watched > 0) {
    ration->watched--;
    ration->waits = thread_waits();
  }
  ration->now_ns = monotonic_ns();
  ration->latest_ns = ration->now_ns + BUDGET_NS;
  ration->measured_bytes = MIN_MEASURED_BYTES;
}

bool ration_left(const struct ration *ration) {
  return ration->now_ns >= ration->pause_ends_ns && ration->now_ns < ration->latest_ns;
}

void ration_use(struct ration *ration, size_t bytes) {
  ration->unmeasured += bytes;
  if (ration->unmeasured >= ration->measured_bytes) ration_end(ration);
}

void ration_end(struct ration *ration) {
  if (ration->unmeasured == 0) return;
  ration->unmeasured = 0;
  uint64_t before = ration->now_ns;
  ration->now_ns = monotonic_ns();
  if (ration->now_ns - before > SLOW_NS) {
    /* It may have been a neighbour's turn; that costs a system call to tell, so it is looked at from the first slow one on. */
    int64_t before_waits = ration->waits;
    ration->waits = thread_waits();
    ration->watched = WATCHED_BATCHES;
    if (before_waits < 0 || ration->waits == before_waits) return;
    if (ration->pause_ns < MIN_PAUSE_NS) ration->pause_ns = MIN_PAUSE_NS;
    ration->pause_ends_ns = ration->now_ns + ration->pause_ns;
    ration->pause_ns = ration->pause_ns * 2 > MAX_PAUSE_NS ? MAX_PAUSE_NS : ration->pause_ns * 2;
    ration->quick_count = 0;
    return;
  }
  if (++ration->quick_count >= QUICK_ONES) ration->pause_ns = MIN_PAUSE_NS;
  /* As it goes on as quickly as that, the next look may be later. */
  if (ration->measured_bytes < MAX_MEASURED_BYTES) ration->measured_bytes *= 2;
}
