// What is done to each number by itself, or to each pixel; and the gradient of a bias.
#include "common.cuh"

enum Function { NONE, RELU, TANH, SIGMOID };

template <class T>
__device__ inline void gather(const T *__restrict__ data, const long long *__restrict__ order, REAL *__restrict__ x,
                              long long images, long long pixels, double scale, double offset)
{
    const REAL factor = (REAL)scale, summand = (REAL)offset;
    EACH(long long, image, blockIdx.y, images, gridDim.y) {
        const T *from = data + order[image] * pixels;
        REAL *to = x + image * pixels;
        EACH_NUMBER(pixel, pixels)
            to[pixel] = (REAL)from[pixel] * factor + summand;
    }
}

// x (images, pixels): the images of `data` at `order`, times scale plus offset.
KERNEL gather_images_bytes(const unsigned char *data, const long long *order, REAL *x, long long images,
                           long long pixels, double scale, double offset)
{
    gather(data, order, x, images, pixels, scale, offset);
}

KERNEL gather_images_reals(const REAL *data, const long long *order, REAL *x, long long images, long long pixels,
                           double scale, double offset)
{
    gather(data, order, x, images, pixels, scale, offset);
}

// batch (images): the labels at `order`.
KERNEL gather_labels(const int *__restrict__ labels, const long long *__restrict__ order, int *__restrict__ batch,
                     long long images)
{
    EACH_NUMBER(image, images)
        batch[image] = labels[order[image]];
}

// y = scale x + offset; y may be x.
KERNEL rescale(const REAL *x, REAL *y, long long count, double scale, double offset)
{
    const REAL factor = (REAL)scale, summand = (REAL)offset;
    EACH_NUMBER(i, count)
        y[i] = x[i] * factor + summand;
}

// y (pixels): the weighted sum of the channels of x (pixels, channels).
KERNEL grayscale(const REAL *__restrict__ x, const REAL *__restrict__ weights, REAL *__restrict__ y, long long pixels,
                 int channels)
{
    EACH_NUMBER(pixel, pixels) {
        REAL sum = 0;
        for (int channel = 0; channel < channels; channel++)
            sum += x[pixel * channels + channel] * weights[channel];
        y[pixel] = sum;
    }
}

// dx (pixels, channels) from dy (pixels).
KERNEL grayscale_backward(const REAL *__restrict__ dy, const REAL *__restrict__ weights, REAL *__restrict__ dx,
                          long long pixels, int channels)
{
    EACH_NUMBER(pixel, pixels)
        for (int channel = 0; channel < channels; channel++)
            dx[pixel * channels + channel] = dy[pixel] * weights[channel];
}

__device__ inline REAL activated(REAL x, int function)
{
    switch (function) {
    case RELU:
        return x < 0 ? REAL(0) : x; // NaN stays
    case TANH:
        return tanh(x);
    case SIGMOID:
        return REAL(1) / (REAL(1) + exp(-x));
    default:
        return x;
    }
}

__device__ inline REAL slope(REAL y, int function)
{
    switch (function) {
    case RELU:
        return y > 0 ? REAL(1) : REAL(0);
    case TANH:
        return REAL(1) - y * y;
    case SIGMOID:
        return y * (REAL(1) - y);
    default:
        return REAL(1);
    }
}

// y (rows, filters), in place: plus bias (filters), which may be null, and then the function.
KERNEL bias_activation(REAL *y, const REAL *__restrict__ bias, long long rows, int filters, int function)
{
    EACH(int, filter, blockIdx.y * blockDim.x + threadIdx.x, filters, gridDim.y * blockDim.x)
        EACH(long long, row, (long long)blockIdx.x * blockDim.y + threadIdx.y, rows, (long long)gridDim.x * blockDim.y) {
            const REAL value = y[row * filters + filter];
            y[row * filters + filter] = activated(bias ? value + bias[filter] : value, function);
        }
}

// dy, in place: times the slope of the function at its output y. A product: a slope of 0 does not heal infinity or NaN.
KERNEL activation_backward(REAL *dy, const REAL *__restrict__ y, long long count, int function)
{
    EACH_NUMBER(i, count)
        dy[i] *= slope(y[i], function);
}

// The first half of the gradient of a bias: `partial` (gridDim.x, filters) gets the sums of dy (rows, filters) over
// shares of the rows. With a function, dy is first multiplied by its slope at y, in place, as activation_backward does;
// without one, y may be null.
KERNEL bias_gradient_partial(REAL *dy, const REAL *__restrict__ y, double *__restrict__ partial, long long rows,
                             int filters, int function)
{
    // Every thread of a block must come to the sum, hence the loop over whole blocks of filters.
    EACH(int, first, blockIdx.y * blockDim.x, filters, gridDim.y * blockDim.x) {
        const int filter = first + threadIdx.x;
        double sum = 0;
        if (filter < filters)
            EACH(long long, row, (long long)blockIdx.x * blockDim.y + threadIdx.y, rows,
                 (long long)gridDim.x * blockDim.y) {
                REAL value = dy[row * filters + filter];
                if (function != NONE) {
                    value *= slope(y[row * filters + filter], function);
                    dy[row * filters + filter] = value;
                }
                sum += value;
            }
        sum = column_sum(sum);
        if (filter < filters && threadIdx.y == 0)
            partial[(long long)blockIdx.x * filters + filter] = sum;
    }
}

// The second half: dbias (filters) is the sum over the rows of `partial` (blocks, filters); with `add`, plus what it was.
KERNEL bias_gradient(const double *__restrict__ partial, REAL *dbias, int blocks, int filters, int add)
{
    EACH(int, first, blockIdx.x * blockDim.x, filters, gridDim.x * blockDim.x) {
        const int filter = first + threadIdx.x;
        double sum = 0;
        if (filter < filters)
            EACH(int, block, threadIdx.y, blocks, blockDim.y)
                sum += partial[(long long)block * filters + filter];
        sum = column_sum(sum);
        if (filter < filters && threadIdx.y == 0)
            dbias[filter] = (REAL)(add ? dbias[filter] + sum : sum);
    }
}

// x, in place: times scale where `kept` is 1, times 0 where it is 0.
KERNEL dropout(REAL *x, const unsigned char *__restrict__ kept, long long count, double scale)
{
    const REAL factor = (REAL)scale;
    EACH_NUMBER(i, count)
        x[i] *= kept[i] ? factor : REAL(0);
}
