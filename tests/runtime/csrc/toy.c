/* Kernels of a toy trainer: linear regression on one sample, with the kernel ABI of pockengine.h.
 */
#include <stdint.h>

enum { CHUNK = 8 };

/* partials (n / CHUNK), w (n), x (n): the sum of w x over each chunk. */
int32_t toy_dot(float* partials, const float* w, const float* x, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    float sum = 0;
    for (int64_t k = i * CHUNK; k < (i + 1) * CHUNK; ++k) sum += w[k] * x[k];
    partials[i] = sum;
  }
  return 0;
}

/* loss (1), error (1), partials (end), y (1): error = sum - y, loss = error squared. */
int32_t toy_loss(float* loss, float* error, const float* partials, const float* y, int64_t begin,
                 int64_t end) {
  float sum = 0;
  for (int64_t i = begin; i < end; ++i) sum += partials[i];
  *error = sum - *y;
  *loss = *error * *error;
  return 0;
}

/* gradient (n), x (n), error (1): 2 error x. */
int32_t toy_scale(float* gradient, const float* x, const float* error, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) gradient[i] = 2 * *error * x[i];
  return 0;
}

/* w (n), gradient (n), rate (1): w -= rate gradient. */
int32_t toy_update(float* w, const float* gradient, const float* rate, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) w[i] -= *rate * gradient[i];
  return 0;
}

/* Fails with the code it is given. */
int32_t toy_fail(const int32_t* code, int64_t begin, int64_t end) {
  (void)begin;
  (void)end;
  return *code;
}
