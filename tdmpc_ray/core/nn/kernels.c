/* Fused row kernels for the CPU: what follows a matrix product in TD-MPC2, in one pass over memory.

   A row is x[dim], a product without its bias c. `group_rows` tells how many rows share one set of parameters:
   the heads of an ensemble each have their own. LayerNorm: h = (x + c - mean) * rstd, u = h * w + b, eps 1e-5.
   Dropout (Q heads) happens between bias and norm; its mask is a hash of (seed, element), so that backward
   rebuilds it instead of storing it. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define MAX_DIM 8192

/* Rows of bf16 are widened into a buffer of floats, worked on there, and rounded to nearest even at the end. */
typedef uint16_t bf16;

INLINE void widen_(const bf16 *from, float *to, int64_t dim) {
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(to + i, &bits, 4);
    }
}

INLINE void round_(const float *from, bf16 *to, int64_t dim) {
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, 4);
        uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
        to[i] = (bf16)((bits & 0x7fffffffU) > 0x7f800000U ? 0x7fc0U : rounded); /* NaN stays NaN */
    }
}

/* Row r of a tensor of either type: in place for float, widened into `buffer` for bf16. */
INLINE const float *row_(const void *x, int64_t r, int64_t dim, int64_t is_bf16, float *buffer) {
    if (!is_bf16) return (const float *)x + r * dim;
    widen_((const bf16 *)x + r * dim, buffer, dim);
    return buffer;
}

/* e^x to 2 ulp: 2^n * e^r with r in [-ln2/2, ln2/2]; 0 below e^-87, NaN of NaN. Written so that the compiler
   vectorises it. */
INLINE float exp_(float x) {
    x = x > 88.0f ? 88.0f : x;
    float n = rintf((x > -87.0f ? x : -87.0f) * 1.44269504088896341f); /* a number, also of NaN */
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return x < -87.0f ? 0.0f : p * scale;
}

/* To 2 ulp of 1; NaN of NaN. */
INLINE float tanh_(float x) {
    float e = exp_(2.0f * (x < 10.0f ? x : (x != x ? x : 10.0f)));
    return 1.0f - 2.0f / (e + 1.0f);
}

/* What PyTorch makes of an infinite sum, which it subtracts from itself on its way. */
INLINE float finite_or_nan_(float x) { return x + 0.0f * x; }

INLINE uint32_t hash_(uint32_t x) {
    x ^= x >> 16; x *= 0x7feb352dU;
    x ^= x >> 15; x *= 0x846ca68bU;
    return x ^ (x >> 16);
}

/* 0 where the element is dropped, 1 / (1 - p) where it is kept; p = threshold / 2^32. */
INLINE float keep_(uint32_t seed, uint32_t index, uint32_t threshold, float scale) {
    return hash_(hash_(index) ^ seed) < threshold ? 0.0f : scale;
}

/* v = (x + c) * keep, and its moments. keep is written where there is dropout. */
INLINE void moments_(const float *x, const float *c, int64_t r, int64_t dim, uint32_t seed, uint32_t threshold,
                     float scale, float *v, float *keep, float *mean, float *rstd) {
    float sum = 0.0f, square = 0.0f;
    if (threshold) {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < dim; i++) {
            keep[i] = keep_(seed, (uint32_t)(r * dim + i), threshold, scale);
            v[i] = (x[i] + c[i]) * keep[i];
            sum += v[i];
        }
    } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < dim; i++) { v[i] = x[i] + c[i]; sum += v[i]; }
    }
    float m = sum / dim;
#pragma omp simd reduction(+ : square)
    for (int64_t i = 0; i < dim; i++) square += (v[i] - m) * (v[i] - m);
    *mean = m;
    *rstd = 1.0f / sqrtf(square / dim + 1e-5f);
}

/* Softmax over each `group` values. One shift serves the whole row unless its values lie so far apart that
   e^(u - top) would underflow, which LayerNorm all but rules out. */
