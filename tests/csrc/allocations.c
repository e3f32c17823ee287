/* The linker leads every allocation of the runtime here (--wrap); each is counted. */
#include <stddef.h>
#include <stdint.h>

int64_t allocations(void);
void* __real_malloc(size_t bytes);
void* __real_calloc(size_t count, size_t bytes);
void* __real_realloc(void* old, size_t bytes);
void* __wrap_malloc(size_t bytes);
void* __wrap_calloc(size_t count, size_t bytes);
void* __wrap_realloc(void* old, size_t bytes);

static int64_t counted;

int64_t allocations(void) { return counted; }
void* __wrap_malloc(size_t bytes) { return ++counted, __real_malloc(bytes); }
void* __wrap_calloc(size_t count, size_t bytes) { return ++counted, __real_calloc(count, bytes); }
void* __wrap_realloc(void* old, size_t bytes) { return ++counted, __real_realloc(old, bytes); }
