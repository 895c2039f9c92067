// The maximum and the mean of windows, and the way back from windows to pixels.
#include "common.cuh"

// y (images, out_height, out_width, channels): the maximum of each window. Padding counts as minus infinity.
//
// winners, which may be null, gets the place of the winner in its window, row by row: the first of equal maxima, be it
// padding; and 0 in a window that holds a NaN, where nothing is lower than the maximum.
KERNEL max_pool(const REAL *__restrict__ x, REAL *__restrict__ y, int *__restrict__ winners, long long images,
                int height, int width, int channels, int out_height, int out_width, int pool_height, int pool_width,
                int stride_y, int stride_x, int top, int left)
{
    EACH_ROW(image, images, out_row, out_height) {
        const int start_y = out_row * stride_y - top;
        const Span rows = pixels_of(start_y, pool_height, height);
        const REAL *pixels = x + image * height * width * channels;
        EACH_PIXEL(out_column, out_width, channel, channels) {
            const int start_x = out_column * stride_x - left;
            const Span columns = pixels_of(start_x, pool_width, width);
            REAL best = MINUS_INFINITY;
            int winner = 0;
            for (int row = rows.first; row < rows.end; row++)
                for (int column = columns.first; column < columns.end; column++) {
                    const REAL value = pixels[(row * width + column) * channels + channel];
                    if (value > best) {
                        best = value;
                        winner = (row - start_y) * pool_width + column - start_x;
                    } else if (value != value) {
                        best = value; // and stays: no number is more than NaN
                        winner = 0;
                    }
                }
            const long long out = ((image * out_height + out_row) * out_width + out_column) * channels + channel;
            y[out] = best;
            if (winners)
                winners[out] = winner;
        }
    }
}

// dx: for each pixel the sum of dy over the windows that it has won, in the order of its places in them.
KERNEL max_pool_backward(const REAL *__restrict__ dy, const int *__restrict__ winners, REAL *__restrict__ dx,
                         long long images, int height, int width, int channels, int out_height, int out_width,
                         int pool_height, int pool_width, int stride_y, int stride_x, int top, int left)
{
    EACH_ROW(image, images, row, height) {
        const Span out_rows = windows_over(row + top, pool_height, stride_y, out_height);
        EACH_PIXEL(column, width, channel, channels) {
            const Span out_columns = windows_over(column + left, pool_width, stride_x, out_width);
            REAL sum = 0;
            for (int out_row = out_rows.end - 1; out_row >= out_rows.first; out_row--)
                for (int out_column = out_columns.end - 1; out_column >= out_columns.first; out_column--) {
                    const int tap_y = row + top - out_row * stride_y;
                    const int tap_x = column + left - out_column * stride_x;
                    const long long out
                        = ((image * out_height + out_row) * out_width + out_column) * channels + channel;
                    if (winners[out] == tap_y * pool_width + tap_x)
                        sum += dy[out];
                }
            dx[((image * height + row) * width + column) * channels + channel] = sum;
        }
    }
}

// What each pixel of a window weighs: one over the number of those that are not padding.
__device__ inline REAL share_of(Span rows, Span columns)
{
    return REAL(1) / REAL((rows.end - rows.first) * (columns.end - columns.first));
}

// y (images, out_height, out_width, channels): the mean of each window over the pixels that are not padding.
KERNEL avg_pool(const REAL *__restrict__ x, REAL *__restrict__ y, long long images, int height, int width, int channels,
                int out_height, int out_width, int pool_height, int pool_width, int stride_y, int stride_x, int top,
                int left)
{
    EACH_ROW(image, images, out_row, out_height) {
        const Span rows = pixels_of(out_row * stride_y - top, pool_height, height);
        const REAL *pixels = x + image * height * width * channels;
        EACH_PIXEL(out_column, out_width, channel, channels) {
            const Span columns = pixels_of(out_column * stride_x - left, pool_width, width);
            REAL sum = 0;
            for (int row = rows.first; row < rows.end; row++)
                for (int column = columns.first; column < columns.end; column++)
                    sum += pixels[(row * width + column) * channels + channel];
            y[((image * out_height + out_row) * out_width + out_column) * channels + channel]
                = sum * share_of(rows, columns);
        }
    }
}

// dx: for each pixel the sum of its shares of dy over the windows that it is in, in the order of its places in them.
KERNEL avg_pool_backward(const REAL *__restrict__ dy, REAL *__restrict__ dx, long long images, int height, int width,
                         int channels, int out_height, int out_width, int pool_height, int pool_width, int stride_y,
                         int stride_x, int top, int left)
{
    EACH_ROW(image, images, row, height) {
        const Span out_rows = windows_over(row + top, pool_height, stride_y, out_height);
        EACH_PIXEL(column, width, channel, channels) {
            const Span out_columns = windows_over(column + left, pool_width, stride_x, out_width);
            REAL sum = 0;
            for (int out_row = out_rows.end - 1; out_row >= out_rows.first; out_row--) {
                const Span rows = pixels_of(out_row * stride_y - top, pool_height, height);
                for (int out_column = out_columns.end - 1; out_column >= out_columns.first; out_column--) {
                    const Span columns = pixels_of(out_column * stride_x - left, pool_width, width);
                    const long long out
                        = ((image * out_height + out_row) * out_width + out_column) * channels + channel;
                    sum += dy[out] * share_of(rows, columns);
                }
            }
            dx[((image * height + row) * width + column) * channels + channel] = sum;
        }
    }
}
