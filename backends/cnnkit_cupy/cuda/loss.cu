// Scores to probabilities, and their cross-entropy with its gradient. A warp takes one row of scores at a time.
#include "common.cuh"

struct Row {
    REAL largest;
    double total; // the sum of exp(score - largest)
};

__device__ inline Row look_over(const REAL *scores, int classes)
{
    REAL largest = MINUS_INFINITY;
    EACH(int, i, threadIdx.x, classes, 32)
        largest = scores[i] > largest ? scores[i] : largest; // a NaN is passed over here, and found by the sum
    largest = warp_max(largest);
    double total = 0;
    EACH(int, i, threadIdx.x, classes, 32)
        total += exp(scores[i] - largest);
    return {largest, warp_sum(total)};
}

#define EACH_SCORED_ROW(row, rows) \
    EACH(long long, row, (long long)blockIdx.x * blockDim.y + threadIdx.y, rows, (long long)gridDim.x * blockDim.y)

// out (rows, classes): probabilities; it may be scores.
KERNEL softmax(const REAL *scores, REAL *out, long long rows, int classes)
{
    EACH_SCORED_ROW(row, rows) {
        const REAL *of_row = scores + row * classes;
        const Row seen = look_over(of_row, classes);
        EACH(int, i, threadIdx.x, classes, 32)
            out[row * classes + i] = exp(of_row[i] - seen.largest) / (REAL)seen.total;
    }
}

// losses (rows): the cross-entropy of each row; dscores (rows, classes): `weight` times its gradient.
KERNEL softmax_cross_entropy(const REAL *__restrict__ scores, const int *__restrict__ labels,
                             REAL *__restrict__ dscores, double *__restrict__ losses, long long rows, int classes,
                             double weight)
{
    const REAL factor = (REAL)weight;
    EACH_SCORED_ROW(row, rows) {
        const REAL *of_row = scores + row * classes;
        const int label = labels[row];
        const Row seen = look_over(of_row, classes);
        EACH(int, i, threadIdx.x, classes, 32) {
            const REAL probability = exp(of_row[i] - seen.largest) / (REAL)seen.total;
            dscores[row * classes + i] = (i == label ? probability - REAL(1) : probability) * factor;
        }
        // The difference of the scores first: next to a score of 1e30 the logarithm would be lost.
        if (threadIdx.x == 0)
            losses[row] = log(seen.total) - ((double)of_row[label] - (double)seen.largest);
    }
}

// total (1): `weight` times the sum of the losses; with `add`, plus what it was. One block, of threads along y.
KERNEL sum_losses(const double *__restrict__ losses, double *total, long long rows, double weight, int add)
{
    double sum = 0;
    EACH(long long, row, threadIdx.y, rows, blockDim.y)
        sum += losses[row];
    sum = column_sum(sum) * weight;
    if (threadIdx.y == 0)
        total[0] = add ? total[0] + sum : sum;
}
