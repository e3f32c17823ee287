/* Opens and runs damaged descriptors: under sanitizers, none may read or write what is not its own.
 * The file holds descriptors, each behind its length (u32). Prints the code of each. */
#include "format.h"
#include "pockengine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20, MOST_ALIGNMENT = 4096 };

static int32_t nothing(void) { return PE_OK; }

static void* memory(size_t bytes, size_t alignment) {
  void* found = NULL;
  if (bytes && posix_memalign(&found, alignment, bytes)) abort();
  if (bytes) memset(found, 0, bytes);
  return found;
}

static void* zeros(size_t bytes) {
  void* found = calloc(bytes ? bytes : 1, 1);
  if (!found) abort();
  return found;
}

/* All inputs are zeros, of the very size of their port. */
static int32_t run(pe_trainer* trainer, int32_t index) {
  const pe_entry* entry = (const pe_entry*)trainer->entries + index;
  const pe_port* ports = (const pe_port*)trainer->ports + entry->first_port;
  uint64_t count = (uint64_t)entry->inputs + entry->outputs;
  void** given = calloc(count + 1, sizeof *given);
  int32_t status;
  for (uint64_t i = 0; i < count; ++i)
    given[i] = zeros((size_t)ports[i].size << pe_dtype_shift(ports[i].dtype));
  status = pe_run(trainer, index, (const void* const*)given, given + entry->inputs);
  for (uint64_t i = 0; i < count; ++i) free(given[i]);
  free(given);
  return status;
}

static int32_t open_and_run(const void* descriptor, size_t bytes) {
  pe_trainer trainer;
  uint64_t sizes[PE_REGIONS];
  uint32_t alignment;
  void* regions[PE_REGIONS];
  pe_kernel* kernels;
  int32_t status = pe_region_sizes(descriptor, bytes, sizes, &alignment);
  if (status) return status;
  for (int i = 0; i < PE_REGIONS; ++i)
    if (sizes[i] > MOST_BYTES || alignment > MOST_ALIGNMENT) return 1; /* no caller has that */
  for (int i = 0; i < PE_REGIONS; ++i) regions[i] = memory(sizes[i], alignment);
  {
    const pe_header* header = descriptor;
    kernels = calloc((size_t)header->kernels + 1, sizeof *kernels);
    for (uint32_t i = 0; i < header->kernels; ++i) kernels[i] = (pe_kernel)nothing;
    status = pe_open(&trainer, descriptor, bytes, kernels, header->kernels, regions, NULL);
    for (uint32_t i = 0; !status && i < header->entries; ++i) {
      const char* name = trainer.names + ((const pe_entry*)trainer.entries)[i].name;
      if (pe_entry_find(&trainer, name) < 0) abort();
      if (run(&trainer, (int32_t)i) > 0) abort();
    }
  }
  for (int i = 0; i < PE_REGIONS; ++i) free(regions[i]);
  free(kernels);
  return status;
}

int main(int argc, char** argv) {
  FILE* file = argc == 2 ? fopen(argv[1], "rb") : NULL;
  uint32_t bytes;
  if (!file) return 2;
  while (fread(&bytes, sizeof bytes, 1, file) == 1) {
    void* descriptor = malloc(bytes ? bytes : 1);
    int32_t code;
    if (!descriptor || (bytes && fread(descriptor, bytes, 1, file) != 1)) return 3;
    code = open_and_run(descriptor, bytes);
    if (code < 0 && strcmp(pe_error_text(code), "unknown error") == 0) return 4;
    printf("%d\n", code);
    free(descriptor);
  }
  fclose(file);
  return 0;
}