INLINE void softmax_groups_(float *u, int64_t dim, int64_t group) {
    float top = -INFINITY, bottom = INFINITY; /* NaN is above and below nothing */
#pragma omp simd reduction(max : top) reduction(min : bottom)
    for (int64_t i = 0; i < dim; i++) {
        top = u[i] > top ? u[i] : top;
        bottom = u[i] < bottom ? u[i] : bottom;
    }
    if (top - bottom > 80.0f) {
        for (int64_t g = 0; g < dim; g += group) {
            float shift = u[g];
            for (int64_t i = 1; i < group; i++) shift = u[g + i] > shift ? u[g + i] : shift;
            for (int64_t i = 0; i < group; i++) u[g + i] -= shift;
        }
        top = 0.0f;
    }
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) u[i] = exp_(u[i] - top);
    for (int64_t g = 0; g < dim; g += group) {
        float sum = 0.0f;
        for (int64_t i = 0; i < group; i++) sum += u[g + i];
        float inverse = 1.0f / sum;
        for (int64_t i = 0; i < group; i++) u[g + i] *= inverse;
    }
}

/* y = act(LayerNorm(dropout(x + c))): mish where simnorm is 0, tanh where it is -1, else softmax over groups of
   `simnorm`.
   x and y are float or bf16, and may begin at one address. c, w, b: (rows / group_rows, dim). */
void norm_act_forward(const void *x, const float *c, const float *w, const float *b, void *y, int64_t is_bf16,
                      int64_t y_is_bf16, int64_t rows, int64_t dim, int64_t group_rows, int64_t simnorm, uint32_t seed,
                      uint32_t threshold, float scale) {
    float wide[MAX_DIM], v[MAX_DIM], keep[MAX_DIM];
    for (int64_t r = 0; r < rows; r++) {
        int64_t p = (r / group_rows) * dim;
        const float *xr = row_(x, r, dim, is_bf16, wide), *wr = w + p, *br = b + p;
        float *yr = y_is_bf16 ? wide : (float *)y + r * dim, mean, rstd;
        moments_(xr, c + p, r, dim, seed, threshold, scale, v, keep, &mean, &rstd);
        if (simnorm < 0) {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) yr[i] = tanh_((v[i] - mean) * rstd * wr[i] + br[i]);
        } else if (simnorm) {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) yr[i] = (v[i] - mean) * rstd * wr[i] + br[i];
            softmax_groups_(yr, dim, simnorm);
        } else {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) {
                float u = (v[i] - mean) * rstd * wr[i] + br[i], e = exp_(u < 20.0f ? u : 20.0f), n = e * (e + 2.0f);
                yr[i] = u * (n / (n + 2.0f)); /* tanh(softplus(u)) = n / (n + 2) with n = e^u (e^u + 2) */
            }
        }
        if (y_is_bf16) round_(yr, (bf16 *)y + r * dim, dim);
    }
}

/* Gradients of norm_act_forward. y counts with simnorm alone. dc, dw and db, (rows / group_rows, dim), must be
   zero on entry; null skips them. */
void norm_act_backward(const void *x, const float *c, const float *w, const float *b, const void *y, const void *dy,
                       void *dx, float *dc, float *dw, float *db, int64_t is_bf16, int64_t rows, int64_t dim,
                       int64_t group_rows, int64_t simnorm, uint32_t seed, uint32_t threshold, float scale) {
    float h[MAX_DIM], g[MAX_DIM], keep[MAX_DIM], wide_x[MAX_DIM], wide_y[MAX_DIM], wide_dy[MAX_DIM];
    for (int64_t r = 0; r < rows; r++) {
        int64_t p = (r / group_rows) * dim;
        const float *xr = row_(x, r, dim, is_bf16, wide_x), *dyr = row_(dy, r, dim, is_bf16, wide_dy);
        const float *wr = w + p, *br = b + p, *yr = simnorm > 0 ? row_(y, r, dim, is_bf16, wide_y) : 0;
        float *dxr = is_bf16 ? wide_x : (float *)dx + r * dim, mean, rstd, sum = 0.0f, dot = 0.0f;
        moments_(xr, c + p, r, dim, seed, threshold, scale, h, keep, &mean, &rstd);
        if (simnorm < 0) {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) {
                h[i] = (h[i] - mean) * rstd;
                float t = tanh_(h[i] * wr[i] + br[i]);
                g[i] = dyr[i] * (1.0f - t * t);
            }
        } else if (simnorm) { /* g = y * (dy - sum of dy * y over the group) */
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) { h[i] = (h[i] - mean) * rstd; g[i] = dyr[i] * yr[i]; }
            for (int64_t s = 0; s < dim; s += simnorm) {
                float weighted = 0.0f;
                for (int64_t i = s; i < s + simnorm; i++) weighted += g[i];
                for (int64_t i = s; i < s + simnorm; i++) g[i] -= yr[i] * weighted;
            }
        } else { /* d mish / du = n / (n + 2) + u * 4 e (e + 1) / (n + 2)^2, with e and n as in the forward pass;
                    from 20 on the second part is 0, and NaN of infinity, as PyTorch has it */
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) {
                h[i] = (h[i] - mean) * rstd;
                float u = h[i] * wr[i] + br[i], e = exp_(u < 20.0f ? u : 20.0f), n = e * (e + 2.0f);
                float inverse = 1.0f / (n + 2.0f);
                float bend = u < 20.0f ? 4.0f * e * (e + 1.0f) * inverse : 0.0f;
                g[i] = dyr[i] * inverse * (n + u * bend);
            }
        }
        if (dw) {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) { dw[p + i] += g[i] * h[i]; db[p + i] += g[i]; }
        }
