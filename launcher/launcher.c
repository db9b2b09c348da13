/*
 * Passes a CNI call to the node agent (weft agent) and prints its answer: docs/internals/agent.md. If no agent of the same build is ready for
 * the call, executes the complete executable of that build, which lies beside it. After it has sent the request, it does so only when the
 * agent declines or the connection breaks: then the agent's work on the call has ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#define SOCKET "/run/weft/agent.sock"
#define HELLO "weft-agent 1 " RELEASE "\n" /* -DRELEASE: 32 hexadecimal digits (build/launcher.mjs) */
#define NEEDED (1u << 12 | 1u << 13 | 1u << 21) /* CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN: linux/capability.h, which musl lacks */
enum { HELLO_MS = 100, WORKING_MS = 500, QUEUE_MS = 10000, ANSWER_MS = 15000, STDIN_MS = 10000, STDOUT_MS = 10000, STDERR_MS = 1000 };
enum { STDIN_LIMIT = 16 << 20, OUTPUT_LIMIT = 64 << 20, STRINGS_LIMIT = 1 << 20 };
enum { FRAME_STDOUT = 1, FRAME_STDERR = 2, FRAME_EXIT = 3, FRAME_QUEUED = 5 };

struct buffer { char *data; size_t length, capacity; };

/* In the byte order of the machine. NUL-terminated strings (name, environment) and stdin follow. */
struct request { uint32_t strings, input; uint64_t netns_dev, netns_ino, launcher_dev, launcher_ino; };

struct call { int argc; char **argv; const char *name, *command; struct buffer input; struct stat launcher; };

/* Milliseconds from `since` until now. */
static int64_t elapsed(clockid_t clock, struct timespec since) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (int64_t)(time.tv_sec - since.tv_sec) * 1000 + (time.tv_nsec - since.tv_nsec) / 1000000;
}

static int64_t now(void) { return elapsed(CLOCK_MONOTONIC, (struct timespec){0}); }

/* False, with errno ETIMEDOUT, when the event has not come before the deadline. */
static bool ready(int fd, short event, int64_t deadline) {
  struct pollfd request = {.fd = fd, .events = event};
  int found;
  do {
    int64_t left = deadline - now();
    found = poll(&request, 1, left > 0 ? (int)left : 0);
  } while (found < 0 && errno == EINTR);
  return found > 0 ? true : (errno = ETIMEDOUT, false);
}

/* Space for `more` bytes (also none) at the end; NULL beyond the limit or without memory. */
static char *grow(struct buffer *buffer, size_t more, size_t limit) {
  if (more > limit || buffer->length > limit - more) return NULL;
  if (buffer->data == NULL || buffer->length + more > buffer->capacity) {
    size_t capacity = 2 * (buffer->length + more) + 4096;
    char *data = realloc(buffer->data, capacity);
    if (data == NULL) return NULL;
    buffer->data = data, buffer->capacity = capacity;
  }
  return buffer->data + buffer->length;
}

static bool append(struct buffer *buffer, const void *bytes, size_t length, size_t limit) {
  char *end = grow(buffer, length, limit);
  if (end != NULL && length > 0) memcpy(end, bytes, length), buffer->length += length;
  return end != NULL;
}

/* At most PIPE_BUF bytes at once: a pipe takes as many without blocking when poll reports it as writable. */
static bool write_all(int fd, const char *bytes, size_t length, int timeout) {
  for (int64_t deadline = now() + timeout; length > 0;) {
    if (!ready(fd, POLLOUT, deadline)) return false;
    ssize_t done = write(fd, bytes, length < PIPE_BUF ? length : PIPE_BUF);
    if (done < 0 && errno != EINTR && errno != EAGAIN) return false;
    if (done > 0) bytes += done, length -= (size_t)done;
  }
  return true;
}

/* False with errno ETIMEDOUT, or with another one when the connection is broken. */
static bool receive(int fd, void *bytes, size_t length, int64_t deadline) {
  for (char *at = bytes; length > 0;) {
    ssize_t got = recv(fd, at, length, MSG_DONTWAIT);
    if (got > 0) at += got, length -= (size_t)got;
    else if (got == 0) return errno = ECONNRESET, false;
    else if (errno == EAGAIN ? !ready(fd, POLLIN, deadline) : errno != EINTR) return false;
  }
  return true;
}

static _Noreturn void fail(int code, const char *message, const char *details) {
  char text[1024];
  const char *form = "{\n    \"code\": %d,\n    \"msg\": \"%s\",\n    \"details\": \"%s\"\n}";
  write_all(1, text, (size_t)snprintf(text, sizeof text, form, code, message, details), STDOUT_MS);
  exit(1);
}

