// Optimizers: one step for all parameters, which are one vector, in the order of operations of cnnkit.optimizers.
//
// What changes from step to step is read from the device, so that a recorded step can be played again. `coefficients`
// are those of step_coefficients. `factor` is that of clip_factor, or null without a limit.
#include "common.cuh"

// Advances step (1), and works out of the learning rate (1) the coefficients (3) of the step that now comes: what decay
// leaves of a parameter, the rate over the correction of m, and the correction of v. SGD has betas of 0. One thread.
KERNEL step_coefficients(long long *step, const double *__restrict__ rate, double *__restrict__ coefficients,
                         double beta_1, double beta_2, double weight_decay)
{
    const long long t = ++step[0];
    coefficients[0] = 1.0 - rate[0] * weight_decay;
    coefficients[1] = rate[0] / (1.0 - pow(beta_1, (double)t));
    coefficients[2] = 1.0 - pow(beta_2, (double)t);
}

// partial (gridDim.x): sums of the squares of shares of g. Threads along y.
KERNEL square_sum(const REAL *__restrict__ g, double *__restrict__ partial, long long count)
{
    double sum = 0;
    EACH(long long, i, (long long)blockIdx.x * blockDim.y + threadIdx.y, count, (long long)gridDim.x * blockDim.y)
        sum += (double)g[i] * (double)g[i];
    sum = column_sum(sum);
    if (threadIdx.y == 0)
        partial[blockIdx.x] = sum;
}

// factor (1): min(1, limit / norm), and 1 for a norm of NaN. One block, of threads along y.
KERNEL clip_factor(const double *__restrict__ partial, double *__restrict__ factor, int blocks, double limit)
{
    double sum = 0;
    EACH(int, block, threadIdx.y, blocks, blockDim.y)
        sum += partial[block];
    const double norm = sqrt(column_sum(sum));
    if (threadIdx.y == 0)
        factor[0] = norm > limit ? limit / norm : 1.0;
}

__device__ inline REAL clipped(REAL g, const double *factor)
{
    return factor ? g * (REAL)factor[0] : g;
}

// v may be null with a momentum of 0.
KERNEL update_sgd(REAL *__restrict__ p, const REAL *__restrict__ gradient, REAL *__restrict__ v, long long count,
                  const double *__restrict__ coefficients, const double *__restrict__ factor, double momentum,
                  int nesterov, double weight_decay)
{
    const REAL rate = (REAL)coefficients[1], kept = (REAL)momentum, decay = (REAL)weight_decay;
    EACH_NUMBER(i, count) {
        REAL g = clipped(gradient[i], factor);
        if (weight_decay != 0)
            g += decay * p[i];
        if (momentum != 0) {
            const REAL speed = v[i] * kept + g;
            v[i] = speed;
            g = nesterov ? g + kept * speed : speed;
        }
        p[i] -= rate * g;
    }
}

__device__ inline REAL adam_step(REAL g, REAL *m, REAL *v, REAL beta_1, REAL rest_1, REAL beta_2, REAL rest_2,
                                 REAL epsilon, REAL rate, REAL correction)
{
    *m = *m * beta_1 + rest_1 * g;
    *v = *v * beta_2 + rest_2 * (g * g);
    return *m * rate / (sqrt(*v / correction) + epsilon);
}

KERNEL update_adam(REAL *__restrict__ p, const REAL *__restrict__ gradient, REAL *__restrict__ m, REAL *__restrict__ v,
                   long long count, const double *__restrict__ coefficients, const double *__restrict__ factor,
                   double beta_1, double beta_2, double epsilon)
{
    const REAL rate = (REAL)coefficients[1], correction = (REAL)coefficients[2];
    EACH_NUMBER(i, count)
        p[i] -= adam_step(clipped(gradient[i], factor), m + i, v + i, (REAL)beta_1, (REAL)(1.0 - beta_1), (REAL)beta_2,
                          (REAL)(1.0 - beta_2), (REAL)epsilon, rate, correction);
}

KERNEL update_adamw(REAL *__restrict__ p, const REAL *__restrict__ gradient, REAL *__restrict__ m, REAL *__restrict__ v,
                    long long count, const double *__restrict__ coefficients, const double *__restrict__ factor,
                    double beta_1, double beta_2, double epsilon)
{
    const REAL kept = (REAL)coefficients[0], rate = (REAL)coefficients[1], correction = (REAL)coefficients[2];
    EACH_NUMBER(i, count)
        p[i] = p[i] * kept
               - adam_step(clipped(gradient[i], factor), m + i, v + i, (REAL)beta_1, (REAL)(1.0 - beta_1), (REAL)beta_2,
                           (REAL)(1.0 - beta_2), (REAL)epsilon, rate, correction);
}
