/* Opens the trainer over static memory; the images are in data.S. */
#define TRAINER_KERNEL_TABLE
#include "trainer.h"

static unsigned char arena[TRAINER_ARENA_BYTES] __attribute__((aligned(TRAINER_REGION_ALIGN)));

int32_t trainer_open(pe_trainer* self, const pe_launcher* launcher) {
  void* const regions[PE_REGIONS] = {(void*)(uintptr_t)trainer_const, trainer_param, trainer_state,
                                     arena};
  return pe_open(self, trainer_descriptor, TRAINER_DESCRIPTOR_BYTES, kernels, TRAINER_KERNELS,
                 regions, launcher);
}
