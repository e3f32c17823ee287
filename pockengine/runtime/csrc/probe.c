/* Keeps the multipliers of one core busy. How much longer it takes while a second core does the same
 * tells whether a second thread pays; runtime/threads.py asks. */
#include <stdint.h>

enum { LANES = 32 }; /* independent sums, which hide the latency of each */

/* `rounds` times LANES multiplications and additions; the result only keeps them alive. */
float pe_probe(int64_t rounds, float seed) {
  float sum[LANES];
  for (int lane = 0; lane < LANES; lane++) sum[lane] = seed + (float)lane;
  for (int64_t round = 0; round < rounds; round++) {
    for (int lane = 0; lane < LANES; lane++) sum[lane] = sum[lane] * 0.5f + seed;
  }
  float total = 0.0f;
  for (int lane = 0; lane < LANES; lane++) total += sum[lane];
  return total;
}
