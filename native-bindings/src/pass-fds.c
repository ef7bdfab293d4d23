/* File descriptors between processes, over a connected Unix stream socket. What they are is TypeScript's business. */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* SCM_MAX_FD of the kernel: what one message can carry. */
#define MAX_FDS 253

/* duplicateFd(fd): number, the same open file description; closed on exec */
static napi_value duplicate_fd(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  if (!call_begin(env, info, "duplicateFd", 1, &call) || !argument_fd(&call, 0, &fd)) return NULL;
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  return copy >= 0 ? make_number(env, copy) : throw_errno(env, "fcntl", errno);
}

/* An argument with native 32-bit descriptors, at most MAX_FDS. */
static bool argument_fds(const struct call *call, size_t index, uint8_t **bytes, size_t *count) {
  size_t size;
  if (!argument_bytes(call, index, bytes, &size)) return false;
  if (size % sizeof(int) != 0 || size / sizeof(int) > MAX_FDS) {
    throw_argument(call->env, call->function, "descriptors are up to 253 words of 32 bits");
    return false;
  }
  *count = size / sizeof(int);
  return true;
}

/* sendWithFds(socket, bytes, offset, length, fds): bytes sent, -1 for EAGAIN; the descriptors go with the first byte */
static napi_value send_with_fds(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint8_t *bytes, *fds;
  size_t length, count;
  if (!call_begin(env, info, "sendWithFds", 5, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_range(&call, 1, &bytes, &length) || !argument_fds(&call, 4, &fds, &count))
    return NULL;
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
  } control;
  memset(&control, 0, sizeof control);
  struct iovec vector = {.iov_base = bytes, .iov_len = length};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno != EAGAIN) return throw_errno(env, "sendmsg", errno);
  return make_number(env, (double)sent);
}

/*
 * receiveWithFds(socket, bytes, offset, length, fds): bytes received, 0 at the end, -1 for EAGAIN. Descriptors that came fill `fds`
 * from its begin, the rest of it is -1. EMSGSIZE, with all of them closed, when there were more.
 */
static napi_value receive_with_fds(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  uint8_t *bytes, *fds;
  size_t length, count;
  if (!call_begin(env, info, "receiveWithFds", 5, &call) || !argument_fd(&call, 0, &fd) ||
      !argument_range(&call, 1, &bytes, &length) || !argument_fds(&call, 4, &fds, &count))
    return NULL;
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
  } control;
  struct iovec vector = {.iov_base = bytes, .iov_len = length};
  struct msghdr message = {
      .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  memset(fds, 0xff, count * sizeof(int));
  ssize_t received;
  do {
    received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return errno == EAGAIN ? make_number(env, -1) : throw_errno(env, "recvmsg", errno);
  size_t taken = 0;
  bool lost = (message.msg_flags & MSG_CTRUNC) != 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t came = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < came; i++) {
      int one;
      memcpy(&one, CMSG_DATA(header) + i * sizeof(int), sizeof one);
      if (taken < count && !lost) memcpy(fds + taken++ * sizeof(int), &one, sizeof one);
      else {
        close(one);
        lost = true;
      }
    }
  }
  if (!lost) return make_number(env, (double)received);
  for (size_t i = 0; i < taken; i++) {
    int one;
    memcpy(&one, fds + i * sizeof(int), sizeof one);
    close(one);
  }
  memset(fds, 0xff, count * sizeof(int));
  return throw_errno(env, "recvmsg", EMSGSIZE);
}

bool pass_fds_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {
      {"duplicateFd", duplicate_fd},
      {"sendWithFds", send_with_fds},
      {"receiveWithFds", receive_with_fds},
  };
  return add_functions(env, exports, entries, sizeof entries / sizeof entries[0], instance);
}
