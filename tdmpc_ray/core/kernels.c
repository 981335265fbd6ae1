/* Fused row kernels for the CPU: what follows a matrix product in TD-MPC2, in one pass over memory.

   A row is x[dim]. `groups` tells how many rows share one set of LayerNorm parameters: the heads of an
   ensemble each have their own. LayerNorm: h = (x - mean) * rstd, u = h * w + b, eps 1e-5.
   Dropout (Q heads) happens before the norm; its mask is a hash of (seed, element), so that backward
   rebuilds it instead of storing it. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define MAX_DIM 8192

/* e^x to 2 ulp: 2^n * e^r with r in [-ln2/2, ln2/2]; written so that the compiler vectorises it. */
INLINE float exp_(float x) {
    x = x > 88.0f ? 88.0f : x < -87.0f ? -87.0f : x;
    float n = rintf(x * 1.44269504088896341f);
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
    return p * scale;
}

/* tanh(softplus(u)) = n / (n + 2) with n = e^u (e^u + 2): mish with one exponential. */
INLINE float mish_gate(float u, float *e) {
    *e = exp_(u < 20.0f ? u : 20.0f);
    float n = *e * (*e + 2.0f);
    return n / (n + 2.0f);
}

INLINE uint32_t hash_(uint32_t x) {
    x ^= x >> 16; x *= 0x7feb352dU;
    x ^= x >> 15; x *= 0x846ca68bU;
    return x ^ (x >> 16);
}

/* 0 where the element is dropped, 1 / (1 - p) where it is kept; p = threshold / 2^32. */
INLINE float keep_(uint32_t seed, uint32_t index, uint32_t threshold, float scale) {
    return hash_(hash_(index) ^ seed) < threshold ? 0.0f : scale;
}

INLINE float dropped_(const float *x, int64_t row, int64_t dim, int64_t i, uint32_t seed, uint32_t threshold, float scale) {
    return threshold ? x[i] * keep_(seed, (uint32_t)(row * dim + i), threshold, scale) : x[i];
}

INLINE void moments_(const float *x, int64_t dim, float *mean, float *rstd) {
    float sum = 0.0f, square = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < dim; i++) sum += x[i];
    float m = sum / dim;
#pragma omp simd reduction(+ : square)
    for (int64_t i = 0; i < dim; i++) square += (x[i] - m) * (x[i] - m);
    *mean = m;
    *rstd = 1.0f / sqrtf(square / dim + 1e-5f);
}

/* Softmax over each `group` values. One shift serves the whole row unless its values lie so far apart that
   e^(u - top) would underflow, which LayerNorm all but rules out. */
INLINE void softmax_groups_(float *u, int64_t dim, int64_t group) {
    float top = u[0], bottom = u[0];
#pragma omp simd reduction(max : top) reduction(min : bottom)
    for (int64_t i = 0; i < dim; i++) {
        top = u[i] > top ? u[i] : top;
        bottom = u[i] < bottom ? u[i] : bottom;
    }
    if (top - bottom > 80.0f)
        for (int64_t g = 0; g < dim; g += group) {
            float shift = u[g];
            for (int64_t i = 1; i < group; i++) shift = u[g + i] > shift ? u[g + i] : shift;
            for (int64_t i = 0; i < group; i++) u[g + i] += top - shift;
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

/* y = act(LayerNorm(dropout(x))): mish where simnorm is 0, else softmax over groups of `simnorm`.
   stats: (rows, 2) mean and rstd, for backward; may be null. */
void norm_act_forward(const float *x, const float *w, const float *b, float *y, float *stats, int64_t rows,
                      int64_t dim, int64_t group_rows, int64_t simnorm, uint32_t seed, uint32_t threshold, float scale) {
    float buffer[MAX_DIM];
    for (int64_t r = 0; r < rows; r++) {
        const float *xr = x + r * dim, *wr = w + (r / group_rows) * dim, *br = b + (r / group_rows) * dim;
        float *yr = y + r * dim, mean, rstd;
        if (threshold) {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) buffer[i] = dropped_(xr, r, dim, i, seed, threshold, scale);
            xr = buffer;
        }
        moments_(xr, dim, &mean, &rstd);
        if (stats) { stats[2 * r] = mean; stats[2 * r + 1] = rstd; }
        if (simnorm) {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) yr[i] = (xr[i] - mean) * rstd * wr[i] + br[i];
            softmax_groups_(yr, dim, simnorm);
        } else {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) {
                float u = (xr[i] - mean) * rstd * wr[i] + br[i], e;
                yr[i] = u * mish_gate(u, &e);
            }
        }
    }
}

/* Gradients of norm_act_forward. dw and db, (rows / group_rows, dim), must be zero on entry; null skips them. */
void norm_act_backward(const float *x, const float *w, const float *b, const float *y, const float *stats,
                       const float *dy, float *dx, float *dw, float *db, int64_t rows, int64_t dim,
                       int64_t group_rows, int64_t simnorm, uint32_t seed, uint32_t threshold, float scale) {
    float h[MAX_DIM], g[MAX_DIM];
    for (int64_t r = 0; r < rows; r++) {
        int64_t p = (r / group_rows) * dim;
        const float *xr = x + r * dim, *wr = w + p, *br = b + p, *dyr = dy + r * dim, *yr = y + r * dim;
        float *dxr = dx + r * dim, mean = stats[2 * r], rstd = stats[2 * r + 1];
#pragma omp simd
        for (int64_t i = 0; i < dim; i++)
            h[i] = (dropped_(xr, r, dim, i, seed, threshold, scale) - mean) * rstd;
        if (simnorm) { /* g = y * (dy - sum of dy * y over the group) */
            for (int64_t s = 0; s < dim; s += simnorm) {
                float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
                for (int64_t i = s; i < s + simnorm; i++) dot += dyr[i] * yr[i];
#pragma omp simd
                for (int64_t i = s; i < s + simnorm; i++) g[i] = yr[i] * (dyr[i] - dot);
            }
        } else { /* d mish / du = gate + u * (1 - gate^2) * sigmoid(u) */
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) {
                float u = h[i] * wr[i] + br[i], e, gate = mish_gate(u, &e);
                g[i] = dyr[i] * (gate + u * (1.0f - gate * gate) * (e / (e + 1.0f)));
            }
        }
        if (dw) {
#pragma omp simd
            for (int64_t i = 0; i < dim; i++) { dw[p + i] += g[i] * h[i]; db[p + i] += g[i]; }
        }
        float sum = 0.0f, dot = 0.0f;
#pragma omp simd reduction(+ : sum, dot)
        for (int64_t i = 0; i < dim; i++) { g[i] *= wr[i]; sum += g[i]; dot += g[i] * h[i]; }
        sum /= dim; dot /= dim;
#pragma omp simd
        for (int64_t i = 0; i < dim; i++) {
            float d = rstd * (g[i] - sum - h[i] * dot);
            dxr[i] = threshold ? d * keep_(seed, (uint32_t)(r * dim + i), threshold, scale) : d;
        }
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
        float m = expectation_(logits + r * dim, bins, dim, p), slope = dvalue[r] * expf(fabsf(m));
        float *d = dlogits + r * dim;
#pragma omp simd
        for (int64_t i = 0; i < dim; i++) d[i] = slope * p[i] * (bins[i] - m);
    }
}
