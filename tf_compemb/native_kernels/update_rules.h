// SGD, Adagrad and row-wise Adagrad on one row of a table, and on the rows of a sparse gradient.

#ifndef TF_COMPEMB_UPDATE_RULES_H_
#define TF_COMPEMB_UPDATE_RULES_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "rows.h"
#include "sorted_slices.h"

namespace tf_compemb {

// How many slices ahead memory is asked for, to have arrived when it is read.
constexpr int64_t kAhead = 12;

// A rule's `Update` is inlined, so that a width that is known there is known in its loops.
struct Sgd {
  float* table;
  float rate;

  [[gnu::always_inline]] void PrefetchRow(int64_t row, int64_t width) const {
    Prefetch<true>(table + row * width, width);
  }

  [[gnu::always_inline]] void Update(int64_t row, const float* __restrict gradient,
                                     int64_t width) const {
    float* __restrict weights = table + row * width;
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) weights[j] -= rate * gradient[j];
  }
};

struct Adagrad {
  float* table;
  float* accumulator;
  float rate;
  float epsilon;

  [[gnu::always_inline]] void PrefetchRow(int64_t row, int64_t width) const {
    Prefetch<true>(table + row * width, width);
    Prefetch<true>(accumulator + row * width, width);
  }

  [[gnu::always_inline]] void Update(int64_t row, const float* __restrict gradient,
                                     int64_t width) const {
    float* __restrict weights = table + row * width;
    float* __restrict total = accumulator + row * width;
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) {
      total[j] += gradient[j] * gradient[j];
      weights[j] -= rate * gradient[j] / std::sqrt(total[j] + epsilon);
    }
  }
};

struct RowWiseAdagrad {
  float* table;
  float* accumulator;
  float rate;
  float epsilon;

  [[gnu::always_inline]] void PrefetchRow(int64_t row, int64_t width) const {
    Prefetch<true>(table + row * width, width);
    __builtin_prefetch(accumulator + row, 1);
  }

  [[gnu::always_inline]] void Update(int64_t row, const float* __restrict gradient,
                                     int64_t width) const {
    float* __restrict weights = table + row * width;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < width; ++j) squares += gradient[j] * gradient[j];
    accumulator[row] += squares / width;
    const float step = rate / std::sqrt(accumulator[row] + epsilon);
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) weights[j] -= step * gradient[j];
  }
};

// Updates the rows whose first slice is in [begin, end).
template <typename Rule>
void UpdateRange(const Slice* slices, int64_t count, int64_t begin, int64_t end,
                 const float* gradients, int64_t width, const Rule& rule) {
  std::vector<float> sum(width);
  float* __restrict total = sum.data();
  int64_t i = FirstOfRow(slices, begin, end);
  while (i < end) {
    const uint32_t row = RowOf(slices[i]);
    const float* gradient = gradients + PositionOf(slices[i]) * width;
    const int64_t first = i;
    for (;; ++i) {
      if (i + kAhead < count) {
        const Slice coming = slices[i + kAhead];
        Prefetch<false>(gradients + PositionOf(coming) * width, width);
        if (RowOf(coming) != RowOf(slices[i + kAhead - 1])) {
          rule.PrefetchRow(RowOf(coming), width);
        }
      }
      if (i > first) {
        const float* __restrict further = gradients + PositionOf(slices[i]) * width;
        if (i == first + 1) std::memcpy(total, gradient, width * sizeof(float));
        for (int64_t j = 0; j < width; ++j) total[j] += further[j];
      }
      if (i + 1 == count || RowOf(slices[i + 1]) != row) break;
    }
    ++i;
    rule.Update(row, i == first + 1 ? gradient : total, width);
  }
}

}  // namespace tf_compemb

#endif  // TF_COMPEMB_UPDATE_RULES_H_
