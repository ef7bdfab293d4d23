/* A generic netlink socket. What is said over it is TypeScript's business. */
#include "binding.h"

#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

static napi_value close_and_throw(napi_env env, int fd, const char *syscall) {
  int error_number = errno;
  close(fd);
  return throw_errno(env, syscall, error_number);
}

/* genlSocket(portId, receiveBufferSize): number, a bound file descriptor. Port 0: the kernel chooses. */
static napi_value genl_socket(napi_env env, napi_callback_info info) {
  struct call call;
  double port, bytes;
  if (!call_begin(env, info, "genlSocket", 2, &call) || !argument_integer(&call, 0, 0, UINT32_MAX, &port) ||
      !argument_integer(&call, 1, 1, INT32_MAX, &bytes))
    return NULL;
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_GENERIC);
  if (fd < 0) return throw_errno(env, "socket", errno);
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_pid = (uint32_t)port};
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) return close_and_throw(env, fd, "bind");
  int size = (int)bytes, on = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0 &&
      setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) != 0)
    return close_and_throw(env, fd, "setsockopt");
  if (setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on) != 0) return close_and_throw(env, fd, "setsockopt");
  return make_number(env, fd);
}

/* netlinkAddMembership(fd, group) */
static napi_value add_membership(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  double value;
  if (!call_begin(env, info, "netlinkAddMembership", 2, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_integer(&call, 1, 1, INT32_MAX, &value))
    return NULL;
  int group = (int)value;
  if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
    return throw_errno(env, "setsockopt", errno);
  return make_undefined(env);
}

/* netlinkSend(fd, bytes): one message to the kernel */
static napi_value netlink_send(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint8_t *bytes;
  size_t size;
  if (!call_begin(env, info, "netlinkSend", 2, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_bytes(&call, 1, &bytes, &size))
    return NULL;
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  ssize_t count;
  do {
    count = sendto(fd, bytes, size, 0, (struct sockaddr *)&kernel, sizeof kernel);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return throw_errno(env, "sendto", errno);
  if ((size_t)count != size) return throw_errno(env, "sendto", EMSGSIZE);
  return make_undefined(env);
}

/*
 * netlinkReceive(fd, bytes): number of bytes of one datagram, -1 for EAGAIN. EMSGSIZE when it did not fit (the rest is
 * lost). A datagram that did not come from the kernel is EPERM: any process may send to us.
 */
static napi_value netlink_receive(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint8_t *bytes;
  size_t size;
  if (!call_begin(env, info, "netlinkReceive", 2, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_bytes(&call, 1, &bytes, &size))
    return NULL;
  struct sockaddr_nl from;
  memset(&from, 0, sizeof from);
  struct iovec vector = {.iov_base = bytes, .iov_len = size};
  struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &vector, .msg_iovlen = 1};
  ssize_t count;
  do {
    count = recvmsg(fd, &message, 0);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return errno == EAGAIN ? make_number(env, -1) : throw_errno(env, "recvmsg", errno);
  if ((message.msg_flags & MSG_TRUNC) != 0) return throw_errno(env, "recvmsg", EMSGSIZE);
  if (from.nl_pid != 0) return throw_errno(env, "recvmsg", EPERM);
  return make_number(env, (double)count);
}

bool netlink_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {
      {"genlSocket", genl_socket},
      {"netlinkAddMembership", add_membership},
      {"netlinkSend", netlink_send},
      {"netlinkReceive", netlink_receive},
  };
  return add_functions(env, exports, entries, sizeof entries / sizeof entries[0], instance);
}