#pragma omp simd reduction(+ : sum, dot)
        for (int64_t i = 0; i < dim; i++) { g[i] *= wr[i]; sum += g[i]; dot += g[i] * h[i]; }
        sum = finite_or_nan_(sum / dim); dot = finite_or_nan_(dot / dim);
#pragma omp simd
        for (int64_t i = 0; i < dim; i++) dxr[i] = rstd * (g[i] - sum - h[i] * dot);
        if (threshold) {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) dxr[i] *= keep[i];
        }
        if (dc) {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) dc[p + i] += dxr[i];
        }
        if (is_bf16) round_(dxr, (bf16 *)dx + r * dim, dim);
    }
}

/* y = elu(x + c), with c (rows / group_rows, dim). x and y may begin at one address. */
void bias_elu_forward(const void *x, const float *c, void *y, int64_t is_bf16, int64_t rows, int64_t dim,
                      int64_t group_rows) {
    float wide[MAX_DIM];
    for (int64_t r = 0; r < rows; r++) {
        const float *xr = row_(x, r, dim, is_bf16, wide), *cr = c + (r / group_rows) * dim;
        float *yr = is_bf16 ? wide : (float *)y + r * dim;
#pragma omp simd
        for (int64_t i = 0; i < dim; i++) {
            float u = xr[i] + cr[i];
            yr[i] = u > 0.0f ? u : exp_(u) - 1.0f;
        }
        if (is_bf16) round_(yr, (bf16 *)y + r * dim, dim);
    }
}

/* Gradients of bias_elu_forward, by what it gave. dc must be zero on entry; null skips it. */
void bias_elu_backward(const void *y, const void *dy, void *dx, float *dc, int64_t is_bf16, int64_t rows, int64_t dim,
                       int64_t group_rows) {
    float wide_y[MAX_DIM], wide_dy[MAX_DIM];
    for (int64_t r = 0; r < rows; r++) {
        const float *yr = row_(y, r, dim, is_bf16, wide_y), *dyr = row_(dy, r, dim, is_bf16, wide_dy);
        float *dxr = is_bf16 ? wide_dy : (float *)dx + r * dim, *dcr = dc ? dc + (r / group_rows) * dim : 0;
#pragma omp simd
        for (int64_t i = 0; i < dim; i++) dxr[i] = dyr[i] * (yr[i] > 0.0f ? 1.0f : yr[i] + 1.0f);
        if (dcr) {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) dcr[i] += dxr[i];
        }
        if (is_bf16) round_(dxr, (bf16 *)dx + r * dim, dim);
    }
}

INLINE float expectation_(const float *logits, const float *bins, int64_t dim, float *p) {
    float top = logits[0], sum = 0.0f, dot = 0.0f;
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < dim; i++) top = logits[i] > top ? logits[i] : top;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < dim; i++) { p[i] = exp_(logits[i] - top); sum += p[i]; dot += p[i] * bins[i]; }
    float inverse = 1.0f / sum;
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) p[i] *= inverse;
    return dot * inverse;
}

