// What the kernels use of CUDA, on a CPU: blocks one after the other, and the threads of a block as fibers.
//
// A thread runs until it has to wait for others, in __syncthreads or in a shuffle; only then is there a second fiber. So
// a kernel without such places costs no switches. All is done by one thread of the CPU: a race is not seen as such, but
// `backward` runs blocks and threads in the opposite order, in which a race gives other numbers.
#pragma once

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ static // one block at a time
#define __syncthreads() host::wait_for_block()

using std::max;
using std::min;

struct Dim3 {
    unsigned x, y, z;
    unsigned size() const { return x * y * z; }
};

static Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {

constexpr unsigned MOST_THREADS = 1024, WARP = 32;
constexpr size_t STACK = 256 * 1024;

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[STACK]};
    Dim3 thread;
    bool is_free = true;
};

struct Meeting { // of the threads of a block, or of a warp
    unsigned arrived = 0;
    unsigned long long round = 0;
};

static void (*kernel)(void **);
static void **kernel_arguments;
static bool backward;
static const char *failure;

static ucontext_t scheduler;
static std::vector<std::unique_ptr<Fiber>> fibers;
static Fiber *running;
static unsigned started, moves; // threads of this block; what has happened, to tell that nothing does any more
static Meeting of_block, of_warp[MOST_THREADS / WARP];
static unsigned long long exchanged[MOST_THREADS];

inline unsigned place() { return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x; }

// Runs threads until none is left to be started.
inline void work()
{
    while (started < blockDim.size()) {
        const unsigned number = backward ? blockDim.size() - 1 - started : started;
        started++;
        threadIdx = {number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y};
        kernel(kernel_arguments);
        moves++;
    }
    running->is_free = true;
}

inline void suspend()
{
    Fiber *self = running;
    self->thread = threadIdx;
    swapcontext(&self->context, &scheduler);
    threadIdx = self->thread;
}

inline void resume(Fiber *fiber)
{
    running = fiber;
    swapcontext(&scheduler, &fiber->context);
}

inline void wait_for(Meeting &meeting, unsigned members)
{
    const unsigned long long round = meeting.round;
    if (++meeting.arrived == members) {
        meeting = {0, round + 1};
        moves++;
    }
    while (meeting.round == round)
        suspend();
}

inline void wait_for_block() { wait_for(of_block, blockDim.size()); }

inline void run_block()
{
    started = 0;
    of_block = {};
    for (Meeting &meeting : of_warp)
        meeting = {};
    size_t used = 0;
    while (started < blockDim.size()) {
        if (used == fibers.size())
            fibers.emplace_back(new Fiber);
        Fiber *fiber = fibers[used++].get();
        fiber->is_free = false;
        getcontext(&fiber->context);
        fiber->context.uc_stack.ss_sp = fiber->stack.get();
        fiber->context.uc_stack.ss_size = STACK;
        fiber->context.uc_link = &scheduler;
        makecontext(&fiber->context, work, 0);
        resume(fiber);
    }
    for (bool waiting = true; waiting && !failure;) {
        const unsigned before = moves;
        waiting = false;
        for (size_t i = 0; i < used; i++)
            if (!fibers[i]->is_free) {
                waiting = true;
                resume(fibers[i].get());
            }
        if (waiting && moves == before)
            failure = "some threads wait for others that never come";
    }
}

template <class... Types, size_t... Places>
void call(void (*function)(Types...), void **arguments, std::index_sequence<Places...>)
{
    function(*static_cast<Types *>(arguments[Places])...);
}

template <class... Types>
void call(void (*function)(Types...), void **arguments)
{
    call(function, arguments, std::index_sequence_for<Types...>{});
}

} // namespace host

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance)
{
    static_assert(sizeof(T) <= sizeof host::exchanged[0]);
    const unsigned place = host::place(), partner = place ^ distance;
    host::Meeting &warp = host::of_warp[place / host::WARP];
    if (mask != 0xffffffffu || partner / host::WARP != place / host::WARP || blockDim.size() % host::WARP != 0)
        host::failure = "a shuffle with lanes that are not there";
    memcpy(&host::exchanged[place], &value, sizeof value);
    host::wait_for(warp, host::WARP);
    memcpy(&value, &host::exchanged[partner % host::MOST_THREADS], sizeof value);
    host::wait_for(warp, host::WARP);
    return value;
}

inline float __int_as_float(int bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
