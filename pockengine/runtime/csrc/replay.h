/* What replay.c runs. */
#ifndef POCKENGINE_REPLAY_H
#define POCKENGINE_REPLAY_H

#include "pockengine.h"

typedef struct pe_replay_data {
  const void* descriptor;
  size_t descriptor_bytes;
  const pe_kernel* kernels;
  size_t kernel_count;
  void* const* regions;      /* (PE_REGIONS) */
  const void* const* inputs; /* (steps, inputs_per_step) */
  uint32_t inputs_per_step, steps;
  void* const* outputs; /* the first is the loss, float32 */
} pe_replay_data;

extern const pe_replay_data pe_replay;

/* Prints a text; the start-up code of the machine (cortex_m/, linux/) defines it. */
void pe_say(const char* text);

#endif
