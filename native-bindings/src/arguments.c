#include "binding.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static bool refuse(const struct call *call, size_t index, const char *expected) {
  char reason[160];
  snprintf(reason, sizeof reason, "argument %zu is not %s", index + 1, expected);
  throw_argument(call->env, call->function, reason);
  return false;
}

bool call_begin(napi_env env, napi_callback_info info, const char *function, size_t count, struct call *call) {
  call->env = env;
  call->function = function;
  size_t given = sizeof call->arguments / sizeof call->arguments[0];
  if (napi_get_cb_info(env, info, &given, call->arguments, NULL, &call->data) != napi_ok) {
    throw_napi(env, function);
    return false;
  }
  if (given == count) return true;
  char reason[64];
  snprintf(reason, sizeof reason, "expected %zu arguments, got %zu", count, given);
  throw_argument(env, function, reason);
  return false;
}

bool whole(double value, double maximum) {
  return value >= 0 && value <= maximum && value == (double)(uint64_t)value;
}

bool argument_integer(const struct call *call, size_t index, double minimum, double maximum, double *value) {
  /* As a double: Node-API's integer conversions turn NaN and infinity into zero. */
  if (napi_get_value_double(call->env, call->arguments[index], value) != napi_ok) return refuse(call, index, "a number");
  if (!(*value >= minimum && *value <= maximum) || *value != (double)(int64_t)*value) {
    char expected[96];
    snprintf(expected, sizeof expected, "a whole number from %.0f to %.0f", minimum, maximum);
    return refuse(call, index, expected);
  }
  return true;
}

bool argument_fd(const struct call *call, size_t index, int *fd) {
  double value;
  if (!argument_integer(call, index, 0, INT_MAX, &value)) return false;
  *fd = (int)value;
  return true;
}

bool argument_boolean(const struct call *call, size_t index, bool *value) {
  if (napi_get_value_bool(call->env, call->arguments[index], value) != napi_ok) return refuse(call, index, "a boolean");
  return true;
}

bool argument_word(const struct call *call, size_t index, const char *const *words, int *value) {
  char word[32];
  size_t length;
  if (napi_get_value_string_utf8(call->env, call->arguments[index], word, sizeof word, &length) != napi_ok)
    return refuse(call, index, "a string");
  for (int i = 0; words[i] != NULL; i++) {
    /* The length too: a string may hold a NUL, and one that was cut may not pass for a shorter one. */
    if (strlen(words[i]) == length && memcmp(words[i], word, length) == 0) {
      *value = i;
      return true;
    }
  }
  return refuse(call, index, "one of the words that are allowed");
}

bool argument_bytes(const struct call *call, size_t index, uint8_t **bytes, size_t *size) {
  bool is_typed_array = false;
  if (napi_is_typedarray(call->env, call->arguments[index], &is_typed_array) != napi_ok || !is_typed_array)
    return refuse(call, index, "a Uint8Array");
  napi_typedarray_type type;
  void *data = NULL;
  if (napi_get_typedarray_info(call->env, call->arguments[index], &type, size, &data, NULL, NULL) != napi_ok ||
      type != napi_uint8_array)
    return refuse(call, index, "a Uint8Array");
  /* Of a detached one the size is zero, so that no range but the empty one lies inside. */
  if (data == NULL) *size = 0;
  *bytes = data;
  return true;
}

bool argument_range(const struct call *call, size_t index, uint8_t **begin, size_t *length) {
  uint8_t *bytes;
  size_t size;
  double offset, count;
  if (!argument_bytes(call, index, &bytes, &size)) return false;
  if (!argument_integer(call, index + 1, 0, (double)size, &offset)) return false;
  if (!argument_integer(call, index + 2, 0, (double)size - offset, &count)) return false;
  *begin = size == 0 ? bytes : bytes + (size_t)offset;
  *length = (size_t)count;
  return true;
}

bool argument_function(const struct call *call, size_t index) {
  napi_valuetype type;
  if (napi_typeof(call->env, call->arguments[index], &type) != napi_ok || type != napi_function)
    return refuse(call, index, "a function");
  return true;
}

napi_value make_undefined(napi_env env) {
  napi_value value = NULL;
  napi_get_undefined(env, &value);
  return value;
}

napi_value make_number(napi_env env, double value) {
  napi_value result = NULL;
  napi_create_double(env, value, &result);
  return result;
}

bool add_functions(napi_env env, napi_value object, const struct export_entry *entries, size_t count, void *data) {
  for (size_t i = 0; i < count; i++) {
    napi_value function;
    if (napi_create_function(env, entries[i].name, NAPI_AUTO_LENGTH, entries[i].callback, data, &function) != napi_ok ||
        napi_set_named_property(env, object, entries[i].name, function) != napi_ok) {
      throw_napi(env, entries[i].name);
      return false;
    }
  }
  return true;
}
