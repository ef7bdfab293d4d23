#include "poll.h"

#include <errno.h>
#include <stdlib.h>

static void handle_closed(uv_handle_t *handle) {
  struct watcher *watcher = handle->data;
  if (watcher->hook != NULL) napi_remove_async_cleanup_hook(watcher->hook);
  watcher->on_closed(watcher);
}

static void release_references(struct watcher *watcher) {
  if (watcher->context != NULL) napi_async_destroy(watcher->env, watcher->context);
  if (watcher->callback != NULL) napi_delete_reference(watcher->env, watcher->callback);
  watcher->context = NULL;
  watcher->callback = NULL;
}

void watcher_stop(struct watcher *watcher) {
  if (watcher->closing) return;
  watcher->closing = true;
  release_references(watcher);
  uv_close((uv_handle_t *)&watcher->handle, handle_closed);
}

static void environment_cleanup(napi_async_cleanup_hook_handle hook, void *data) {
  (void)hook;
  watcher_stop(data);
}

static void polled(uv_poll_t *handle, int status, int events) {
  struct watcher *watcher = handle->data;
  watcher->on_event(watcher, status < 0 ? POLL_ERROR_EVENT : events);
}

bool watcher_start(napi_env env, struct watcher *watcher, int fd, int events, napi_value callback, const char *name,
                   watcher_event on_event, watcher_closed on_closed) {
  *watcher = (struct watcher){.env = env, .on_event = on_event, .on_closed = on_closed};
  uv_loop_t *loop;
  napi_value resource_name;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok ||
      napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &resource_name) != napi_ok ||
      napi_async_init(env, NULL, resource_name, &watcher->context) != napi_ok ||
      napi_create_reference(env, callback, 1, &watcher->callback) != napi_ok) {
    throw_napi(env, name);
    release_references(watcher);
    return false;
  }
  int error = uv_poll_init(loop, &watcher->handle, fd);
  if (error != 0) {
    release_references(watcher);
    throw_errno(env, "uv_poll_init", -error);
    return false;
  }
  /* From here the loop knows the handle, and only uv_close() gives it back. */
  watcher->handle.data = watcher;
  error = uv_poll_start(&watcher->handle, events, polled);
  if (error != 0 || napi_add_async_cleanup_hook(env, environment_cleanup, watcher, &watcher->hook) != napi_ok) {
    if (error != 0)
      throw_errno(env, "uv_poll_start", -error);
    else
      throw_napi(env, name);
    watcher_stop(watcher);
    return false;
  }
  return true;
}

void watcher_call(struct watcher *watcher, double argument) {
  napi_env env = watcher->env;
  napi_handle_scope scope;
  if (watcher->closing || napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value callback, receiver, value;
  if (napi_get_reference_value(env, watcher->callback, &callback) == napi_ok &&
      napi_get_global(env, &receiver) == napi_ok && napi_create_double(env, argument, &value) == napi_ok &&
      napi_make_callback(env, watcher->context, receiver, callback, 1, &value, NULL) == napi_pending_exception) {
    /* As an exception in any other callback of the event loop: 'uncaughtException', else the process ends. */
    napi_value error;
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
}

/* pollStart() and pollStop() */

struct poll {
  struct watcher watcher;
  struct instance *instance;
  int references; /* the JavaScript handle and the loop's */
};

static const napi_type_tag poll_tag = {0x9d9c2b6d6b0c4f6aULL, 0x8f0b1c1f5a7e4d21ULL};

static void poll_release(struct poll *poll) {
  if (--poll->references > 0) return;
  instance_release(poll->instance);
  free(poll);
}

static void poll_closed(struct watcher *watcher) {
  poll_release((struct poll *)watcher);
}

static void poll_finalize(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  poll_release(data);
}

static void poll_event(struct watcher *watcher, int events) {
  watcher_call(watcher, events);
}

/* pollStart(fd, callback: (events) => void): object. Runs until pollStop(), and keeps the event loop alive until then. */
static napi_value poll_start(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  napi_value handle;
  if (!call_begin(env, info, "pollStart", 2, &call) || !argument_fd(&call, 0, &fd) || !argument_function(&call, 1))
    return NULL;
  struct poll *poll = calloc(1, sizeof *poll);
  if (poll == NULL) return throw_errno(env, "pollStart", ENOMEM);
  poll->instance = instance_retain(call.data);
  poll->references = 1;
  if (napi_create_object(env, &handle) != napi_ok || napi_type_tag_object(env, handle, &poll_tag) != napi_ok ||
      napi_wrap(env, handle, poll, poll_finalize, NULL, NULL) != napi_ok) {
    poll_release(poll);
    return throw_napi(env, "pollStart");
  }
  poll->references++;
  if (!watcher_start(env, &poll->watcher, fd, UV_READABLE | UV_DISCONNECT, call.arguments[1], "thinlun:poll", poll_event,
                     poll_closed)) {
    /* Not started, or already on its way to poll_closed(). */
    if (!poll->watcher.closing) {
      poll->watcher.closing = true;
      poll_release(poll);
    }
    return NULL;
  }
  return handle;
}

/* pollStop(handle). The callback is not called any more, also when this is called from inside it. May be repeated. */
static napi_value poll_stop(napi_env env, napi_callback_info info) {
  struct call call;
  bool is_ours = false;
  napi_valuetype type;
  struct poll *poll;
  if (!call_begin(env, info, "pollStop", 1, &call)) return NULL;
  if (napi_typeof(env, call.arguments[0], &type) != napi_ok || type != napi_object ||
      napi_check_object_type_tag(env, call.arguments[0], &poll_tag, &is_ours) != napi_ok || !is_ours ||
      napi_unwrap(env, call.arguments[0], (void **)&poll) != napi_ok)
    return throw_argument(env, "pollStop", "argument 1 is not a handle of pollStart");
  watcher_stop(&poll->watcher);
  return make_undefined(env);
}

bool poll_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {{"pollStart", poll_start}, {"pollStop", poll_stop}};
  return add_functions(env, exports, entries, sizeof entries / sizeof entries[0], instance);
}
