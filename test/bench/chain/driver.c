/*
 * Starts plugins for the benchmark as a runtime written in Go does: clone(CLONE_VM | CLONE_VFORK), three pipes, a thread for each. Node's
 * own child_process copies the page tables of its process for each program, which takes longer than a launcher.
 *
 * driver REQUESTS ANSWERS   two named pipes; it ends at the end of REQUESTS
 *
 * request: u32 length of the rest, u32 id, u32 count of variables, then NUL-terminated file and variables, then stdin
 * answer:  u32 id, u64 ns until the program had ended, u64 us of processor (the program's children included), i32 exit status or -signal,
 *          u32 bytes of stdout, u32 of stderr, then both
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct request { uint32_t length, id, count; char strings[]; };
struct answer { uint32_t id; uint64_t ns, cpu; int32_t status; uint32_t output[2]; } __attribute__((packed));
struct buffer { char *data; size_t length, capacity; };

static _Noreturn void fail(const char *what) { perror(what); exit(1); }

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* False at the end of the file. */
static int read_all(int fd, void *bytes, size_t length) {
  for (char *at = bytes; length > 0;) {
    ssize_t got = read(fd, at, length);
    if (got < 0) fail("read");
    if (got == 0) return 0;
    at += got, length -= (size_t)got;
  }
  return 1;
}

static void write_all(int fd, const void *bytes, size_t length) {
  for (const char *at = bytes; length > 0;) {
    ssize_t done = write(fd, at, length);
    if (done < 0) fail("write");
    at += done, length -= (size_t)done;
  }
}

static void make_pipe(int ends[2]) {
  if (pipe2(ends, O_CLOEXEC) != 0) fail("pipe2");
}

/* False at the end of the file. */
static int read_some(int fd, struct buffer *buffer) {
  if (buffer->capacity - buffer->length < 65536) {
    buffer->capacity = 2 * buffer->capacity + 65536;
    if ((buffer->data = realloc(buffer->data, buffer->capacity)) == NULL) fail("realloc");
  }
  ssize_t got = read(fd, buffer->data + buffer->length, buffer->capacity - buffer->length);
  if (got < 0) fail("read");
  buffer->length += (size_t)got;
  return got > 0;
}

/* Writes stdin and reads stdout and stderr until the program has closed them. */
static void exchange(int in, const char *input, size_t length, int out, int err, struct buffer output[2]) {
  struct pollfd ends[3] = {{in, POLLOUT, 0}, {out, POLLIN, 0}, {err, POLLIN, 0}};
  if (length == 0) close(in), ends[0].fd = -1;
  while (ends[1].fd >= 0 || ends[2].fd >= 0) {
    if (poll(ends, 3, -1) < 0) fail("poll");
    if (ends[0].fd >= 0 && ends[0].revents != 0) {
      ssize_t done = write(in, input, length);
      if (done > 0) input += done, length -= (size_t)done;
      if (done < 0 || length == 0) close(in), ends[0].fd = -1;
    }
    for (int stream = 0; stream < 2; stream++)
      if (ends[1 + stream].revents != 0 && !read_some(ends[1 + stream].fd, &output[stream])) ends[1 + stream].fd = -1;
  }
  if (ends[0].fd >= 0) close(in);
}

static struct answer run(char *file, char **environment, const char *input, size_t length, struct buffer output[2]) {
  int in[2], out[2], err[2], status;
  char *argv[] = {file, NULL};
  posix_spawn_file_actions_t actions;
  struct rusage usage;
  pid_t child;
  uint64_t began = now();
  make_pipe(in), make_pipe(out), make_pipe(err);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_adddup2(&actions, err[1], 2);
  if (posix_spawn(&child, file, &actions, NULL, argv, environment) != 0) fail(file);
  close(in[0]), close(out[1]), close(err[1]);
  exchange(in[1], input, length, out[0], err[0], output);
  if (wait4(child, &status, 0, &usage) != child) fail("wait4");
  uint64_t ended = now();
  posix_spawn_file_actions_destroy(&actions);
  close(out[0]), close(err[0]);
  struct timeval user = usage.ru_utime, system = usage.ru_stime;
  return (struct answer){
    .ns = ended - began,
    .cpu = (uint64_t)(user.tv_sec + system.tv_sec) * 1000000 + (uint64_t)(user.tv_usec + system.tv_usec),
    .status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
    .output = {(uint32_t)output[0].length, (uint32_t)output[1].length},
  };
}

static int answers;
static pthread_mutex_t answering = PTHREAD_MUTEX_INITIALIZER;

static void *serve(void *bytes) {
  struct request *request = bytes;
  struct buffer output[2] = {{0}, {0}};
  char *file = request->strings, *at = file + strlen(file) + 1, *end = (char *)&request->id + request->length;
  char **environment = calloc(request->count + 1, sizeof *environment);
  if (environment == NULL) fail("calloc");
  for (uint32_t variable = 0; variable < request->count; variable++) environment[variable] = at, at += strlen(at) + 1;
  struct answer answer = run(file, environment, at, (size_t)(end - at), output);
  answer.id = request->id;
  pthread_mutex_lock(&answering);
  write_all(answers, &answer, sizeof answer);
  for (int stream = 0; stream < 2; stream++) write_all(answers, output[stream].data, output[stream].length);
  pthread_mutex_unlock(&answering);
  free(output[0].data), free(output[1].data), free(environment), free(request);
  return NULL;
}

int main(int argc, char **argv) {
  int requests = argc == 3 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
  answers = argc == 3 ? open(argv[2], O_WRONLY | O_CLOEXEC) : -1;
  if (requests < 0 || answers < 0) fail("driver REQUESTS ANSWERS");
  signal(SIGPIPE, SIG_IGN);
  for (uint32_t length; read_all(requests, &length, sizeof length);) {
    struct request *request = malloc(sizeof length + length);
    pthread_t thread;
    if (request == NULL || !read_all(requests, &request->id, length)) fail("a request");
    request->length = length;
    if (pthread_create(&thread, NULL, serve, request) != 0) fail("pthread_create");
    pthread_detach(thread);
  }
  return 0;
}
