/* Threads and a clock by POSIX.
 *
 * The range of a job is cut once, evenly, into at most as many pieces as there are threads; the
 * caller works on the first, and then on those that no worker has begun. A waiting thread spins for
 * about 20 us, as jobs of a step follow each other closely, and then sleeps. Every worker has a
 * mailbox of its own, so that no two workers write to one cache line. */
#define _POSIX_C_SOURCE 200809L

#include "float_mode.h"
#include "pockengine_os.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STACK_BYTES = 4 << 20, SPIN_NS = 20000, CACHE_LINE = 64, MAX_THREADS = 256 };
enum { IDLE, OFFERED, BUSY, STOP }; /* of a worker */

typedef struct job {
  pe_body body;
  void* arg;
  int64_t begin, end;
} job;

typedef struct worker {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t changed; /* of `state`, either way */
  int state;              /* atomic */
  int sleepers;           /* threads asleep until `state` changes; atomic */
  int32_t status;         /* of the last job */
  job job;
  char padding[CACHE_LINE];
} worker;

struct pe_pool {
  int32_t threads; /* wanted, the caller among them */
  int32_t workers; /* running */
  int started;
  unsigned forks; /* the value of `forks` when the workers started */
  worker worker[];
};

/* How often this process was forked off: threads do not survive that, so pools start theirs anew.
 */
static unsigned forks;
static pthread_once_t forks_once = PTHREAD_ONCE_INIT;

static void count_fork(void) { ++forks; }
static void watch_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

double pe_clock_ms(void) { return (double)now_ns() * 1e-6; }

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __asm__ __volatile__("pause");
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

static int state_of(const worker* w) { return __atomic_load_n(&w->state, __ATOMIC_SEQ_CST); }

/* Waits until the state is no longer `old`; returns the new one. */
static int await_change(worker* w, int old) {
  int64_t until = now_ns() + SPIN_NS;
  int state;
  do {
    for (int i = 0; i < 32; ++i, relax())
      if ((state = state_of(w)) != old) return state;
  } while (now_ns() < until);
  pthread_mutex_lock(&w->lock);
  __atomic_add_fetch(&w->sleepers, 1, __ATOMIC_SEQ_CST);
  while ((state = state_of(w)) == old) pthread_cond_wait(&w->changed, &w->lock);
  __atomic_sub_fetch(&w->sleepers, 1, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&w->lock);
  return state;
}

/* A sleeper counts itself before it looks at the state, and we change the state before we look for
 * sleepers: one of the two sees the other. */
static void change(worker* w, int state) {
  __atomic_store_n(&w->state, state, __ATOMIC_SEQ_CST);
  if (!__atomic_load_n(&w->sleepers, __ATOMIC_SEQ_CST)) return;
  pthread_mutex_lock(&w->lock);
  pthread_cond_broadcast(&w->changed);
  pthread_mutex_unlock(&w->lock);
}

/* Makes an offered job ours: true for one of the worker and the caller, never for both. */
static int claim(worker* w, int state) {
  int offered = OFFERED;
  return __atomic_compare_exchange_n(&w->state, &offered, state, 0, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST);
}

static int32_t run_job(const job* j) { return j->body(j->arg, j->begin, j->end); }

static void* work(void* arg) {
  worker* w = arg;
  pe_float_mode_flush();
  while (await_change(w, IDLE) != STOP)
    if (claim(w, BUSY)) {
      w->status = run_job(&w->job);
      change(w, IDLE);
    }
  return NULL;
}

/* What became of an offered job, which the caller does itself where the worker has not begun. */
static int32_t finish(worker* w) {
  if (claim(w, IDLE)) return run_job(&w->job);
  await_change(w, BUSY);
  return w->status;
}

static int start_worker(worker* w, const pthread_attr_t* attributes) {
  memset(w, 0, sizeof *w);
  pthread_mutex_init(&w->lock, NULL);
  pthread_cond_init(&w->changed, NULL);
  if (pthread_create(&w->thread, attributes, work, w) == 0) return 1;
  pthread_cond_destroy(&w->changed);
  pthread_mutex_destroy(&w->lock);
  return 0;
}

/* Starts what can be started: fewer threads are slower, not wrong. Signals stay with the caller's
 * thread. */
static void start_workers(pe_pool* pool) {
  pthread_attr_t attributes;
  sigset_t all, before;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pool->workers = 0;
  pool->forks = forks;
  pool->started = 1;
  while (pool->workers < pool->threads - 1 &&
         start_worker(&pool->worker[pool->workers], &attributes))
    ++pool->workers;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
}

/* Piece i of n of [0, extent). */
static job piece(pe_body body, void* arg, int64_t extent, int64_t i, int64_t n) {
  int64_t each = extent / n, more = extent % n;
  job j = {body, arg, each * i + (i < more ? i : more), 0};
  j.end = j.begin + each + (i < more);
  return j;
}

static int32_t parallel(void* ctx, pe_body body, void* arg, int64_t extent, int64_t grain) {
  pe_pool* pool = ctx;
  int64_t pieces = grain > 0 ? extent / grain : 1;
  int32_t status;
  job own;
  if (pieces < 2 || pool->threads < 2) return body(arg, 0, extent);
  if (!pool->started || pool->forks != forks) start_workers(pool);
  if (pieces > pool->workers + 1) pieces = pool->workers + 1;
  for (int64_t i = 1; i < pieces; ++i) {
    pool->worker[i - 1].job = piece(body, arg, extent, i, pieces);
    change(&pool->worker[i - 1], OFFERED);
  }
  own = piece(body, arg, extent, 0, pieces);
  status = run_job(&own);
  for (int64_t i = 1; i < pieces; ++i) {
    int32_t other = finish(&pool->worker[i - 1]);
    if (!status) status = other;
  }
  return status;
}

pe_pool* pe_pool_create(int32_t threads) {
  pe_pool* pool = NULL;
  if (threads < 1) return NULL;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  pthread_once(&forks_once, watch_forks);
  pool = malloc(sizeof *pool + (size_t)(threads - 1) * sizeof(worker));
  if (pool == NULL) return NULL;
  memset(pool, 0, sizeof *pool);
  pool->threads = threads;
  return pool;
}

void pe_pool_destroy(pe_pool* pool) {
  if (pool == NULL) return;
  if (pool->started && pool->forks == forks)
    for (int32_t i = 0; i < pool->workers; ++i) {
      worker* w = &pool->worker[i];
      change(w, STOP);
      pthread_join(w->thread, NULL);
      pthread_cond_destroy(&w->changed);
      pthread_mutex_destroy(&w->lock);
    }
  free(pool);
}

pe_launcher pe_pool_launcher(pe_pool* pool) {
  pe_launcher launcher = {pool, parallel};
  return launcher;
}
