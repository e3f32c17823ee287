/* An example: five steps on a batch of zeros. Returns 0, or the trainer's code made positive. */
#include "trainer.h"

static const unsigned char zeros[TRAINER_LARGEST_INPUT_BYTES];

int main(void) {
  static pe_trainer trainer;
  const float rate = 0.001f; /* the last input of a step */
  float loss;
  const void* inputs[TRAINER_STEP_INPUTS];
  void* outputs[] = {&loss};
  int32_t status = trainer_open(&trainer, NULL);
  int32_t step = pe_entry_find(&trainer, "step");
  for (int i = 0; i < TRAINER_STEP_INPUTS; ++i) inputs[i] = zeros;
  inputs[TRAINER_STEP_INPUTS - 1] = &rate;
  for (int i = 0; i < 5 && !status; ++i) status = pe_run(&trainer, step, inputs, outputs);
  return (int)-status;
}
