// One step of SGD, Adagrad or row-wise Adagrad on all tables whose rows' products are vectors, from
// the gradient of the vectors, without writing the tables' own gradients.
//
// Of a field's factors the one with most rows leads: its ids are taken row by row, and a row is
// updated once they are added up. The others follow: their gradients are added up beside, and they
// are updated when all that lead have been.
//
// The result does not depend on the number of threads: gradients are added up in parts, which the
// number of ids determines, and the parts in their order.

#define EIGEN_USE_THREADS  // for the ThreadPoolDevice in training_op_helpers.h

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "product_entries.h"
#include "rows.h"
#include "sorted_slices.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "updated_tables.h"

namespace tf_compemb {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Status;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;

// Ids that are worth a part with sums of its own, and the most parts.
constexpr int64_t kIdsOfPart = 4096;
constexpr int64_t kMostParts = 16;

// The rows of an entry: a field's in one of its tables. No other entry has one of them.
struct Rows {
  int table;
  int64_t column;  // of the table's row numbers
  int64_t columns;
  int64_t first, count;
};

// How an entry's row numbers, from its first row on, and gradients are kept during a step.
struct Follower {
  Rows rows;
  const float* values = nullptr;
  int32_t* numbers = nullptr;  // of each id
  float* sums = nullptr;       // of each row, once for each part of the field; or
  float* slices = nullptr;     // the gradient of each id, where rows are many

  const float* Row(int64_t id, int64_t width) const { return values + numbers[id] * width; }
  float* Gradient(int64_t id, int64_t part, int64_t width) const {
    return slices ? slices + id * width : Sums(part, width) + numbers[id] * width;
  }
  float* Sums(int64_t part, int64_t width) const { return sums + part * rows.count * width; }
};

// A field during a step. Its ids are those of positions [field * batch, (field + 1) * batch).
struct Field {
  Rows rows;  // of the entry that leads
  Slice* slices = nullptr;
  std::vector<Follower> followers;
  int64_t first_part = 0, parts = 1;  // which have some of its ids
};

// Cuts memory of an op into arrays.
template <typename T>
class Memory {
 public:
  Status Allocate(OpKernelContext* context, int64_t size) {
    TF_RETURN_IF_ERROR(context->allocate_temp(tensorflow::DataTypeToEnum<T>::value,
                                              TensorShape({size}), &tensor_));
    next_ = tensor_.flat<T>().data();
    return tensorflow::OkStatus();
  }

  T* Take(int64_t size) {
    T* taken = next_;
    next_ += size;
    return taken;
  }

 private:
  Tensor tensor_;
  T* next_ = nullptr;
};

template <bool kAccumulators>
class RowProductUpdateOp : public OpKernel {
 public:
  explicit RowProductUpdateOp(OpKernelConstruction* context) : OpKernel(context) {
    if (kAccumulators) OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
    std::vector<DigitBounds> bounds;
    OP_REQUIRES_OK(context, entries_.Read(context));
    OP_REQUIRES_OK(context, ReadBounds(context, entries_, &bounds));
    OP_REQUIRES_OK(context, CheckApart(bounds));
    for (int64_t f = 0; f < entries_.fields(); ++f) {
      std::vector<Rows> rows;
      for (const Entry& entry : entries_.Of(f)) {
        const DigitBounds& of_entry = bounds[entry.position];
        rows.push_back({static_cast<int>(entry.table), entry.column, entries_.Count(entry.table),
                        of_entry.offset, of_entry.Largest() + 1});
      }
      const auto fewer = [](const Rows& x, const Rows& y) { return x.count < y.count; };
      std::iter_swap(rows.begin(), std::max_element(rows.begin(), rows.end(), fewer));
      rows_.push_back(rows);
    }
  }

  void Compute(OpKernelContext* context) override {
    Step step(context, entries_.rows().size());
    OP_REQUIRES_OK(context, Open(context, &step));
    OP_REQUIRES_OK(context, Allocate(context, &step));
    OP_REQUIRES_OK(context, Sort(context, &step));
    WithConstant(entries_.width(), [&](auto width) { Update<width.value>(context, &step); });
  }

 private:
  struct Step {
    Step(OpKernelContext* context, int count) : tables(context, count) {}

    UpdatedTables<kAccumulators> tables;
    Upstream upstream;
    float rate = 0;
    int64_t parts = 1;
    std::vector<Field> fields;
    Memory<uint64_t> slices;
    Memory<int32_t> numbers;
    Memory<float> gradients;
  };

