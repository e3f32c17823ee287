/* The part of <string.h> that the runtime and compilers need, where there is no C library. */
#ifndef POCKENGINE_BARE_STRING_H
#define POCKENGINE_BARE_STRING_H

#include <stddef.h>

void* memcpy(void* restrict to, const void* restrict from, size_t bytes);
void* memmove(void* to, const void* from, size_t bytes);
void* memset(void* at, int value, size_t bytes);
int memcmp(const void* a, const void* b, size_t bytes);

#endif
