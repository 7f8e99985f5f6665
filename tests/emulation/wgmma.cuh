// Stands in for engines/kernels/wgmma.cuh on a processor.
#pragma once
#include "machine.h"
#include "matrix.cuh"

extern unsigned char shared[];

inline uint32_t shared_address(const void* pointer) {
    return machine::SHARED_START + static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - shared);
}

inline void barrier_init(uint32_t barrier, uint32_t arrivals) { machine::barrier_init(barrier, arrivals); }
inline void barrier_arrive(uint32_t barrier, uint32_t arrivals) { machine::barrier_arrive(barrier, arrivals, 0); }
inline void barrier_arrive_expecting(uint32_t barrier, uint32_t bytes) { machine::barrier_arrive(barrier, 1, bytes); }
inline void barrier_wait(uint32_t barrier, uint32_t parity) { machine::barrier_wait(barrier, parity); }
inline void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
    machine::bulk_copy(to, from, bytes, barrier);
}
inline void group_sync(uint32_t barrier, uint32_t threads) { machine::meet(barrier, threads); }
inline void fence_for_matrices() { machine::fence(); }

inline void matrices_begin() { machine::matrices_begin(); }
inline void matrices_commit() { machine::matrices_commit(); }
template <int... N>
inline void matrices_wait([[maybe_unused]] float (&... sums)[N]) {
    machine::matrices_wait();
}

template <int N>
inline void multiply(float (&d)[N / 2], uint64_t a, uint64_t b, int add) {
    machine::multiply(d, N, a, b, add != 0);
}
