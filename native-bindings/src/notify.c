/* Messages to a service manager (sd_notify(3)). What they say is TypeScript's business. */
#include "binding.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* sendDatagram(address, bytes): one datagram to the UNIX socket `address`; a name that begins with a zero byte is an abstract one. */
static napi_value send_datagram(napi_env env, napi_callback_info info) {
  struct call call;
  uint8_t *path, *bytes;
  size_t path_size, size;
  if (!call_begin(env, info, "sendDatagram", 2, &call) || !argument_bytes(&call, 0, &path, &path_size) ||
      !argument_bytes(&call, 1, &bytes, &size))
    return NULL;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (path_size == 0 || path_size >= sizeof address.sun_path)
    return throw_argument(env, "sendDatagram", "argument 1 is not a socket's address");
  memcpy(address.sun_path, path, path_size);
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_size + (path[0] == 0 ? 0 : 1));
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return throw_errno(env, "socket", errno);
  ssize_t count;
  do {
    count = sendto(fd, bytes, size, MSG_NOSIGNAL, (struct sockaddr *)&address, length);
  } while (count < 0 && errno == EINTR);
  int error_number = errno;
  close(fd);
  if (count < 0) return throw_errno(env, "sendto", error_number);
  return make_undefined(env);
}

bool notify_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {{"sendDatagram", send_datagram}};
  return add_functions(env, exports, entries, sizeof entries / sizeof entries[0], instance);
}