/* value = symexp(sum of softmax(logits) * bins), symexp(m) = sign(m) * (e^|m| - 1). */
void two_hot_value_forward(const float *logits, const float *bins, float *value, int64_t rows, int64_t dim) {
    float p[MAX_DIM];
    for (int64_t r = 0; r < rows; r++)
        value[r] = expectation_(logits + r * dim, bins, dim, p);
    for (int64_t r = 0; r < rows; r++)
        value[r] = copysignf(expm1f(fabsf(value[r])), value[r]);
}

void two_hot_value_backward(const float *logits, const float *bins, const float *dvalue, float *dlogits,
                            int64_t rows, int64_t dim) {
    float p[MAX_DIM];
    for (int64_t r = 0; r < rows; r++) {
        float m = expectation_(logits + r * dim, bins, dim, p), slope = finite_or_nan_(dvalue[r] * expf(fabsf(m)));
        float *d = dlogits + r * dim;
#pragma omp simd
        for (int64_t i = 0; i < dim; i++) d[i] = slope * p[i] * (bins[i] - m);
    }
}

/* ---- Whole networks without gradients, for planning: matrix products by the BLAS that PyTorch ships. ---- */

/* Fortran's SGEMM with 32-bit integers, or its sibling for factors in bf16. */
typedef void (*Gemm)(const char *ta, const char *tb, const int *m, const int *n, const int *k, const float *alpha,
                     const void *a, const int *lda, const void *b, const int *ldb, const float *beta, float *c,
                     const int *ldc);

/* The same product with a first factor in the BLAS's own order; null where it has none. */
typedef void (*Compute)(const char *ta, const char *tb, const int *m, const int *n, const int *k, const void *a,
                        const int *lda, const void *b, const int *ldb, const float *beta, float *c, const int *ldc);

/* Three layers; w (out, in), b, and LayerNorm's gain and shift where the layer has one. The input is a latent,
   columns for the task's embedding, and an action. What the embedding adds to the first layer is constant, so
   that it comes as part of the bias: b[0] (groups, hidden), one row for every rows / groups rows of the input.
   mask (groups, action), for a policy: 0 for the dimensions that the task's action lacks; may be null.
   With is_bf16, all factors of products are bf16: weights, latents, actions, and what layers give out.
   packed: the weights in the BLAS's own order, of the first layer the latent's part; null where `compute` is. */
typedef struct {
    Compute compute;
    const void *w[3], *packed[3];
    const float *b[3], *gain[3], *shift[3], *mask;
    int64_t latent, in, hidden, out, simnorm, groups, is_bf16;
} Mlp;

INLINE const void *at_(const void *x, int64_t index, int64_t is_bf16) {
    return (const char *)x + index * (is_bf16 ? sizeof(bf16) : sizeof(float));
}

/* y (rows, out) = x (rows, in) . w^T, plus y where `add` is 1 */
INLINE void product_(Gemm gemm, const void *x, const void *w, float *y, int64_t rows, int64_t in, int64_t out,
                     int64_t ld_x, int64_t ld_w, float add) {
    /* In column-major terms: y^T (out, rows) = w . x^T. */
    const int m = (int)out, n = (int)rows, k = (int)in, lda = (int)ld_w, ldb = (int)ld_x;
    const float one = 1.0f;
    gemm("T", "N", &m, &n, &k, &one, w, &lda, x, &ldb, &add, y, &m);
}

/* The product of a layer, with `in` columns of its weights. */
static void layer_(Gemm gemm, const Mlp *mlp, int layer, const void *x, float *y, int64_t rows, int64_t in, int64_t out,
                   int64_t ld_w, float add) {
    if (!mlp->compute) { product_(gemm, x, mlp->w[layer], y, rows, in, out, in, ld_w, add); return; }
    const int m = (int)out, n = (int)rows, k = (int)in;
    mlp->compute("P", "N", &m, &n, &k, mlp->packed[layer], &m, x, &k, &add, y, &m);
}

/* What follows the product of a layer, in place and without gradients; bias (groups, dim). In bf16 the rows move
   together: they fill half of y. */
