// Which slices of a sparse gradient belong to which row of a table.

#ifndef TF_COMPEMB_SORTED_SLICES_H_
#define TF_COMPEMB_SORTED_SLICES_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "rows.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace tf_compemb {

// A slice: row number in the upper half, position in the lower, so that the order of the numbers
// is by row, and within a row by position.
using Slice = uint64_t;

inline uint32_t RowOf(Slice slice) { return static_cast<uint32_t>(slice >> 32); }
inline uint32_t PositionOf(Slice slice) { return static_cast<uint32_t>(slice); }

// Packs row numbers. Returns the position of the first that is not in [0, rows), or `count`.
template <typename Id>
size_t Pack(const Id* ids, size_t count, int64_t rows, Slice* slices) {
  bool all_in_range = true;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t row = static_cast<uint64_t>(static_cast<int64_t>(ids[i]));
    all_in_range &= row < static_cast<uint64_t>(rows);
    slices[i] = row << 32 | i;
  }
  return all_in_range ? count : FirstOutside(ids, count, rows);
}

// How many bits the numbers in [0, count) take, from 1 to 32.
inline int Bits(int64_t count) {
  int bits = 1;
  while (bits < 32 && int64_t{1} << bits < count) ++bits;
  return bits;
}

// Sorts slices by row, those of a row by position. Returns `slices` or `scratch`, whichever holds
// the result; both are of size `count`.
inline Slice* SortByRow(Slice* slices, Slice* scratch, size_t count, int64_t rows) {
  // Radix sort, which keeps the order of equal digits. 2^11 counters stay in the first cache, and
  // few slices are not worth as many.
  constexpr int kMostBits = 11;
  const int most_bits = std::clamp(Bits(count), 6, kMostBits);
  const int row_bits = Bits(rows);
  const int passes = (row_bits + most_bits - 1) / most_bits;
  const int digit_bits = (row_bits + passes - 1) / passes;
  const size_t mask = (size_t{1} << digit_bits) - 1;
  std::array<uint32_t, size_t{1} << kMostBits> starts;
  for (int shift = 32; shift < 32 + row_bits; shift += digit_bits) {
    starts.fill(0);
    for (size_t i = 0; i < count; ++i) ++starts[slices[i] >> shift & mask];
    uint32_t start = 0;
    for (size_t digit = 0; digit <= mask; ++digit) {
      const uint32_t size = starts[digit];
      starts[digit] = start;
      start += size;
    }
    for (size_t i = 0; i < count; ++i) scratch[starts[slices[i] >> shift & mask]++] = slices[i];
    std::swap(slices, scratch);
  }
  return slices;
}

// The first slice at or after `begin` whose row is another than that of the slice before it: where
// one who works on [begin, end) starts, so that each row belongs to one.
inline int64_t FirstOfRow(const Slice* slices, int64_t begin, int64_t end) {
  while (begin > 0 && begin < end && RowOf(slices[begin]) == RowOf(slices[begin - 1])) ++begin;
  return begin;
}

// Row numbers in order, each with its position, in memory of an op.
class SortedSlices {
 public:
  tensorflow::Status Allocate(tensorflow::OpKernelContext* context, int64_t count) {
    for (tensorflow::Tensor* memory : {&packed_, &scratch_}) {
      TF_RETURN_IF_ERROR(context->allocate_temp(tensorflow::DT_UINT64,
                                                tensorflow::TensorShape({count}), memory));
    }
    return tensorflow::OkStatus();
  }

  // Returns the position of the first number that is not in [0, rows), or how many there are.
  template <typename Id>
  int64_t Sort(const Id* numbers, int64_t rows) {
    const int64_t count = packed_.NumElements();
    slices_ = packed_.flat<Slice>().data();
    const int64_t outside = Pack(numbers, count, rows, slices_);
    if (outside == count) {
      slices_ = SortByRow(slices_, scratch_.flat<Slice>().data(), count, rows);
    }
    return outside;
  }

  const Slice* Get() const { return slices_; }

 private:
  tensorflow::Tensor packed_, scratch_;
  Slice* slices_ = nullptr;
};

}  // namespace tf_compemb

#endif  // TF_COMPEMB_SORTED_SLICES_H_