  // That no two entries of a table have a row in common.
  Status CheckApart(const std::vector<DigitBounds>& bounds) const {
    for (const Entry& x : entries_.All()) {
      for (const Entry& y : entries_.All()) {
        const DigitBounds &of_x = bounds[x.position], &of_y = bounds[y.position];
        if (x.table == y.table && x.position != y.position && of_x.offset <= of_y.offset &&
            of_x.offset + of_x.Largest() >= of_y.offset) {
          return InvalidArgument("Entries ", x.position, " and ", y.position,
                                 " have rows in common");
        }
      }
    }
    return tensorflow::OkStatus();
  }

  Status Open(OpKernelContext* context, Step* step) const {
    TF_RETURN_IF_ERROR(step->tables.Open(context));
    TF_RETURN_IF_ERROR(step->upstream.Read(context, entries_));
    const int64_t width = entries_.width();
    for (size_t t = 0; t < entries_.rows().size(); ++t) {
      const int64_t rows = entries_.rows()[t];
      if (step->tables.Rows(t) != rows || step->tables.Width(t) != width) {
        return InvalidArgument("Table ", t, " must be of shape (", rows, ", ", width, "), not (",
                               step->tables.Rows(t), ", ", step->tables.Width(t), ")");
      }
    }
    const Tensor* rate = nullptr;
    TF_RETURN_IF_ERROR(context->input("learning_rate", &rate));
    if (rate->dims() != 0) {
      return InvalidArgument("The learning rate must be a scalar, not of shape ",
                             rate->shape().DebugString());
    }
    step->rate = rate->scalar<float>()();
    return tensorflow::OkStatus();
  }

  // Gives fields, and those that follow, their memory.
  Status Allocate(OpKernelContext* context, Step* step) const {
    const int64_t batch = step->upstream.batch(), width = entries_.width();
    const int64_t ids = batch * entries_.fields();
    while (step->parts < kMostParts && 2 * step->parts * kIdsOfPart <= ids) step->parts *= 2;
    int64_t followers = 0, gradients = 0;
    for (const std::vector<Rows>& rows : rows_) {
      Field field{rows[0]};
      field.followers.resize(rows.size() - 1);
      const int64_t first = batch * step->fields.size();
      field.first_part = PartOf(first, ids, step->parts);
      field.parts = PartOf(first + batch - 1, ids, step->parts) - field.first_part + 1;
      for (size_t e = 1; e < rows.size(); ++e, ++followers) {
        field.followers[e - 1].rows = rows[e];
        gradients += GradientRows(rows[e], field, batch) * width;
      }
      step->fields.push_back(field);
    }
    TF_RETURN_IF_ERROR(step->slices.Allocate(context, ids));
    TF_RETURN_IF_ERROR(step->numbers.Allocate(context, followers * batch));
    TF_RETURN_IF_ERROR(step->gradients.Allocate(context, gradients));
    for (Field& field : step->fields) {
      field.slices = step->slices.Take(batch);
      for (Follower& follower : field.followers) {
        const Rows& rows = follower.rows;
        follower.values = step->tables.Values(rows.table) + rows.first * width;
        follower.numbers = step->numbers.Take(batch);
        float* memory = step->gradients.Take(GradientRows(rows, field, batch) * width);
        (IsSummed(rows, field, batch) ? follower.sums : follower.slices) = memory;
      }
    }
    return tensorflow::OkStatus();
  }

  // Part that a position belongs to: `part` has those from `ids * part / parts` on.
  static int64_t PartOf(int64_t position, int64_t ids, int64_t parts) {
    int64_t part = 0;
    while (part + 1 < parts && ids * (part + 1) / parts <= position) ++part;
    return part;
  }

  // Sums are for rows that are few beside the ids: to set them to zero costs less than slices.
  static bool IsSummed(const Rows& rows, const Field& field, int64_t batch) {
    return rows.count * field.parts <= 2 * batch;
  }

  static int64_t GradientRows(const Rows& rows, const Field& field, int64_t batch) {
    return IsSummed(rows, field, batch) ? rows.count * field.parts : batch;
  }