static void finish_(const Mlp *mlp, int layer, float *y, int64_t rows, int64_t dim, int64_t groups, int64_t simnorm) {
    int64_t each = rows / groups;
    for (int64_t g = 0; g < groups; g++) {
        void *to = (void *)at_(y, g * each * dim, mlp->is_bf16);
        norm_act_forward(y + g * each * dim, mlp->b[layer] + g * dim, mlp->gain[layer], mlp->shift[layer], to, 0,
                         mlp->is_bf16, each, dim, each, simnorm, 0, 0, 1.0f);
    }
}

/* Run one MLP on [z, a]. Each z row serves `shared` consecutive rows of a, so that its part of the first
   product is computed once. a may be null. scratch: 2 * rows * hidden. out: rows * mlp.out floats; a normed last
   layer leaves bf16 in them where the MLP is bf16. */
static void mlp_(Gemm gemm, const Mlp *mlp, const void *z, const void *a, int64_t a_dim, int64_t rows,
                 int64_t shared, float *scratch, float *out) {
    int64_t hidden = mlp->hidden, z_dim = mlp->latent;
    float *first = scratch, *second = scratch + rows * hidden;
    if (rows == 0) return;
    layer_(gemm, mlp, 0, z, second, rows / shared, z_dim, hidden, mlp->in, 0.0f);
    if (shared > 1) {
        for (int64_t r = 0; r < rows; r++)
            memcpy(first + r * hidden, second + (r / shared) * hidden, hidden * sizeof(float));
    } else {
        float *swap = first; first = second; second = swap;
    }
    if (a) {
        const void *columns = at_(mlp->w[0], mlp->in - a_dim, mlp->is_bf16);
        product_(gemm, a, columns, first, rows, a_dim, hidden, a_dim, mlp->in, 1.0f);
    }
    finish_(mlp, 0, first, rows, hidden, mlp->groups, 0);
    layer_(gemm, mlp, 1, first, second, rows, hidden, hidden, hidden, 0.0f);
    finish_(mlp, 1, second, rows, hidden, 1, 0);
    if (mlp->gain[2]) {
        layer_(gemm, mlp, 2, second, out, rows, hidden, mlp->out, hidden, 0.0f);
        finish_(mlp, 2, out, rows, mlp->out, 1, mlp->simnorm);
    } else {
        for (int64_t r = 0; r < rows; r++) memcpy(out + r * mlp->out, mlp->b[2], mlp->out * sizeof(float));
        layer_(gemm, mlp, 2, second, out, rows, hidden, mlp->out, hidden, 1.0f);
    }
}

/* action = tanh(mean + e^log_std * eps); out: scratch for rows * 2 * a_dim. Returns the action as a factor of
   products: itself, or rounded to bf16 into `rounded`. */
static const void *policy_(Gemm gemm, const Mlp *pi, const void *z, const float *eps, int64_t rows, float log_std_min,
                           float log_std_max, float *scratch, float *out, float *action, bf16 *rounded) {
    int64_t a_dim = pi->out / 2;
    mlp_(gemm, pi, z, 0, 0, rows, 1, scratch, out);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < a_dim; i++) {
            float mean = out[r * 2 * a_dim + i], squashed = tanhf(out[r * 2 * a_dim + a_dim + i]);
            float log_std = log_std_min + 0.5f * (log_std_max - log_std_min) * (squashed + 1.0f);
            float a = tanhf(mean + expf(log_std) * eps[r * a_dim + i]);
            action[r * a_dim + i] = pi->mask ? a * pi->mask[r * pi->groups / rows * a_dim + i] : a;
        }
    if (!pi->is_bf16) return action;
    round_(action, rounded, rows * a_dim);
    return rounded;
}

/* ModelFunctions.rollout: actions (horizon, rows, a_dim) from z (rows / shared, z_dim), discount (rows / shared).
   Out: total (rows), z_last (rows, z_dim), weight (rows). termination may be null. scratch: rows * (2 * hidden + z_dim + widest).
   In bf16, z and actions are bf16, and so is z_last, in the first half of its floats. */
