// nvcc -ptx -arch=compute_75 -O3
//
// Laying strips together.
#include <cstdint>

// Rows [first, first + kept) of planes (n, rows, width) into rows [target, target + kept) of planes (n, height, width).
// A thread a pixel, a block's y a plane.
extern "C" __global__ void keep_rows(const float* strip, float* whole, int rows, int height, int width, int first, int target,
                                     int kept) {
    const int64_t pixel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (pixel >= static_cast<int64_t>(kept) * width) return;
    const int64_t plane = blockIdx.y;
    whole[(plane * height + target) * width + pixel] = strip[(plane * rows + first) * width + pixel];
}
