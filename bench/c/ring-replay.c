/*
 * The handler's side of a TCMU ring in C with pread: what ring-replay.mjs does, and the kernel's side as there. Layout of the ring: src/tcmu/mailbox.ts.
 * usage: ring-replay METADATA DATA DEVICE BLOCK_SIZE PAGES DEPTH SEED SECONDS COUNT (0: as many as the time allows)
 */
#include "thin-metadata.h"

#define MAILBOX 128
#define HEAD 12
#define TAIL 64
#define ENTRY 128
#define ENTRIES 1024
#define CDB_AT 112
#define PAGE 4096
#define PAGE_BLOCKS (PAGE / 512)
#define READ_10 0x28

struct iov { uint64_t base, length; };

static uint8_t *ring;
static uint32_t depth, pages, cleaned, head;
static uint64_t produced, completed, wanted;
static uint32_t sum;

static uint32_t load32(uint32_t at) { return __atomic_load_n((uint32_t *)(ring + at), __ATOMIC_ACQUIRE); }
static void store32(uint32_t at, uint32_t value) { __atomic_store_n((uint32_t *)(ring + at), value, __ATOMIC_RELEASE); }
static uint64_t data_at(uint32_t id) { return MAILBOX + ENTRIES * ENTRY + (uint64_t)id * PAGE; }

/* The kernel's side: one more READ(10) of a random page. */
static void produce(uint32_t id) {
  uint8_t *entry = ring + MAILBOX + head;
  uint32_t lba = random_below(pages) * PAGE_BLOCKS, one = 1, none = 0, operation = ENTRY | 1;
  uint64_t cdb_offset = MAILBOX + head + CDB_AT;
  struct iov iov = {data_at(id), PAGE};
  memcpy(entry, &operation, 4);
  memcpy(entry + 4, &id, 2);
  entry[6] = entry[7] = 0;
  memcpy(entry + 8, &one, 4);
  memcpy(entry + 12, &none, 4);
  memcpy(entry + 16, &none, 4);
  memcpy(entry + 24, &cdb_offset, 8);
  memcpy(entry + 48, &iov, sizeof iov);
  uint8_t *cdb = entry + CDB_AT;
  memset(cdb, 0, 16);
  cdb[0] = READ_10;
  cdb[2] = (uint8_t)(lba >> 24), cdb[3] = (uint8_t)(lba >> 16), cdb[4] = (uint8_t)(lba >> 8), cdb[5] = (uint8_t)lba;
  cdb[8] = PAGE_BLOCKS;
  head = (head + ENTRY) % (ENTRIES * ENTRY);
  produced++;
}

/* The kernel's side of a doorbell. */
static void doorbell(int more) {
  uint32_t tail = load32(TAIL);
  while (cleaned != tail) {
    const uint8_t *entry = ring + MAILBOX + cleaned;
    uint16_t id;
    uint32_t word;
    memcpy(&id, entry + 4, 2);
    if (entry[8] != 0) {
      fprintf(stderr, "status %u\n", entry[8]);
      exit(1);
    }
    memcpy(&word, ring + data_at(id), 4);
    sum += word;
    completed++;
    cleaned = (cleaned + ENTRY) % (ENTRIES * ENTRY);
    if (more && (wanted == 0 || produced < wanted)) produce(id);
  }
  store32(HEAD, head);
}

int main(int argc, char **argv) {
  if (argc != 10) return 2;
  const uint8_t *metadata = map_metadata(argv[1]);
  int data = open(argv[2], O_RDONLY);
  if (data < 0) die(argv[2]);
  uint64_t root = device_root(metadata, strtoull(argv[3], NULL, 10));
  uint64_t block_size = strtoull(argv[4], NULL, 10);
  pages = (uint32_t)strtoul(argv[5], NULL, 10);
  depth = (uint32_t)strtoul(argv[6], NULL, 10);
  random_seed((uint32_t)strtoul(argv[7], NULL, 10));
  double limit = strtod(argv[8], NULL);
  wanted = strtoull(argv[9], NULL, 10);
  uint64_t map_size = data_at(depth);
  ring = aligned_alloc(PAGE, (map_size + PAGE - 1) / PAGE * PAGE);
  if (ring == NULL || depth >= ENTRIES) return 2;
  memset(ring, 0, map_size);
  for (uint32_t id = 0; id < depth && (wanted == 0 || produced < wanted); id++) produce(id);
  store32(HEAD, head);

  double from = seconds_now(), cpu = cpu_seconds();
  uint32_t tail = 0;
  uint64_t turns = 0;
  int more = 1;
  while (completed < produced) {
    uint32_t until = load32(HEAD);
    while (tail != until) {
      uint8_t *entry = ring + MAILBOX + tail;
      uint32_t operation, iov_count;
      uint64_t cdb_offset;
      struct iov iov;
      memcpy(&operation, entry, 4);
      memcpy(&iov_count, entry + 8, 4);
      memcpy(&cdb_offset, entry + 24, 8);
      memcpy(&iov, entry + 48, sizeof iov);
      if ((operation & 7) != 1 || iov_count != 1 || iov.base < data_at(0) || iov.base + iov.length > map_size) exit(1);
      const uint8_t *cdb = ring + cdb_offset;
      uint64_t lba = (uint64_t)cdb[2] << 24 | (uint64_t)cdb[3] << 16 | (uint64_t)cdb[4] << 8 | cdb[5];
      uint64_t at = lba * 512, done = 0;
      uint8_t status = cdb[0] == READ_10 ? 0 : 2;
      while (done < iov.length && status == 0) {
        uint64_t in_block = (at + done) % block_size, take = block_size - in_block;
        if (take > iov.length - done) take = iov.length - done;
        uint64_t value = tree_lookup(metadata, root, (at + done) / block_size);
        if (value == UNMAPPED) memset(ring + iov.base + done, 0, take);
        else if (pread(data, ring + iov.base + done, take, (off_t)((value >> TIME_BITS) * block_size + in_block)) != (ssize_t)take) status = 2;
        done += take;
      }
      entry[7] = 0;
      entry[8] = status;
      memset(entry + 12, 0, 4);
      tail = (tail + ENTRY) % (ENTRIES * ENTRY);
    }
    store32(TAIL, tail);
    if ((++turns & 63) == 0 && wanted == 0 && seconds_now() - from >= limit) more = 0;
    doorbell(more);
  }
  double took = seconds_now() - from;
  printf("{\"rate\":%.1f,\"cpuUs\":%.4f,\"count\":%lu,\"sum\":%u}\n", (double)completed / took, (cpu_seconds() - cpu) * 1e6 / (double)completed,
         (unsigned long)completed, sum);
  return 0;
}
