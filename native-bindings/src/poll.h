/* A uv_poll watcher on the event loop of a napi_env, for pollStart() and for rings. */
#ifndef THINLUN_POLL_H
#define THINLUN_POLL_H

#include "binding.h"

#include <uv.h>

/* What a callback is told, beside UV_READABLE and UV_DISCONNECT: the descriptor failed, the watcher has stopped. */
#define POLL_ERROR_EVENT 8

struct watcher;
typedef void (*watcher_event)(struct watcher *watcher, int events);
/* Called once, last, when the loop has let go of the handle. */
typedef void (*watcher_closed)(struct watcher *watcher);

/* Embedded in its owner. */
struct watcher {
  uv_poll_t handle;
  napi_env env;
  napi_ref callback;
  napi_async_context context;
  napi_async_cleanup_hook_handle hook;
  watcher_event on_event;
  watcher_closed on_closed;
  bool closing;
};

/*
 * Starts to watch `fd`. Also stops by itself when the event loop's environment is torn down; `on_closed` is called in
 * either case. On failure throws, returns false, and calls nothing.
 */
bool watcher_start(napi_env env, struct watcher *watcher, int fd, int events, napi_value callback, const char *name,
                   watcher_event on_event, watcher_closed on_closed);
/* Does nothing when already stopped. */
void watcher_stop(struct watcher *watcher);
/* Calls the JavaScript callback with a number; microtasks and process.nextTick run after it. Opens its own handle scope. */
void watcher_call(struct watcher *watcher, double argument);

#endif
