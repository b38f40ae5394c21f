// The ids of a batch field by field, in the order of the rows that an update of products visits.
//
// Of a field's factors the one with most rows leads: its rows are updated one after the other, each
// once the gradients of its ids are added up. The others follow: their gradients are added up
// beside, and they are updated when all that lead have been.

#ifndef TF_COMPEMB_PRODUCT_FIELDS_H_
#define TF_COMPEMB_PRODUCT_FIELDS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "product_entries.h"
#include "rows.h"
#include "sorted_slices.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace tf_compemb {

// Ids that are worth a part with sums of its own, and the most parts.
constexpr int64_t kIdsOfPart = 4096;
constexpr int64_t kMostParts = 16;

// The rows of an entry: a field's in one of its tables.
struct EntryRows {
  int table;
  int64_t column;  // of the table's row numbers, of which there are
  int64_t columns;
  int64_t first, count;
};

// The rows of each field, the leading ones first, from an op's attributes.
inline tensorflow::Status ReadFieldRows(tensorflow::OpKernelConstruction* context,
                                        const Entries& entries,
                                        std::vector<std::vector<EntryRows>>* rows) {
  std::vector<DigitBounds> bounds;
  TF_RETURN_IF_ERROR(ReadBounds(context, entries, &bounds));
  for (const Entry& x : entries.All()) {
    for (const Entry& y : entries.All()) {
      const DigitBounds &of_x = bounds[x.position], &of_y = bounds[y.position];
      if (x.table == y.table && x.position != y.position && of_x.offset <= of_y.offset &&
          of_y.offset <= of_x.offset + of_x.Largest()) {
        return tensorflow::errors::InvalidArgument("Entries ", x.position, " and ", y.position,
                                                   " have rows in common");
      }
    }
  }
  for (int64_t f = 0; f < entries.fields(); ++f) {
    std::vector<EntryRows> of_field;
    for (const Entry& entry : entries.Of(f)) {
      const DigitBounds& digit = bounds[entry.position];
      of_field.push_back({static_cast<int>(entry.table), entry.column, entries.Count(entry.table),
                          digit.offset, digit.Largest() + 1});
    }
    const auto fewer = [](const EntryRows& x, const EntryRows& y) { return x.count < y.count; };
    std::iter_swap(of_field.begin(), std::max_element(of_field.begin(), of_field.end(), fewer));
    rows->push_back(of_field);
  }
  return tensorflow::OkStatus();
}

// The factor of a field that follows, with its gradients.
struct Follower {
  EntryRows rows;
  const float* values = nullptr;  // from its first row on
  int32_t* numbers = nullptr;     // of each id, counted from the first row
  // Of each row, once for each part of the field; or where rows are many, of each id.
  float* gradients = nullptr;
  bool is_summed = true;

  const float* Row(int64_t id, int64_t width) const { return values + numbers[id] * width; }
  float* Sums(int64_t part, int64_t width) const { return gradients + part * rows.count * width; }
  float* Gradient(int64_t id, int64_t part, int64_t width) const {
    return is_summed ? Sums(part, width) + numbers[id] * width : gradients + id * width;
  }
};

struct Field {
  EntryRows rows;           // those that lead
  Slice* slices = nullptr;  // its ids, in the order of the rows, counted from the first one
  std::vector<Follower> followers;
  int64_t first_part = 0, parts = 1;  // that have some of the ids
};

// Memory of an op, as several arrays.
template <typename T>
class Arrays {
 public:
  tensorflow::Status Allocate(tensorflow::OpKernelContext* context, int64_t size) {
    TF_RETURN_IF_ERROR(context->allocate_temp(tensorflow::DataTypeToEnum<T>::value,
                                              tensorflow::TensorShape({size}), &tensor_));
    next_ = tensor_.flat<T>().data();
    return tensorflow::OkStatus();
  }

  T* Take(int64_t size) { return std::exchange(next_, next_ + size); }

 private:
  tensorflow::Tensor tensor_;
  T* next_ = nullptr;
};

inline void SortInPlace(Slice* slices, Slice* scratch, int64_t count, int64_t rows) {
  const Slice* sorted = SortByRow(slices, scratch, count, rows);
  if (sorted != slices) std::copy_n(sorted, count, slices);
}