  // Sorts the ids of each field by the rows that lead, and takes the numbers of those that follow.
  Status Sort(OpKernelContext* context, Step* step) const {
    const int64_t batch = step->upstream.batch();
    std::atomic<bool> all_in_range{true};
    const auto sort = [&](int64_t begin, int64_t end) {
      std::vector<Slice> scratch(batch);
      for (int64_t f = begin; f < end; ++f) {
        Field& field = step->fields[f];
        bool in_range = true;
        for (Follower& follower : field.followers) {
          in_range &= Take(follower.rows, *step, [&follower](int64_t id, uint32_t number) {
            follower.numbers[id] = number;
          });
        }
        in_range &= Take(field.rows, *step, [&field](int64_t id, uint32_t number) {
          field.slices[id] = static_cast<Slice>(number) << 32 | id;
        });
        if (in_range) {
          SortInPlace(field.slices, scratch.data(), batch, field.rows.count);
        } else {
          all_in_range = false;
        }
      }
    };
    ForRanges(context, entries_.fields(), sort, batch / 4 + 1);
    return all_in_range ? tensorflow::OkStatus()
                        : InvalidArgument("Row numbers must be those of their entries' digits");
  }

  // Calls `take` with each id and its row number, from the first row on. Whether all are there.
  template <typename Work>
  static bool Take(const Rows& rows, const Step& step, const Work& take) {
    const int32_t* numbers = step.upstream.numbers()[rows.table] + rows.column;
    const int64_t batch = step.upstream.batch();
    uint32_t largest = 0;
    for (int64_t id = 0; id < batch; ++id) {
      const uint32_t number = static_cast<uint32_t>(numbers[id * rows.columns] - rows.first);
      largest = std::max(largest, number);
      take(id, number);
    }
    return batch == 0 || largest < rows.count;
  }

  static void SortInPlace(Slice* slices, Slice* scratch, int64_t count, int64_t rows) {
    const Slice* sorted = SortByRow(slices, scratch, count, rows);
    if (sorted != slices) std::copy_n(sorted, count, slices);
  }

  template <int64_t kWidth>
  void Update(OpKernelContext* context, Step* step) const {
    const int64_t batch = step->upstream.batch(), ids = batch * entries_.fields();
    ForParts(context, step->parts, [&](int64_t part) {
      const int64_t begin = ids * part / step->parts, end = ids * (part + 1) / step->parts;
      for (int64_t f = 0; f < entries_.fields(); ++f) {
        const int64_t first = std::max<int64_t>(begin - f * batch, 0);
        const int64_t last = std::min(end - f * batch, batch);
        if (first < last) UpdateLeading<kWidth>(step, f, first, last, part);
      }
    });
    const auto update = [&](int64_t begin, int64_t end) {
      for (int64_t f = begin; f < end; ++f) {
        for (const Follower& follower : step->fields[f].followers) {
          UpdateFollowing<kWidth>(step, step->fields[f], follower);
        }
      }
    };
    ForRanges(context, entries_.fields(), update, FollowingRows(*step) / entries_.fields() + 1);
  }

  static int64_t FollowingRows(const Step& step) {
    int64_t rows = 0;
    for (const Field& field : step.fields) {
      for (const Follower& follower : field.followers) {
        rows += follower.slices ? step.upstream.batch() : follower.rows.count;
      }
    }
    return rows;
  }

  // Updates the rows of a field whose first slice is in [begin, end).
  template <int64_t kWidth>
  void UpdateLeading(Step* step, int64_t f, int64_t begin, int64_t end, int64_t part) const {
    const int64_t width = kWidth ? kWidth : entries_.width();
    const Field& field = step->fields[f];
    const int64_t own_part = part - field.first_part;
    for (const Follower& follower : field.followers) {
      if (follower.slices) continue;
      std::fill_n(follower.Sums(own_part, width), follower.rows.count * width, 0.0f);
    }
    const Gradients upstream{step->upstream.values() + f * width, entries_.fields() * width};
    step->tables.WithRule(
        field.rows.table, field.rows.first, step->rate, epsilon_, [&](const auto& rule) {
          UpdateRows<kWidth>(field, begin, end, step->upstream.batch(), own_part, upstream, rule);
        });
  }

  // Those of a field's vectors.
  struct Gradients {
    const float* values;
    int64_t stride;

    const float* Of(int64_t id) const { return values + id * stride; }
  };

