/* Rationing of system calls that the event loop makes itself, because they are a matter of microseconds unless they have to wait. */
#ifndef THINLUN_AT_ONCE_H
#define THINLUN_AT_ONCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ration {
  uint64_t now_ns, latest_ns;         /* of this batch: the time, and when it has used up its share */
  uint64_t pause_ends_ns, pause_ns;   /* there are none before that; how long the next pause takes */
  uint32_t quick_count;               /* since a slow one */
  uint32_t watched;                   /* batches in which it is looked at what a slow one waits for */
  size_t unmeasured, measured_bytes;  /* bytes since the time was asked for, and after how many it is asked for again */
  int64_t waits;                      /* of this thread, before the batch; -1: not looked at */
};

void ration_begin(struct ration *ration);
/* Whether one more may be made now. */
bool ration_left(const struct ration *ration);
/* One was made, of so many bytes. The time is asked for once for several small ones. */
void ration_use(struct ration *ration, size_t bytes);
void ration_end(struct ration *ration);

#endif