/* The executable of the same build is `.weft/RELEASE` in the launcher's own directory, wherever links to the launcher lie. */
static _Noreturn void execute(struct call *call) {
  char path[PATH_MAX + sizeof "/.weft/" RELEASE], identity[64];
  ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
  char *slash = length > 0 ? memrchr(path, '/', (size_t)length) : NULL;
  if (slash == NULL) fail(5, "cannot read /proc/self/exe", "is /proc mounted?");
  strcpy(slash, "/.weft/" RELEASE);
  if (call->input.data != NULL) {
    int memory = memfd_create("stdin", MFD_CLOEXEC);
    if (memory < 0 || !write_all(memory, call->input.data, call->input.length, STDIN_MS) || lseek(memory, 0, 0) || dup2(memory, 0))
      fail(5, "cannot keep the configuration in memory", strerror(errno));
  }
  char **argv = calloc((size_t)call->argc + 2, sizeof *argv);
  if (argv == NULL) fail(5, "out of memory", "cannot execute the plugin");
  /* bridge calls host-local in its own process if the file in CNI_PATH is this launcher. */
  snprintf(identity, sizeof identity, "launcher=%ju:%ju", (uintmax_t)call->launcher.st_dev, (uintmax_t)call->launcher.st_ino);
  argv[0] = call->argv[0], argv[1] = identity, memcpy(argv + 2, call->argv + 1, (size_t)(call->argc - 1) * sizeof *argv);
  execv(path, argv);
  fail(5, "cannot execute .weft/" RELEASE " in the directory of the launcher; install the suite again", strerror(errno));
}

/* One byte more than the limit is enough for the executable to report it. */
static void read_stdin(struct call *call) {
  bool failed = isatty(0);
  for (int64_t deadline = now() + STDIN_MS; !failed && call->input.length <= STDIN_LIMIT;) {
    char *end = grow(&call->input, 65536, SIZE_MAX);
    if (end == NULL) fail(5, "out of memory", "reading the configuration on stdin");
    if (!ready(0, POLLIN, deadline))
      fail(5, "timed out after 10 s waiting for the end of stdin; does the runtime close it?", "a plugin call may take 10 s in total");
    ssize_t got = read(0, end, 65536);
    if (got == 0) return;
    if (got > 0) call->input.length += (size_t)got;
    else failed = errno != EINTR && errno != EAGAIN;
  }
  if (call->input.length == 0) call->input.data = NULL;
  execute(call);
}

/* A connection to an agent of this build that is ready for the call; -1: the executable takes over. */
static int connect_agent(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
  struct stat file;
  struct ucred peer;
  char hello[sizeof HELLO - 1];
  if (lstat(SOCKET, &file) != 0 || !S_ISSOCK(file.st_mode) || file.st_uid != geteuid() || (file.st_mode & 077) != 0) return -1;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
      getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &(socklen_t){sizeof peer}) != 0 || peer.uid != geteuid())
    return -1;
  /* The agent sets its socket's modification time when it begins a call: wait as long as it begins one now and then. */
  for (int64_t deadline = now() + QUEUE_MS; !ready(fd, POLLIN, now() + HELLO_MS);)
    if (now() > deadline || lstat(SOCKET, &file) != 0 || (uint64_t)elapsed(CLOCK_REALTIME, file.st_mtim) > WORKING_MS) return -1;
  return receive(fd, hello, sizeof hello, now() + WORKING_MS) && memcmp(hello, HELLO, sizeof hello) == 0 ? fd : -1;
}

/* A caller that lacks a capability must not get what only the agent may do. */
static bool is_privileged(void) {
  struct { uint32_t version; int pid; } header = {.version = 0x20080522}; /* _LINUX_CAPABILITY_VERSION_3 */
  struct { uint32_t effective, permitted, inheritable; } data[2] = {0};
  return syscall(SYS_capget, &header, data) == 0 && (data[0].effective & NEEDED) == NEEDED;
}

static bool make_request(struct buffer *request, const struct call *call) {
  struct stat netns;
  struct request header = {.launcher_dev = call->launcher.st_dev, .launcher_ino = call->launcher.st_ino};
  if (stat("/proc/self/ns/net", &netns) != 0 || !append(request, &header, sizeof header, STRINGS_LIMIT) ||
      !append(request, call->name, strlen(call->name) + 1, STRINGS_LIMIT))
    return false;
  for (char **at = environ; *at != NULL; at++)
    if ((!strncmp(*at, "CNI_", 4) || !strncmp(*at, "WEFT_", 5) || !strncmp(*at, "PATH=", 5) || !strncmp(*at, "XTABLES_LOCKFILE=", 17)) &&
        !append(request, *at, strlen(*at) + 1, STRINGS_LIMIT))
      return false;
  header.netns_dev = netns.st_dev, header.netns_ino = netns.st_ino;
  header.strings = (uint32_t)(request->length - sizeof header), header.input = (uint32_t)call->input.length;
  memcpy(request->data, &header, sizeof header);
  return append(request, call->input.data, call->input.length, SIZE_MAX);
}

