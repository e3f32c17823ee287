/* Runs a trainer's entry point "step" on embedded data and reports each loss: how a trainer is
 * tried on another machine. The file that pockengine/runtime/replay.py writes defines `pe_replay`.
 */
#include "replay.h"

static pe_trainer trainer;

static int fail(int32_t code) {
  pe_say("error: ");
  pe_say(pe_error_text(code));
  pe_say("\n");
  return 1;
}

/* The bits of the float, in hexadecimal: exact, and needs no C library. */
static void say_loss(float loss) {
  char text[] = "loss 0x00000000\n";
  union {
    float real;
    uint32_t bits;
  } value;
  value.real = loss;
  for (int i = 0; i < 8; ++i) text[7 + i] = "0123456789abcdef"[value.bits >> (28 - 4 * i) & 15u];
  pe_say(text);
}

int main(void) {
  const pe_replay_data* data = &pe_replay;
  int32_t entry, status;
  status = pe_open(&trainer, data->descriptor, data->descriptor_bytes, data->kernels,
                   data->kernel_count, data->regions, NULL);
  if (status) return fail(status);
  entry = pe_entry_find(&trainer, "step");
  for (uint32_t step = 0; step < data->steps; ++step) {
    status =
        pe_run(&trainer, entry, data->inputs + (size_t)step * data->inputs_per_step, data->outputs);
    if (status) return fail(status);
    say_loss(*(const float*)data->outputs[0]);
  }
  return 0;
}
