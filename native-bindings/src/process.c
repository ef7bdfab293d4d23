/* What a server of block devices asks of the kernel for its own process. */
#include "binding.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

/* How long a thread that sleeps or computes may take to run a signal handler. */
#define ANSWER_SECONDS 1

/* prctl() is for the calling thread alone: another one is asked by a signal that carries a pointer to this. */
struct request {
  sem_t answered;
  int error_number;
};

static int become_io_flusher(void) { return prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0 ? 0 : errno; }

static void on_request(int number, siginfo_t *info, void *context) {
  (void)number;
  (void)context;
  if (info->si_code != SI_QUEUE || info->si_pid != getpid()) return;
  int saved = errno;
  struct request *request = info->si_value.sival_ptr;
  request->error_number = become_io_flusher();
  sem_post(&request->answered);
  errno = saved;
}

/* Stays installed: a request that was not answered in time may still be. */
static int install_handler(int number) {
  struct sigaction action = {.sa_sigaction = on_request, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
  sigfillset(&action.sa_mask);
  return sigaction(number, &action, NULL);
}

/* 0, or an errno: ETIMEDOUT when the thread does not answer, ESRCH when it is gone */
static int ask(pid_t thread) {
  const int number = SIGRTMAX - 1;
  if (install_handler(number) != 0) return errno;
  struct request *request = calloc(1, sizeof *request);
  if (request == NULL) return ENOMEM;
  sem_init(&request->answered, 0, 0);
  siginfo_t info;
  memset(&info, 0, sizeof info);
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_ptr = request;
  int error_number = 0;
  if (syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, number, &info) != 0) {
    error_number = errno;
  } else {
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += ANSWER_SECONDS;
    int waited;
    do {
      waited = sem_timedwait(&request->answered, &deadline);
    } while (waited != 0 && errno == EINTR);
    /* Left behind on purpose: the thread may answer later. */
    if (waited != 0) return ETIMEDOUT;
    error_number = request->error_number;
  }
  sem_destroy(&request->answered);
  free(request);
  return error_number;
}

/*
 * setIoFlusher(thread): PR_SET_IO_FLUSHER of a thread of this process, and of those that it starts from then on. That
 * thread serves block I/O: the kernel does not make it wait for I/O when it allocates memory.
 */
static napi_value set_io_flusher(napi_env env, napi_callback_info info) {
  struct call call;
  double thread;
  if (!call_begin(env, info, "setIoFlusher", 1, &call) || !argument_integer(&call, 0, 1, INT32_MAX, &thread)) return NULL;
  int error_number = (pid_t)thread == (pid_t)syscall(SYS_gettid) ? become_io_flusher() : ask((pid_t)thread);
  if (error_number != 0) return throw_errno(env, "PR_SET_IO_FLUSHER", error_number);
  return make_undefined(env);
}

/* lockMemory(begin, end): mlock2 of what is there and of what is touched later; nothing is read in for it */
static napi_value lock_memory(napi_env env, napi_callback_info info) {
  struct call call;
  double begin, end;
  if (!call_begin(env, info, "lockMemory", 2, &call) || !argument_integer(&call, 0, 0, MAX_SAFE_INTEGER, &begin) ||
      !argument_integer(&call, 1, begin, MAX_SAFE_INTEGER, &end))
    return NULL;
  if (syscall(SYS_mlock2, (uintptr_t)begin, (size_t)(end - begin), MLOCK_ONFAULT) != 0)
    return throw_errno(env, "mlock2", errno);
  return make_undefined(env);
}

bool process_register(napi_env env, napi_value exports, struct instance *instance) {
  static const struct export_entry entries[] = {
      {"setIoFlusher", set_io_flusher},
      {"lockMemory", lock_memory},
  };
  return add_functions(env, exports, entries, sizeof entries / sizeof entries[0], instance);
}