void rollout_forward(Gemm gemm, const Mlp *dynamics, const Mlp *reward, const Mlp *termination, const float *bins,
                     const void *z, const void *actions, int64_t horizon, int64_t rows, int64_t shared,
                     int64_t a_dim, const float *discount, float *scratch, float *total, float *z_last, float *weight) {
    int64_t z_dim = dynamics->out, hidden = dynamics->hidden;
    float *other = scratch + 2 * rows * hidden, *logits = other + rows * z_dim, *value = logits + rows * reward->out;
    /* Latents alternate between two buffers, so that the last one is z_last. */
    float *to = horizon % 2 ? z_last : other, *from = horizon % 2 ? other : z_last;
    int64_t candidates = shared;
    for (int64_t r = 0; r < rows; r++) { total[r] = 0.0f; weight[r] = 1.0f; }
    for (int64_t t = 0; t < horizon; t++) {
        const void *a = at_(actions, t * rows * a_dim, dynamics->is_bf16);
        mlp_(gemm, reward, z, a, a_dim, rows, shared, scratch, logits);
        two_hot_value_forward(logits, bins, value, rows, reward->out);
        mlp_(gemm, dynamics, z, a, a_dim, rows, shared, scratch, to);
        for (int64_t r = 0; r < rows; r++) { total[r] += weight[r] * value[r]; weight[r] *= discount[r / candidates]; }
        if (termination) {
            mlp_(gemm, termination, to, 0, 0, rows, 1, scratch, value);
            for (int64_t r = 0; r < rows; r++) weight[r] *= value[r] <= 0.0f; /* of NaN, 0 as in PyTorch */
        }
        z = to; shared = 1;
        float *swap = to; to = from; from = swap;
    }
}

/* ModelFunctions.terminal_value: mean of two heads at a policy action. z in bf16 where the MLPs are.
   scratch: rows * (2 * hidden + widest + 2 * a_dim + 1). */
void terminal_value_forward(Gemm gemm, const Mlp *pi, const Mlp *head0, const Mlp *head1, const float *bins,
                            const void *z, const float *eps, int64_t rows, float log_std_min, float log_std_max,
                            float *scratch, float *value) {
    int64_t a_dim = pi->out / 2;
    float *out = scratch + 2 * rows * pi->hidden;
    float *action = out + rows * (head0->out > pi->out ? head0->out : pi->out), *second = action + rows * a_dim;
    bf16 *rounded = (bf16 *)(second + rows);
    const void *a = policy_(gemm, pi, z, eps, rows, log_std_min, log_std_max, scratch, out, action, rounded);
    mlp_(gemm, head0, z, a, a_dim, rows, 1, scratch, out);
    two_hot_value_forward(out, bins, value, rows, head0->out);
    mlp_(gemm, head1, z, a, a_dim, rows, 1, scratch, out);
    two_hot_value_forward(out, bins, second, rows, head1->out);
    for (int64_t r = 0; r < rows; r++) value[r] = 0.5f * (value[r] + second[r]);
}

/* ModelFunctions.policy_rollout: eps (horizon, rows, a_dim) and z (rows, z_dim), in bf16 where the MLPs are, to
   actions (horizon, rows, a_dim). scratch: rows * (2 * hidden + 2 * z_dim + 3 * a_dim). */
void policy_rollout_forward(Gemm gemm, const Mlp *pi, const Mlp *dynamics, const void *z, const float *eps,
                            int64_t horizon, int64_t rows, float log_std_min, float log_std_max, float *scratch,
                            float *actions) {
    int64_t z_dim = pi->latent, a_dim = pi->out / 2;
    float *out = scratch + 2 * rows * pi->hidden, *to = out + rows * pi->out, *from = to + rows * z_dim;
    bf16 *rounded = (bf16 *)(from + rows * z_dim);
    for (int64_t t = 0; t < horizon; t++) {
        const float *noise = eps + t * rows * a_dim;
        float *action = actions + t * rows * a_dim;
        const void *a = policy_(gemm, pi, z, noise, rows, log_std_min, log_std_max, scratch, out, action, rounded);
        if (t + 1 < horizon) {
            mlp_(gemm, dynamics, z, a, a_dim, rows, 1, scratch, to);
            z = to;
            float *swap = to; to = from; from = swap;
        }
    }
}