/* The network namespace goes along as a descriptor. */
static bool send_request(int fd, int netns, const struct buffer *request, int64_t deadline) {
  union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control = {0};
  struct iovec data = {.iov_base = request->data, .iov_len = request->length};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
  if (netns >= 0) {
    message.msg_control = &control, message.msg_controllen = sizeof control;
    control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof netns), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &netns, sizeof netns);
  }
  while (data.iov_len > 0) {
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN ? !ready(fd, POLLOUT, deadline) : errno != EINTR)) return false;
    if (sent > 0) data.iov_base = (char *)data.iov_base + sent, data.iov_len -= (size_t)sent, message.msg_controllen = 0;
  }
  return true;
}

/* As `receive`; "queued" starts the time again. Any other frame declines the call. */
static bool read_answer(int fd, struct buffer output[2], int *status, int64_t deadline) {
  for (uint32_t header[2]; receive(fd, header, sizeof header, deadline);) {
    if (header[0] == FRAME_EXIT && header[1] <= 255) return *status = (int)header[1], true;
    if (header[0] == FRAME_QUEUED && header[1] == 0) { deadline = now() + ANSWER_MS; continue; }
    struct buffer *stream = &output[header[0] == FRAME_STDERR];
    char *end = header[0] == FRAME_STDOUT || header[0] == FRAME_STDERR ? grow(stream, header[1], OUTPUT_LIMIT) : NULL;
    if (end == NULL) return errno = EPROTO, false;
    if (!receive(fd, end, header[1], deadline)) return false;
    stream->length += header[1];
  }
  return false;
}

/* A runtime that does not get the result takes ADD for failed: undo it. */
static int report_unwritten(struct call *call, int status) {
  char text[256], *what = errno == ETIMEDOUT ? "" : "cannot write to stdout: ";
  const char *why = errno == ETIMEDOUT ? "timed out after 10 s writing to stdout; is the runtime reading it?" : strerror(errno);
  if (status == 0 && strcmp(call->command, "ADD") == 0) {
    pid_t child = fork();
    if (child == 0 && setenv("CNI_COMMAND", "DEL", 1) == 0 && dup2(2, 1) == 1 && signal(SIGPIPE, SIG_DFL) != SIG_ERR) execute(call);
    if (child > 0) waitpid(child, NULL, 0);
  }
  write_all(2, text, (size_t)snprintf(text, sizeof text, "%.32s: cannot report the result: %s%s\n", call->name, what, why), STDERR_MS);
  return 1;
}

int main(int argc, char **argv) {
  for (int fd = 0; fd < 3; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) return 1;
  const char *command = getenv("CNI_COMMAND"), *path = getenv("CNI_NETNS");
  struct call call = {.argc = argc, .argv = argv, .name = program_invocation_short_name, .command = command == NULL ? "" : command};
  if (argc == 0 || stat("/proc/self/exe", &call.launcher) != 0) fail(5, "cannot read /proc/self/exe", "is /proc mounted?");
  if (*call.command != '\0' && strcmp(call.command, "VERSION") != 0) read_stdin(&call);
  /* The agent may be in another mount namespace, where the path means nothing, or something else. */
  bool named = path != NULL && *path != '\0';
  int netns = named ? open(path, O_PATH | O_CLOEXEC) : -1, agent = -1, status = 1;
  struct buffer request = {0}, output[2] = {{0}, {0}};
  if ((named && netns < 0) || !is_privileged() || !make_request(&request, &call) || (agent = connect_agent()) < 0) execute(&call);
  int64_t deadline = now() + ANSWER_MS;
  if (!send_request(agent, netns, &request, deadline) || !read_answer(agent, output, &status, deadline)) {
    if (errno != ETIMEDOUT) execute(&call);
    fail(11, "timed out after 15 s waiting for the answer of the node agent", "it may still work on the call: journalctl -u weft-agent");
  }
  signal(SIGPIPE, SIG_IGN);
  write_all(2, output[1].data, output[1].length, STDERR_MS);
  return write_all(1, output[0].data, output[0].length, STDOUT_MS) ? status : report_unwritten(&call, status);
}
