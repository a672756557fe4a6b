/* What ThreadSanitizer cannot see of the standard library, which comes compiled without it. A lock that is free is taken and given back by
 * code that is compiled with its user, and is seen; one that is not is taken in the library. `run` hands over what the functions are
 * called there, and has the linker put these before them. */
#include <stdbool.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

#define PASTE(a, b) a##b
#define NAME(a, b) PASTE(a, b)
#define BEFORE(function) NAME(__wrap_, function)
#define REAL(function) NAME(__real_, function)

/* The word of a lock is its first. Who unlocks does so where it is seen. */
#define TAKES(function)              \
    void REAL(function)(void *lock); \
    void BEFORE(function)(void *lock) { \
        REAL(function)(lock);        \
        __tsan_acquire(lock);        \
    }

TAKES(MUTEX_LOCK)
TAKES(RWLOCK_READ)
TAKES(RWLOCK_WRITE)

/* The last that a thread of a scope does; the scope's end waits until the count, one of its three words, is zero. */
void REAL(SCOPE_END)(void **scope, bool panicked);
void BEFORE(SCOPE_END)(void **scope, bool panicked) {
    for (int i = 0; i < 3; i++) __tsan_release(&scope[i]);
    REAL(SCOPE_END)(scope, panicked);
}

/* Who takes a shared thing for its own (Arc's last drop, try_unwrap) looks at the count without order and has a fence after that.
 * ThreadSanitizer passes fences over; this is what they mean there. */
static __thread void *counted;

unsigned long __real___tsan_atomic64_fetch_sub(void *count, unsigned long by, int order);
unsigned long __wrap___tsan_atomic64_fetch_sub(void *count, unsigned long by, int order) {
    counted = count;
    return __real___tsan_atomic64_fetch_sub(count, by, order);
}

unsigned long __real___tsan_atomic64_compare_exchange_val(void *count, unsigned long old, unsigned long new, int order, int failed);
unsigned long __wrap___tsan_atomic64_compare_exchange_val(void *count, unsigned long old, unsigned long new, int order, int failed) {
    counted = count;
    return __real___tsan_atomic64_compare_exchange_val(count, old, new, order, failed);
}

void __real___tsan_atomic_thread_fence(int order);
void __wrap___tsan_atomic_thread_fence(int order) {
    __real___tsan_atomic_thread_fence(order);
    if (order != __ATOMIC_RELAXED && order != __ATOMIC_RELEASE && counted) __tsan_acquire(counted);
}
