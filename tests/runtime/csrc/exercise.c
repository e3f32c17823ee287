/* Runs the toy trainer (its encoded descriptor is the argument) with one and with several threads,
 * compares the bits, counts allocations, and opens it after damage of every byte. Built under
 * sanitizers by test_csrc.py; prints what failed and exits with 1, else prints "ok". */
#include "format.h"
#include "pockengine.h"
#include "pockengine_os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int32_t toy_dot(float*, const float*, const float*, int64_t, int64_t);
int32_t toy_loss(float*, float*, const float*, const float*, int64_t, int64_t);
int32_t toy_scale(float*, const float*, const float*, int64_t, int64_t);
int32_t toy_update(float*, const float*, const float*, int64_t, int64_t);
int32_t toy_fail(const int32_t*, int64_t, int64_t);

enum { SIZE = 1000, STEPS = 500 };

/* The linker leads the runtime's calls of malloc and calloc here (--wrap), where they are counted.
 */
static int allocations;
void* __real_malloc(size_t bytes);
void* __real_calloc(size_t count, size_t bytes);
void* __wrap_malloc(size_t bytes);
void* __wrap_calloc(size_t count, size_t bytes);
void* __wrap_malloc(size_t bytes) { return ++allocations, __real_malloc(bytes); }
void* __wrap_calloc(size_t n, size_t bytes) { return ++allocations, __real_calloc(n, bytes); }

static const pe_kernel kernels[] = {(pe_kernel)toy_dot, (pe_kernel)toy_loss, (pe_kernel)toy_scale,
                                    (pe_kernel)toy_update, (pe_kernel)toy_fail};

static uint64_t descriptor[1024];
static size_t descriptor_bytes;

static void require(int holds, const char* what) {
  if (holds) return;
  printf("failed: %s\n", what);
  exit(1);
}

static void* region(uint64_t bytes) {
  void* memory = NULL;
  require(posix_memalign(&memory, 64, bytes + 64) == 0, "memory");
  return memset(memory, 0, bytes + 64);
}

/* Trains from w = 0; leaves w (SIZE) and returns the last loss. */
static float train(int threads, float* w) {
  static float x[SIZE];
  float y = 3, rate = 1e-4f, loss = 0;
  int64_t label[2] = {9, -100};
  int32_t zero = 0, before = 0, status = 0;
  const void* inputs[] = {x, &y, &rate, label, &zero, &zero};
  void* outputs[] = {&loss};
  void* regions[PE_REGIONS] = {NULL, region(4 * SIZE), NULL, region(9216)};
  pe_pool* pool = pe_pool_create(threads);
  pe_launcher launcher = pe_pool_launcher(pool);
  pe_trainer t;
  for (int i = 0; i < SIZE; ++i) x[i] = (float)(i % 17) / 17.0f - 0.4f;
  require(pe_open(&t, descriptor, descriptor_bytes, kernels, 5, regions, &launcher) == PE_OK,
          "open");
  for (int i = 0; i < STEPS && !status; ++i) {
    status = pe_run(&t, pe_entry_find(&t, "step"), inputs, outputs);
    if (i == 0) before = allocations;
  }
  require(status == PE_OK, "run");
  require(allocations == before, "a step allocated");
  memcpy(w, regions[1], 4 * SIZE);
  pe_pool_destroy(pool);
  free(regions[1]);
  free(regions[3]);
  return loss;
}

static int32_t fail_late(void* arg, int64_t begin, int64_t end) {
  (void)arg;
  return begin <= 900 && 900 < end ? -7 : 0;
}

static void check_failure_of_a_piece(void) {
  pe_pool* pool = pe_pool_create(4);
  pe_launcher launcher = pe_pool_launcher(pool);
  require(launcher.parallel(launcher.ctx, fail_late, NULL, 1000, 1) == -7, "failure of a piece");
  require(launcher.parallel(launcher.ctx, fail_late, NULL, 900, 1) == 0, "success of all pieces");
  pe_pool_destroy(pool);
}

static uint32_t crc32_of(const unsigned char* data, size_t bytes) {
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < bytes; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

/* Opens what may be damaged; with the checksum made right again, so that every field's check is
 * reached. */
static int32_t open_damaged(unsigned char* bytes, size_t size, int seal) {
  void* regions[PE_REGIONS] = {NULL, region(4 * SIZE), NULL, region(9216)};
  uint32_t crc = crc32_of(bytes + PE_CHECKED_FROM, size - PE_CHECKED_FROM);
  pe_trainer t;
  int32_t status;
  if (seal) memcpy(bytes + 12, &crc, 4);
  status = pe_open(&t, bytes, size, kernels, 5, regions, NULL);
  if (status == PE_OK) pe_entry_find(&t, "no such name");
  free(regions[1]);
  free(regions[3]);
  return status;
}

static void check_damage(void) {
  unsigned char* copy = malloc(descriptor_bytes);
  for (size_t i = 0; i < descriptor_bytes; ++i)
    for (int bit = 0; bit < 8; ++bit) {
      memcpy(copy, descriptor, descriptor_bytes);
      copy[i] ^= (unsigned char)(1 << bit);
      require(open_damaged(copy, descriptor_bytes, 0) < 0, "damage was not seen");
      open_damaged(copy, descriptor_bytes, 1);
    }
  for (size_t size = PE_CHECKED_FROM; size < descriptor_bytes; ++size) {
    unsigned char* shorter = malloc(size);
    memcpy(shorter, descriptor, size);
    require(open_damaged(shorter, size, 1) < 0, "truncation was not seen");
    free(shorter);
  }
  free(copy);
}

int main(int count, char** arguments) {
  static float one[SIZE], many[SIZE];
  FILE* file = fopen(count > 1 ? arguments[1] : "", "rb");
  require(file != NULL, "usage: exercise DESCRIPTOR");
  descriptor_bytes = fread(descriptor, 1, sizeof descriptor, file);
  fclose(file);
  train(1, one);
  for (int threads = 2; threads < 5; ++threads) {
    train(threads, many);
    require(memcmp(one, many, sizeof one) == 0, "the number of threads changed the result");
  }
  check_failure_of_a_piece();
  check_damage();
  printf("ok\n");
  return 0;
}
