// One multiprocessor of a GPU of compute capability 9.0, on a processor: what a kernel's source asks of it.
//
// The threads of a block are coroutines that change places only where they wait. Which one goes on is drawn
// from a seed, and so is when bulk copies and matrix instructions run: at once, as late as they may, or any time
// between. Memory that they have not written yet holds POISON. What the hardware leaves undefined ends the
// launch with an error where it can be seen: misaligned or stray copies, matrices outside of shared memory,
// arrivals that nothing waits for, warps that disagree on an instruction, and waits that never end.
//
// Shared memory has two faces, as for the hardware: ordinary loads and stores see `shared`, bulk copies and
// matrix instructions see another. Ordinary stores reach the other face at the first barrier all of whose threads
// have passed a fence since their last barrier; that a thread's fence comes after its stores is not checked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <utility>

namespace machine {

constexpr int POISON = 0x7B;                    // a byte; halves and floats of it are finite and huge
constexpr uint32_t SHARED_BYTES = 232448;       // that a block may have
constexpr uint32_t SHARED_START = 1024;         // address of its first byte: not zero on the hardware either
constexpr uint32_t MOST_PENDING = (1u << 20) - 1;   // arrivals and bytes that a barrier counts

struct Dim {
    unsigned x, y, z;
};

// Of the coroutine that runs.
extern Dim thread, block, threads, grid;

struct Range {
    uint64_t start, size;
};

struct Launch {
    Dim grid;
    uint32_t threads, shared;      // of a block; bytes
    uint64_t seed;
    const Range* memory;           // of the device
    uint64_t ranges;
    const uint64_t* sizes;         // of the arguments, bytes
    uint64_t arguments;
};

// Null, or what went wrong.
const char* run(const Launch& launch, const std::function<void()>& kernel);
const char* refuse(const char* why);

void meet(uint32_t barrier, uint32_t count);               // bar.sync
float exchange(float value, uint32_t mask);                // shfl.sync.bfly over a whole warp
void fence();                                              // fence.proxy.async

void barrier_init(uint32_t barrier, uint32_t arrivals);
void barrier_arrive(uint32_t barrier, uint32_t arrivals, uint32_t bytes);
void barrier_wait(uint32_t barrier, uint32_t parity);
void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier);

void matrices_begin();
void multiply(float* d, int columns, uint64_t a, uint64_t b, bool add);
void matrices_commit();
void matrices_wait();

template <class... A, size_t... I>
std::function<void()> bound(void (*kernel)(A...), void** values, std::index_sequence<I...>) {
    return [kernel, arguments = std::tuple<A...>(*static_cast<A*>(values[I])...)] { std::apply(kernel, arguments); };
}

template <class... A>
const char* call(void (*kernel)(A...), const Launch& launch, void** values) {
    const uint64_t sizes[] = {sizeof(A)...};
    if (launch.arguments != sizeof...(A)) return refuse("another number of arguments than the kernel takes");
    for (uint64_t i = 0; i < launch.arguments; ++i)
        if (launch.sizes[i] != sizes[i]) return refuse("an argument of another size than the kernel takes");
    return run(launch, bound(kernel, values, std::index_sequence_for<A...>{}));
}

}  // namespace machine

#define EMULATED(NAME)                                                                     \
    extern "C" const char* emulated_##NAME(const machine::Launch* launch, void** values) { \
        return machine::call(NAME, *launch, values);                                       \
    }
