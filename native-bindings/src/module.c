#include "binding.h"

#include <stdlib.h>

struct instance *instance_retain(struct instance *instance) {
  instance->references++;
  return instance;
}

void instance_release(struct instance *instance) {
  if (--instance->references == 0) free(instance);
}

static void instance_finalize(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  instance_release(data);
}

/* Not NAPI_MODULE: this form may be loaded again in every worker thread. */
NAPI_MODULE_INIT(/* napi_env env, napi_value exports */) {
  struct instance *instance = calloc(1, sizeof *instance);
  if (instance != NULL) instance->references = 1;
  if (instance == NULL || napi_set_instance_data(env, instance, instance_finalize, NULL) != napi_ok) {
    free(instance);
    return throw_napi(env, "init");
  }
  bool registered = copy_register(env, exports, instance) && crc32c_register(env, exports, instance) && files_register(env, exports, instance) &&
                    mmap_register(env, exports, instance) && netlink_register(env, exports, instance) &&
                    notify_register(env, exports, instance) && pass_fds_register(env, exports, instance) &&
                     poll_register(env, exports, instance) &&
                    process_register(env, exports, instance) && uring_register(env, exports, instance) &&
                    work_register(env, exports, instance);
  return registered ? exports : NULL;
}
