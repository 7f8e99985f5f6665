// CUDA's language for a C++ compiler: what a kernel's source uses without including it.
#pragma once
#include <cmath>
#include <cstdint>
#include <cuda_fp16.h>

#include "machine.h"

#undef __global__
#undef __device__
#undef __shared__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx machine::thread
#define blockIdx machine::block
#define blockDim machine::threads
#define gridDim machine::grid

inline int min(int a, int b) { return a < b ? a : b; }
inline float __expf(float x) { return std::exp(x); }
inline float __shfl_xor_sync(unsigned, float value, int mask) { return machine::exchange(value, mask); }
inline void __syncthreads() { machine::meet(0, machine::threads.x); }