  template <int64_t kWidth, typename Rule>
  void UpdateRows(const Field& field, int64_t begin, int64_t end, int64_t count, int64_t part,
                  const Gradients& upstream, const Rule& rule) const {
    const int64_t width = kWidth ? kWidth : entries_.width();
    const Slice* slices = field.slices;
    std::vector<float> buffer(2 * width);
    float* total = buffer.data();
    float* product = total + width;
    int64_t i = FirstOfRow(slices, begin, end);
    while (i < end) {
      const uint32_t row = RowOf(slices[i]);
      const float* weights = rule.table + row * width;
      std::fill_n(total, width, 0.0f);
      do {
        if (i + kAhead < count) {
          const Slice coming = slices[i + kAhead];
          Prefetch<false>(upstream.Of(PositionOf(coming)), width);
          if (RowOf(coming) != RowOf(slices[i + kAhead - 1])) {
            rule.PrefetchRow(RowOf(coming), width);
          }
        }
        const int64_t id = PositionOf(slices[i]);
        const float* gradient = upstream.Of(id);
        if (field.followers.size() == 1) {
          const Follower& other = field.followers.front();
          MultiplyAdd(gradient, other.Row(id, width), width, total);
          float* to = other.Gradient(id, part, width);
          if (other.slices) {
            Multiply(gradient, weights, width, to);
          } else {
            MultiplyAdd(gradient, weights, width, to);
          }
        } else {
          AddProducts(field, gradient, weights, id, part, width, product, total);
        }
      } while (++i < count && RowOf(slices[i]) == row);
      rule.Update(row, total, width);
    }
  }

  // Adds the gradients of an id whose vector has no, or several, factors beside the leading one.
  static void AddProducts(const Field& field, const float* gradient, const float* weights,
                          int64_t id, int64_t part, int64_t width, float* product, float* total) {
    for (const Follower& own : field.followers) {
      Multiply(gradient, weights, width, product);
      for (const Follower& other : field.followers) {
        if (&other != &own) Multiply(product, other.Row(id, width), width, product);
      }
      float* to = own.Gradient(id, part, width);
      if (own.slices) {
        Copy(product, width, to);
      } else {
        Add(product, width, to);
      }
    }
    Copy(gradient, width, product);
    for (const Follower& other : field.followers) {
      Multiply(product, other.Row(id, width), width, product);
    }
    Add(product, width, total);
  }

  template <int64_t kWidth>
  void UpdateFollowing(Step* step, const Field& field, const Follower& follower) const {
    const int64_t width = kWidth ? kWidth : entries_.width();
    const Rows& rows = follower.rows;
    const auto update = [&](const auto& rule) {
      if (follower.slices) {
        UpdateBySlices(follower, step->upstream.batch(), rule);
        return;
      }
      for (int64_t row = 0; row < rows.count; ++row) {
        float* total = follower.sums + row * width;
        for (int64_t part = 1; part < field.parts; ++part) {
          Add(follower.Sums(part, width) + row * width, width, total);
        }
        rule.Update(row, total, width);
      }
    };
    step->tables.WithRule(rows.table, rows.first, step->rate, epsilon_, update);
  }

  template <typename Rule>
  void UpdateBySlices(const Follower& follower, int64_t count, const Rule& rule) const {
    std::vector<Slice> slices(count), scratch(count);
    Pack(follower.numbers, count, follower.rows.count, slices.data());
    SortInPlace(slices.data(), scratch.data(), count, follower.rows.count);
    UpdateRange(slices.data(), count, 0, count, follower.slices, entries_.width(), rule);
  }

  Entries entries_;
  std::vector<std::vector<Rows>> rows_;  // of each field, the leading one first
  float epsilon_ = 0;
};

REGISTER_OP("TfCompemb>SgdRowProducts")
    .Input("tables: N * resource")
    .Input("row_numbers: N * int32")
    .Input("upstream: float")
    .Input("learning_rate: float")
    .TF_COMPEMB_PRODUCT_ENTRIES.TF_COMPEMB_PRODUCT_DIGITS
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

REGISTER_OP("TfCompemb>AdagradRowProducts")
    .Input("tables: N * resource")
    .Input("accumulators: N * resource")
    .Input("row_numbers: N * int32")
    .Input("upstream: float")
    .Input("learning_rate: float")
    .TF_COMPEMB_PRODUCT_ENTRIES.TF_COMPEMB_PRODUCT_DIGITS
    .Attr("epsilon: float")
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

REGISTER_KERNEL_BUILDER(Name("TfCompemb>SgdRowProducts").Device(tensorflow::DEVICE_CPU),
                        RowProductUpdateOp<false>);
REGISTER_KERNEL_BUILDER(Name("TfCompemb>AdagradRowProducts").Device(tensorflow::DEVICE_CPU),
                        RowProductUpdateOp<true>);

}  // namespace
}  // namespace tf_compemb
