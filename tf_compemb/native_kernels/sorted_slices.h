// Which slices of a sparse gradient belong to which row of a table.

#ifndef TF_COMPEMB_SORTED_SLICES_H_
#define TF_COMPEMB_SORTED_SLICES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "rows.h"

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

// Sorts slices by row, those of a row by position. Returns `slices` or `scratch`, whichever holds
// the result; both are of size `count`.
inline Slice* SortByRow(Slice* slices, Slice* scratch, size_t count, int64_t rows) {
  // Radix sort, which keeps the order of equal digits. 2^11 counters stay in the first cache.
  constexpr int kMostBits = 11;
  int row_bits = 1;
  while (row_bits < 32 && int64_t{1} << row_bits < rows) ++row_bits;
  const int passes = (row_bits + kMostBits - 1) / kMostBits;
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

}  // namespace tf_compemb

#endif  // TF_COMPEMB_SORTED_SLICES_H_
