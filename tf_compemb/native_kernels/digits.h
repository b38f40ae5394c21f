// Digits of ids, as row numbers.

#ifndef TF_COMPEMB_DIGITS_H_
#define TF_COMPEMB_DIGITS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tf_compemb {

// Ids in [0, size), of which the digit `id / divisor % modulus`, plus `offset`, is a row number of
// a table of `rows` rows.
struct DigitBounds {
  int64_t size, divisor, modulus, offset, rows;

  int64_t Largest() const {
    const int64_t quotient = (size - 1) / divisor;
    return quotient < modulus ? quotient : modulus - 1;
  }

  bool Hold() const {
    constexpr int64_t kBeyond = int64_t{1} << 31;
    if (size < 1 || size >= kBeyond || rows < 1 || rows >= kBeyond || divisor < 1 || modulus < 1 ||
        offset < 0) {
      return false;
    }
    return offset + Largest() < rows;
  }
};

// Division of numbers below 2^31 by a multiplication: exact with the first 31 bits of the
// divisor's inverse, rounded up (Granlund and Montgomery, 1994, theorem 4.2).
struct Inverse {
  explicit Inverse(int64_t divisor) {
    // Numbers are below 2^31, so a larger divisor has the quotient 0 as 2^31 has.
    divisor = std::min(divisor, int64_t{1} << 31);
    while (int64_t{1} << (shift - 31) < divisor) ++shift;
    factor = static_cast<uint32_t>(((uint64_t{1} << shift) + divisor - 1) / divisor);
  }

  uint32_t factor, shift = 31;
};

inline uint32_t Quotient(uint32_t number, uint32_t factor, uint32_t shift) {
  return static_cast<uint32_t>(uint64_t{number} * factor >> shift);
}

// The digits of a batch's ids that are the row numbers of a table, in arrays, so that a processor
// computes several at a time.
class Digits {
 public:
  // A further column of row numbers, of the ids of `field`.
  void Add(int64_t field, const DigitBounds& bounds) {
    const Inverse divisor(bounds.divisor), modulus(bounds.modulus);
    fields_.push_back(field);
    factors_.push_back(divisor.factor);
    shifts_.push_back(divisor.shift);
    modulus_factors_.push_back(modulus.factor);
    modulus_shifts_.push_back(modulus.shift);
    // Nothing is subtracted where no quotient reaches the modulus.
    moduli_.push_back(bounds.Largest() + 1 < bounds.modulus ? 0 : bounds.modulus);
    offsets_.push_back(bounds.offset);
  }

  // The row numbers of one row of ids, which are in range.
  template <typename Id>
  void RowsOf(const Id* ids, int32_t* rows) const {
#pragma omp simd
    for (size_t i = 0; i < fields_.size(); ++i) {
      const uint32_t id = static_cast<uint32_t>(ids[fields_[i]]);
      const uint32_t quotient = Quotient(id, factors_[i], shifts_[i]);
      const uint32_t above = Quotient(quotient, modulus_factors_[i], modulus_shifts_[i]);
      rows[i] = static_cast<int32_t>(quotient - above * moduli_[i] + offsets_[i]);
    }
  }

 private:
  std::vector<uint32_t> fields_, factors_, shifts_, modulus_factors_, modulus_shifts_, moduli_,
      offsets_;
};

}  // namespace tf_compemb

#endif  // TF_COMPEMB_DIGITS_H_
