/* What an operating system adds to the core: threads and a clock. */
#ifndef POCKENGINE_OS_H
#define POCKENGINE_OS_H

#include "pockengine.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pe_pool pe_pool;

/* A pool in which `threads` threads work, the caller among them; NULL when memory is out or threads
 * < 1. The others start with the first job that can use them and again after a fork. */
pe_pool* pe_pool_create(int32_t threads);

/* Ends the threads and frees the pool. No job may be running. */
void pe_pool_destroy(pe_pool* pool);

/* How to reach the pool from pe_open. One job at a time: trainers that run at once need a pool
 * each. */
pe_launcher pe_pool_launcher(pe_pool* pool);

/* Milliseconds since some fixed moment. */
double pe_clock_ms(void);

#ifdef __cplusplus
}
#endif
#endif
