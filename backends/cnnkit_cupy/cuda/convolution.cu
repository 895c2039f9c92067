// Patches of images as the rows of a matrix, and the way back from patches to pixels.
#include "common.cuh"

// patches (images * out_height * out_width, kernel_height * kernel_width * channels); padding is 0.
//
// A thread keeps its column of the matrix, so that the divisions are done once; neighbours write neighbours.
KERNEL im2col(const REAL *__restrict__ x, REAL *__restrict__ patches, long long images, int height, int width,
              int channels, int out_height, int out_width, int kernel_height, int kernel_width, int stride_y,
              int stride_x, int dilation_y, int dilation_x, int top, int left)
{
    const int size = kernel_height * kernel_width * channels;
    EACH(int, place, threadIdx.x, size, blockDim.x) {
        const int channel = place % channels;
        const int shift_x = place / channels % kernel_width * dilation_x - left;
        const int shift_y = place / channels / kernel_width * dilation_y - top;
        EACH_ROW(image, images, out_row, out_height) {
            const int row = out_row * stride_y + shift_y;
            const bool row_is_inside = 0 <= row && row < height;
            const long long pixels = (image * height + row) * width * channels + channel;
            REAL *values = patches + (image * out_height + out_row) * out_width * size + place;
            EACH(int, out_column, threadIdx.y, out_width, blockDim.y) {
                const int column = out_column * stride_x + shift_x;
                const bool is_inside = row_is_inside && 0 <= column && column < width;
                values[(long long)out_column * size] = is_inside ? x[pixels + column * channels] : REAL(0);
            }
        }
    }
}

// dx: for each pixel the sum over the patches that it is part of, in the order of its places in them.
KERNEL col2im(const REAL *__restrict__ dpatches, REAL *__restrict__ dx, long long images, int height, int width,
              int channels, int out_height, int out_width, int kernel_height, int kernel_width, int stride_y,
              int stride_x, int dilation_y, int dilation_x, int top, int left)
{
    const int size = kernel_height * kernel_width * channels;
    EACH_ROW(image, images, row, height) {
        EACH_PIXEL(column, width, channel, channels) {
            REAL sum = 0;
            for (int tap_y = 0; tap_y < kernel_height; tap_y++) {
                const int y = row + top - tap_y * dilation_y;
                const int out_row = y / stride_y;
                if (y < 0 || out_row >= out_height || y % stride_y != 0)
                    continue;
                const REAL *of_row = dpatches + (image * out_height + out_row) * out_width * size
                                     + tap_y * kernel_width * channels + channel;
                for (int tap_x = 0; tap_x < kernel_width; tap_x++) {
                    const int x = column + left - tap_x * dilation_x;
                    const int out_column = stride_x == 1 ? x : x / stride_x;
                    if (x >= 0 && out_column < out_width && out_column * stride_x == x)
                        sum += of_row[(long long)out_column * size + tap_x * channels];
                }
            }
            dx[((image * height + row) * width + column) * channels + channel] = sum;
        }
    }
}
