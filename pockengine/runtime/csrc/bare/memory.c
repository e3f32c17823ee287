/* The functions that compilers call on their own. Built with -fno-builtin, or they would call
 * themselves. */
#include "string.h"

void* memcpy(void* restrict to, const void* restrict from, size_t bytes) {
  unsigned char* t = to;
  const unsigned char* f = from;
  while (bytes--) *t++ = *f++;
  return to;
}

void* memmove(void* to, const void* from, size_t bytes) {
  unsigned char* t = to;
  const unsigned char* f = from;
  if (t < f) return memcpy(to, from, bytes);
  while (bytes--) t[bytes] = f[bytes];
  return to;
}

void* memset(void* at, int value, size_t bytes) {
  unsigned char* t = at;
  while (bytes--) *t++ = (unsigned char)value;
  return at;
}

int memcmp(const void* a, const void* b, size_t bytes) {
  const unsigned char *x = a, *y = b;
  for (; bytes; --bytes, ++x, ++y)
    if (*x != *y) return *x - *y;
  return 0;
}
