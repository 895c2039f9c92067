// What all kernels share: types, loops over the grid, windows along one axis, sums over a warp and over a block.
//
// REAL is float or double, by -DREAL=... . Arrays are in C order, images (batch, height, width, channels). One image has
// fewer than 2^31 numbers, so places within it are int; what counts images, rows or all numbers is long long.
// No kernel has atomics, and each sum has an order that depends on sizes alone: the same call gives the same bits.

#define MINUS_INFINITY ((REAL)__int_as_float((int)0xff800000)) // written so, it needs no header of the toolkit

#define THREADS 256 // the most in a block

// One block at a time would do. Left to itself, the compiler makes room for more and spills registers for it.
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS, 1)

// for (type name = start; name < end; name += step): over what is left for this block or thread.
#define EACH(type, name, start, end, step) for (type name = start; name < end; name += step)

// Over all numbers of an array, one a thread, again and again.
#define EACH_NUMBER(i, count) \
    EACH(long long, i, (long long)blockIdx.x * blockDim.x + threadIdx.x, count, (long long)gridDim.x * blockDim.x)

// A block takes one row of one image at a time; its threads take (column, channel), the channels side by side in memory.
#define EACH_ROW(image, images, row, rows) \
    EACH(long long, image, blockIdx.y, images, gridDim.y) \
    EACH(int, row, blockIdx.x, rows, gridDim.x)
#define EACH_PIXEL(column, columns, channel, channels) \
    EACH(int, column, threadIdx.y, columns, blockDim.y) \
    EACH(int, channel, threadIdx.x, channels, blockDim.x)

struct Span {
    int first, end;
};

// The pixels of a window that lie in the image, along one axis. `start` is negative where the window begins in padding.
__device__ inline Span pixels_of(int start, int length, int size)
{
    return {max(start, 0), min(start + length, size)};
}

// The windows that hold a pixel, along one axis. `place` counts from the beginning of the padding.
__device__ inline Span windows_over(int place, int length, int stride, int windows)
{
    return {place < length ? 0 : (place - length) / stride + 1, min(place / stride + 1, windows)};
}

// The largest number, or the sum, over the 32 threads of a warp, the same in each of them.
__device__ inline REAL warp_max(REAL value)
{
    for (int distance = 16; distance > 0; distance /= 2) {
        const REAL other = __shfl_xor_sync(0xffffffffu, value, distance);
        value = other > value ? other : value;
    }
    return value;
}

__device__ inline double warp_sum(double value)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// The sum over threadIdx.y for each threadIdx.x, right in the threads with threadIdx.y == 0. All threads must call it.
__device__ inline double column_sum(double value)
{
    __shared__ double sums[THREADS];
    const int place = threadIdx.y * blockDim.x + threadIdx.x;
    sums[place] = value;
    __syncthreads();
    for (int left = blockDim.y; left > 1; left = (left + 1) / 2) {
        const int half = (left + 1) / 2; // the middle one of an odd number waits for the next round
        if ((int)threadIdx.y < left / 2)
            sums[place] += sums[place + half * blockDim.x];
        __syncthreads();
    }
    return sums[place]; // which no other thread writes, in the next sum neither
}
