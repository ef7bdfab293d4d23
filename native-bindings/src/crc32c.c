/* CRC-32C (Castagnoli, RFC 3720 B.4), the register as it is: no inversion before or after. */
#include "binding.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* reflected */

#if defined(__x86_64__)
#include <nmmintrin.h>

static bool has_instruction(void) {
  return __builtin_cpu_supports("sse4.2");
}

__attribute__((target("sse4.2"))) static uint32_t update_hardware(uint32_t crc, const uint8_t *bytes, size_t length) {
  uint64_t wide = crc;
  for (; length >= 8; bytes += 8, length -= 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  crc = (uint32_t)wide;
  for (; length > 0; bytes++, length--) crc = _mm_crc32_u8(crc, *bytes);
  return crc;
}

#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>

#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif

static bool has_instruction(void) {
  return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}

__attribute__((target("+crc"))) static uint32_t update_hardware(uint32_t crc, const uint8_t *bytes, size_t length) {
  for (; length >= 8; bytes += 8, length -= 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    crc = __crc32cd(crc, word);
  }
  for (; length > 0; bytes++, length--) crc = __crc32cb(crc, *bytes);
  return crc;
}

#else

static bool has_instruction(void) {
  return false;
}

static uint32_t update_hardware(uint32_t crc, const uint8_t *bytes, size_t length) {
  (void)bytes;
  (void)length;
  return crc;
}

#endif

/* Slicing by eight: table[k][b] is the register after byte b and k zero bytes. */
static void fill_table(uint32_t table[8][256]) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) != 0 ? POLYNOMIAL : 0);
    table[0][byte] = crc;
  }
  for (int k = 1; k < 8; k++)
    for (uint32_t byte = 0; byte < 256; byte++)
      table[k][byte] = (table[k - 1][byte] >> 8) ^ table[0][table[k - 1][byte] & 255];
}

static uint32_t update_table(const uint32_t table[8][256], uint32_t crc, const uint8_t *bytes, size_t length) {
  for (; length >= 8; bytes += 8, length -= 8) {
    crc ^= (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    crc = table[7][crc & 255] ^ table[6][(crc >> 8) & 255] ^ table[5][(crc >> 16) & 255] ^ table[4][crc >> 24] ^
          table[3][bytes[4]] ^ table[2][bytes[5]] ^ table[1][bytes[6]] ^ table[0][bytes[7]];
  }
  for (; length > 0; bytes++, length--) crc = (crc >> 8) ^ table[0][(crc ^ *bytes) & 255];
  return crc;
}

/* crc32c(seed, bytes, offset, length): number */
static napi_value crc32c(napi_env env, napi_callback_info info) {
  struct call call;
  double seed;
  uint8_t *bytes;
  size_t length;
  if (!call_begin(env, info, "crc32c", 4, &call)) return NULL;
  if (!argument_integer(&call, 0, 0, UINT32_MAX, &seed)) return NULL;
  if (!argument_range(&call, 1, &bytes, &length)) return NULL;
  const struct instance *instance = call.data;
  uint32_t crc = instance->crc32c_hardware ? update_hardware((uint32_t)seed, bytes, length)
                                           : update_table(instance->crc32c_table, (uint32_t)seed, bytes, length);
  return make_number(env, crc);
}

bool crc32c_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {{"crc32c", crc32c}};
  instance->crc32c_hardware = has_instruction();
  if (!instance->crc32c_hardware) fill_table(instance->crc32c_table);
  return add_functions(env, exports, entries, 1, instance);
}
