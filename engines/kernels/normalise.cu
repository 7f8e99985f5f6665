// nvcc -ptx -arch=compute_75 -O3
//
// From camera counts to what a network takes.
#include <cstdint>
#include <cuda_fp16.h>

#include "header.cuh"

// Rows [start, start + rows) of pixels (4, height, width) into images (4, rows, width), normalised units.
// A thread a pixel, a block's y a channel.
extern "C" __global__ void normalise(const Header* header, const uint16_t* pixels, __half* images, int height, int width,
                                     int start, int rows) {
    const int64_t pixel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, size = static_cast<int64_t>(rows) * width;
    if (pixel >= size) return;
    const int channel = blockIdx.y;
    const float counts = pixels[(static_cast<int64_t>(channel) * height + start) * width + pixel];
    images[channel * size + pixel] = __float2half_rn((counts - header->offset[channel]) * header->gain[channel]);
}
