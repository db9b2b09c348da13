/*
 * libFuzzer's entry to the launcher's parser of the agent's answer (npm run fuzz -- --launcher). Each input is an answer that ends with the
 * connection. What the launcher makes of it must be what the few lines of `expected` make of it.
 */
#define main launcher_main
#include "../../launcher/launcher.c"
#undef main
#include <assert.h>

/* Whether the answer is complete; its frames' contents in `output`. */
static bool expected(const uint8_t *data, size_t size, struct buffer output[2], int *status) {
  for (uint32_t header[2]; size >= sizeof header;) {
    memcpy(header, data, sizeof header);
    data += sizeof header, size -= sizeof header;
    if (header[0] == 3) return *status = (int)header[1], header[1] <= 255;
    if (header[0] == 5 && header[1] == 0) continue;
    if ((header[0] != 1 && header[0] != 2) || header[1] > size) return false;
    append(&output[header[0] - 1], data, header[1], SIZE_MAX);
    data += header[1], size -= header[1];
  }
  return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  int ends[2], status = -1, wanted = -1;
  struct buffer output[2] = {{0}, {0}}, copy[2] = {{0}, {0}};
  assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  assert(write(ends[1], data, size) == (ssize_t)size);
  close(ends[1]);
  bool complete = read_answer(ends[0], output, &status, now() + 10000);
  close(ends[0]);
  assert(complete || errno != ETIMEDOUT);
  assert(complete == expected(data, size, copy, &wanted));
  for (int at = 0; at < 2; at++) {
    assert(!complete || (status == wanted && output[at].length == copy[at].length));
    assert(!complete || output[at].length == 0 || memcmp(output[at].data, copy[at].data, output[at].length) == 0);
    free(output[at].data), free(copy[at].data);
  }
  return 0;
}
