/*
 * The mapping trees of dm-thin metadata, read in memory: what a lookup costs in C. Layout: docs/on-disk-format.md.
 *
 * A node: 32 bytes of header {u32 csum, u32 flags, u64 blocknr, u32 nr_entries, u32 max_entries, u32 value_size, u32 padding}, u64 keys[max_entries], u64
 * values[...]. flags: 1 internal, 2 leaf. The superblock has the root of the tree of devices at byte 320; its values are the roots
 * of the devices' trees; their values are data block << 24 | time.
 */
#ifndef THIN_METADATA_H
#define THIN_METADATA_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NODE_SIZE 4096
#define MAPPING_ROOT 320
#define TIME_BITS 24
#define UNMAPPED UINT64_MAX

struct node {
  uint32_t csum, flags;
  uint64_t blocknr;
  uint32_t nr_entries, max_entries, value_size, padding;
  uint64_t keys[];
};

static void die(const char *what) {
  perror(what);
  exit(1);
}

static const uint8_t *map_metadata(const char *path) {
  struct stat status;
  int fd = open(path, O_RDONLY);
  if (fd < 0 || fstat(fd, &status) != 0) die(path);
  void *memory = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (memory == MAP_FAILED) die(path);
  return memory;
}

/* The value of `key`, or UNMAPPED. */
static uint64_t tree_lookup(const uint8_t *metadata, uint64_t root, uint64_t key) {
  uint64_t number = root;
  for (;;) {
    const struct node *node = (const struct node *)(metadata + number * NODE_SIZE);
    const uint64_t *values = node->keys + node->max_entries;
    int low = -1, high = (int)node->nr_entries;
    while (high - low > 1) {
      int middle = low + (high - low) / 2;
      if (node->keys[middle] <= key) low = middle;
      else high = middle;
    }
    if (low < 0) return UNMAPPED;
    if (node->flags & 2) return node->keys[low] == key ? values[low] : UNMAPPED;
    number = values[low];
  }
}

static uint64_t device_root(const uint8_t *metadata, uint64_t device) {
  uint64_t root;
  memcpy(&root, metadata + MAPPING_ROOT, sizeof root);
  root = tree_lookup(metadata, root, device);
  if (root == UNMAPPED) {
    fprintf(stderr, "there is no device %lu\n", (unsigned long)device);
    exit(1);
  }
  return root;
}

/* The numbers of bench/lib/random.mjs. */
static uint32_t random_state;
static void random_seed(uint32_t seed) { random_state = (seed * 2654435761u) | 1; }
static uint32_t random_below(uint32_t limit) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state % limit;
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double cpu_seconds(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

#endif
