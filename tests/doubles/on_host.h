// CUDA's words for a processor: a kernel's threads run one after the other.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

struct Index {
    unsigned x, y, z;
};
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;
#define __global__
#define __device__
using std::floor;

// The arguments lie where a driver's caller puts them: one address each.
template <class... A, std::size_t... I>
void run_all(void (*kernel)(A...), void** at, Index grid, unsigned block, std::index_sequence<I...>) {
    gridDim = grid, blockDim = {block, 1, 1};
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x)
                for (unsigned thread = 0; thread < block; ++thread) {
                    blockIdx = {x, y, z}, threadIdx = {thread, 0, 0};
                    kernel(*static_cast<A*>(at[I])...);
                }
}

// Bytes of each argument, and a 0 after the last.
template <class... A>
const unsigned* sizes_of(void (*)(A...)) {
    static const unsigned sizes[] = {sizeof(A)..., 0};
    return sizes;
}

template <class... A>
void run_all(void (*kernel)(A...), void** at, Index grid, unsigned block) {
    run_all(kernel, at, grid, block, std::index_sequence_for<A...>{});
}
