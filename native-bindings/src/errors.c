#include "binding.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* libuv's names differ from the kernel's for a few (ENOTSUP for EOPNOTSUPP), and glibc's strerrorname_np is young. */
#define NAME(name) \
  case name:       \
    return #name

const char *errno_name(int error_number) {
  switch (error_number) {
    NAME(E2BIG);
    NAME(EACCES);
    NAME(EADDRINUSE);
    NAME(EADDRNOTAVAIL);
    NAME(EAFNOSUPPORT);
    NAME(EAGAIN);
    NAME(EALREADY);
    NAME(EBADF);
    NAME(EBADFD);
    NAME(EBADMSG);
    NAME(EBUSY);
    NAME(ECANCELED);
    NAME(ECONNREFUSED);
    NAME(EDEADLK);
    NAME(EDQUOT);
    NAME(EEXIST);
    NAME(EFAULT);
    NAME(EFBIG);
    NAME(EILSEQ);
    NAME(EINTR);
    NAME(EINVAL);
    NAME(EIO);
    NAME(EISDIR);
    NAME(ELOOP);
    NAME(EMEDIUMTYPE);
    NAME(EMFILE);
    NAME(EMSGSIZE);
    NAME(ENAMETOOLONG);
    NAME(ENETDOWN);
    NAME(ENFILE);
    NAME(ENOBUFS);
    NAME(ENODATA);
    NAME(ENODEV);
    NAME(ENOENT);
    NAME(ENOLCK);
    NAME(ENOLINK);
    NAME(ENOMEDIUM);
    NAME(ENOMEM);
    NAME(ENOPROTOOPT);
    NAME(ENOSPC);
    NAME(ENOSYS);
    NAME(ENOTBLK);
    NAME(ENOTCONN);
    NAME(ENOTDIR);
    NAME(ENOTSOCK);
    NAME(ENOTTY);
    NAME(ENXIO);
    NAME(EOPNOTSUPP);
    NAME(EOVERFLOW);
    NAME(EPERM);
    NAME(EPIPE);
    NAME(EPROTO);
    NAME(EPROTONOSUPPORT);
    NAME(ERANGE);
    NAME(EREMOTEIO);
    NAME(EROFS);
    NAME(ESHUTDOWN);
    NAME(ESPIPE);
    NAME(ESRCH);
    NAME(ESTALE);
    NAME(ETIMEDOUT);
    NAME(ETXTBSY);
    NAME(EXDEV);
    default:
      return "EUNKNOWN";
  }
}

static void throw_error(napi_env env, const char *syscall, int error_number, const char *text, bool is_type_error) {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) != napi_ok || pending) return;
  napi_value code, message, error, number, call;
  if (napi_create_string_utf8(env, errno_name(error_number), NAPI_AUTO_LENGTH, &code) != napi_ok) return;
  if (napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) != napi_ok) return;
  napi_status made =
      is_type_error ? napi_create_type_error(env, code, message, &error) : napi_create_error(env, code, message, &error);
  if (made != napi_ok) return;
  if (napi_create_int32(env, error_number, &number) == napi_ok) napi_set_named_property(env, error, "errno", number);
  if (napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &call) == napi_ok)
    napi_set_named_property(env, error, "syscall", call);
  napi_throw(env, error);
}

napi_value throw_errno(napi_env env, const char *syscall, int error_number) {
  char reason[128], text[256];
  /* The GNU form: it returns the text, in `reason` or constant. */
  const char *described = strerror_r(error_number, reason, sizeof reason);
  snprintf(text, sizeof text, "%s: %s, %s", errno_name(error_number), described, syscall);
  throw_error(env, syscall, error_number, text, false);
  return NULL;
}

napi_value throw_argument(napi_env env, const char *function, const char *reason) {
  char text[256];
  snprintf(text, sizeof text, "EINVAL: %s, %s", reason, function);
  throw_error(env, function, EINVAL, text, true);
  return NULL;
}

napi_value throw_napi(napi_env env, const char *function) {
  const napi_extended_error_info *info = NULL;
  const char *reason = "Node-API call failed";
  if (napi_get_last_error_info(env, &info) == napi_ok && info != NULL && info->error_message != NULL)
    reason = info->error_message;
  char text[256];
  snprintf(text, sizeof text, "ENOMEM: %s, %s", reason, function);
  throw_error(env, function, ENOMEM, text, false);
  return NULL;
}