// All fields during a step. The ids, field after field, are worked on in parts: how many there are
// depends on the number of ids alone.
class FieldsOfStep {
 public:
  // `values` are those of each table.
  tensorflow::Status Allocate(tensorflow::OpKernelContext* context,
                              const std::vector<std::vector<EntryRows>>& rows,
                              const std::vector<const float*>& values, int64_t batch,
                              int64_t width) {
    batch_ = batch;
    ids_ = batch * static_cast<int64_t>(rows.size());
    while (parts_ < kMostParts && 2 * parts_ * kIdsOfPart <= ids_) parts_ *= 2;
    int64_t followers = 0, gradients = 0;
    for (const std::vector<EntryRows>& of_field : rows) {
      Field field{of_field[0]};
      const int64_t first = batch * static_cast<int64_t>(fields_.size());
      field.first_part = PartOf(first);
      field.parts = PartOf(first + batch - 1) - field.first_part + 1;
      for (size_t e = 1; e < of_field.size(); ++e, ++followers) {
        field.followers.push_back({of_field[e]});
        gradients += Gradients(of_field[e], field) * width;
      }
      fields_.push_back(field);
    }
    TF_RETURN_IF_ERROR(slices_.Allocate(context, ids_));
    TF_RETURN_IF_ERROR(numbers_.Allocate(context, followers * batch));
    TF_RETURN_IF_ERROR(gradients_.Allocate(context, gradients));
    for (Field& field : fields_) {
      field.slices = slices_.Take(batch);
      for (Follower& follower : field.followers) {
        const EntryRows& of_entry = follower.rows;
        follower.values = values[of_entry.table] + of_entry.first * width;
        follower.numbers = numbers_.Take(batch);
        follower.gradients = gradients_.Take(Gradients(of_entry, field) * width);
        follower.is_summed = IsSummed(of_entry, field);
      }
    }
    return tensorflow::OkStatus();
  }

  // Sorts the ids of each field by the rows that lead, and takes the numbers of those that follow,
  // from the row numbers of each table.
  tensorflow::Status Sort(tensorflow::OpKernelContext* context,
                          const std::vector<const int32_t*>& numbers) {
    std::atomic<bool> all_in_range{true};
    const auto sort = [&](int64_t begin, int64_t end) {
      std::vector<Slice> scratch(batch_);
      for (int64_t f = begin; f < end; ++f) {
        Field& field = fields_[f];
        bool in_range = Take(field.rows, numbers, [&field](int64_t id, uint32_t number) {
          field.slices[id] = static_cast<Slice>(number) << 32 | id;
        });
        for (Follower& follower : field.followers) {
          in_range &= Take(follower.rows, numbers, [&follower](int64_t id, uint32_t number) {
            follower.numbers[id] = number;
          });
        }
        if (in_range) {
          SortInPlace(field.slices, scratch.data(), batch_, field.rows.count);
        } else {
          all_in_range = false;
        }
      }
    };
    // Sorting an id takes a fourth of what its update takes.
    ForRanges(context, fields_.size(), sort, batch_ / 4 + 1);
    return all_in_range ? tensorflow::OkStatus()
                        : tensorflow::errors::InvalidArgument(
                              "Row numbers must be those of the entries' digits");
  }

  int64_t batch() const { return batch_; }
  int64_t parts() const { return parts_; }
  const std::vector<Field>& fields() const { return fields_; }

  // Calls `work(f, begin, end)` for each field and which of its slices belong to a part.
  template <typename Work>
  void ForFields(int64_t part, const Work& work) const {
    const int64_t first = ids_ * part / parts_, last = ids_ * (part + 1) / parts_;
    for (int64_t f = 0; f < static_cast<int64_t>(fields_.size()); ++f) {
      const int64_t begin = std::max<int64_t>(first - f * batch_, 0);
      const int64_t end = std::min(last - f * batch_, batch_);
      if (begin < end) work(f, begin, end);
    }
  }

 private:
  int64_t PartOf(int64_t position) const {
    int64_t part = 0;
    while (part + 1 < parts_ && ids_ * (part + 1) / parts_ <= position) ++part;
    return part;
  }

  // Sums are for rows that are few beside the ids: to set them to zero costs less than slices.
  bool IsSummed(const EntryRows& rows, const Field& field) const {
    return rows.count * field.parts <= 2 * batch_;
  }

  int64_t Gradients(const EntryRows& rows, const Field& field) const {
    return IsSummed(rows, field) ? rows.count * field.parts : batch_;
  }

  // Calls `take` with each id and its row number, from the first row on. Whether they are there.
  template <typename Work>
  bool Take(const EntryRows& rows, const std::vector<const int32_t*>& numbers,
            const Work& take) const {
    const int32_t* of_entry = numbers[rows.table] + rows.column;
    uint32_t largest = 0;  // Negative numbers are larger than all others then.
    for (int64_t id = 0; id < batch_; ++id) {
      const uint32_t number = static_cast<uint32_t>(of_entry[id * rows.columns] - rows.first);
      largest = std::max(largest, number);
      take(id, number);
    }
    return batch_ == 0 || largest < rows.count;
  }

  int64_t batch_ = 0, ids_ = 0, parts_ = 1;
  std::vector<Field> fields_;
  Arrays<uint64_t> slices_;
  Arrays<int32_t> numbers_;
  Arrays<float> gradients_;
};

}  // namespace tf_compemb

#endif  // TF_COMPEMB_PRODUCT_FIELDS_H_
