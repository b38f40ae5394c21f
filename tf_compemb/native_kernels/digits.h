// A digit of an id, as a row number.

#ifndef TF_COMPEMB_DIGITS_H_
#define TF_COMPEMB_DIGITS_H_

#include <cstdint>

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
class Divisor {
 public:
  explicit Divisor(int64_t divisor) {
    while (int64_t{1} << (shift_ - 31) < divisor) ++shift_;
    factor_ = ((uint64_t{1} << shift_) + divisor - 1) / divisor;
  }

  uint64_t Quotient(uint64_t number) const { return number * factor_ >> shift_; }

 private:
  uint64_t factor_;
  int shift_ = 31;
};

class Digit {
 public:
  explicit Digit(const DigitBounds& bounds)
      : divisor_(Bounded(bounds.divisor)),
        modulus_divisor_(Bounded(bounds.modulus)),
        // Without a modulus to subtract where no quotient reaches it.
        modulus_(bounds.Largest() + 1 < bounds.modulus ? 0 : Bounded(bounds.modulus)),
        offset_(bounds.offset) {}

  int32_t RowOf(int64_t id) const {
    const uint64_t quotient = divisor_.Quotient(static_cast<uint64_t>(id));
    const uint64_t digit = quotient - modulus_divisor_.Quotient(quotient) * modulus_;
    return static_cast<int32_t>(digit + offset_);
  }

 private:
  // Ids are below 2^31, so a larger divisor has the quotient 0 as 2^31 has.
  static int64_t Bounded(int64_t divisor) {
    return divisor < int64_t{1} << 31 ? divisor : int64_t{1} << 31;
  }

  Divisor divisor_, modulus_divisor_;
  uint64_t modulus_, offset_;
};

}  // namespace tf_compemb

#endif  // TF_COMPEMB_DIGITS_H_
