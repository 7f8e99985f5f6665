// Where a matrix instruction finds its operands in shared memory.
#pragma once
#include <stdint.h>

// A matrix of 8 x 8 cores, rows of 16 bytes, no swizzle: `across` bytes from one core to the next along
// the summed dimension, `down` bytes to the next along the other.
__device__ __forceinline__ uint64_t matrix(uint32_t address, uint32_t across, uint32_t down) {
    return static_cast<uint64_t>((address & 0x3FFFF) >> 4) | static_cast<uint64_t>(across >> 4) << 16 |
           static_cast<uint64_t>(down >> 4) << 32;
}
