/* Random lookups in a device's mapping tree. usage: lookup METADATA DEVICE KEYS SEED SECONDS COUNT (0: as many as the time allows) */
#include "thin-metadata.h"

#define BATCH 10000

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  const uint8_t *metadata = map_metadata(argv[1]);
  uint64_t root = device_root(metadata, strtoull(argv[2], NULL, 10));
  uint32_t keys = (uint32_t)strtoul(argv[3], NULL, 10), sum = 0;
  double limit = strtod(argv[5], NULL);
  uint64_t wanted = strtoull(argv[6], NULL, 10), count = 0;
  random_seed((uint32_t)strtoul(argv[4], NULL, 10));
  /* Every leaf is in the processor's and the kernel's tables before it counts. */
  if (wanted == 0) for (uint32_t key = 0; key < keys; key += 16) sum += (uint32_t)tree_lookup(metadata, root, key);
  sum = 0;
  double from = seconds_now(), cpu = cpu_seconds(), took = 0;
  do {
    uint64_t batch = wanted > 0 && wanted - count < BATCH ? wanted - count : BATCH;
    for (uint64_t i = 0; i < batch; i++) {
      uint64_t value = tree_lookup(metadata, root, random_below(keys));
      if (value != UNMAPPED) sum += (uint32_t)(value >> TIME_BITS);
    }
    count += batch;
    took = seconds_now() - from;
  } while (wanted > 0 ? count < wanted : took < limit);
  printf("{\"rate\":%.1f,\"cpuUs\":%.4f,\"count\":%lu,\"sum\":%u}\n", (double)count / took, (cpu_seconds() - cpu) * 1e6 / (double)count,
         (unsigned long)count, sum);
  return 0;
}
