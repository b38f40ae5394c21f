// One step of SGD, Adagrad or row-wise Adagrad on all tables whose rows' products are vectors, from
// the gradient of the vectors, without writing the tables' own gradients.
//
// The result does not depend on the number of threads: gradients are added up in parts, which the
// number of ids determines, and the parts in their order.

#define EIGEN_USE_THREADS  // for the ThreadPoolDevice in training_op_helpers.h

#include <algorithm>
#include <cstdint>
#include <vector>

#include "product_entries.h"
#include "product_fields.h"
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
using tensorflow::errors::InvalidArgument;

// The gradients of a field's vectors.
struct Gradients {
  const float* values;
  int64_t stride;

  const float* Of(int64_t id) const { return values + id * stride; }
};

// Adds what an id with no, or several, factors beside the leading row gives to the gradients of
// all, the leading row's in `total`. `product` is for a row.
inline void AddGradients(const Field& field, const float* gradient, const float* weights,
                         int64_t id, int64_t part, int64_t width, float* product, float* total) {
  for (const Follower& own : field.followers) {
    Multiply(gradient, weights, width, product);
    for (const Follower& other : field.followers) {
      if (&other != &own) Multiply(product, other.Row(id, width), width, product);
    }
    float* to = own.Gradient(id, part, width);
    if (own.is_summed) {
      Add(product, width, to);
    } else {
      Copy(product, width, to);
    }
  }
  Copy(gradient, width, product);
  for (const Follower& other : field.followers) {
    Multiply(product, other.Row(id, width), width, product);
  }
  Add(product, width, total);
}

// The same with one factor beside the leading row.
inline void AddGradients(const Follower& other, const float* gradient, const float* weights,
                         int64_t id, int64_t part, int64_t width, float* total) {
  MultiplyAdd(gradient, other.Row(id, width), width, total);
  float* to = other.Gradient(id, part, width);
  if (other.is_summed) {
    MultiplyAdd(gradient, weights, width, to);
  } else {
    Multiply(gradient, weights, width, to);
  }
}

// Updates the leading rows of a field whose first of `count` slices is in [begin, end).
template <int64_t kWidth, typename Rule>
void UpdateLeading(const Field& field, int64_t begin, int64_t end, int64_t count, int64_t part,
                   const Gradients& upstream, int64_t any_width, const Rule& rule) {
  const int64_t width = kWidth ? kWidth : any_width;
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
        AddGradients(field.followers.front(), gradient, weights, id, part, width, total);
      } else {
        AddGradients(field, gradient, weights, id, part, width, product, total);
      }
    } while (++i < count && RowOf(slices[i]) == row);
    rule.Update(row, total, width);
  }
}

// Whether a rule leaves a row as it is.
inline bool IsZero(const float* gradient, int64_t width) {
  bool any = false;
#pragma omp simd reduction(| : any)
  for (int64_t j = 0; j < width; ++j) any |= gradient[j] != 0;
  return !any;
}

// Updates the rows of a factor that follows, the sums of whose `parts` are complete.
template <int64_t kWidth, typename Rule>
void UpdateFollowing(const Follower& follower, int64_t parts, int64_t any_width,
                     const Rule& rule) {
  const int64_t width = kWidth ? kWidth : any_width;
  for (int64_t row = 0; row < follower.rows.count; ++row) {
    float* total = follower.gradients + row * width;
    for (int64_t part = 1; part < parts; ++part) {
      Add(follower.Sums(part, width) + row * width, width, total);
    }
    if (!IsZero(total, width)) rule.Update(row, total, width);
  }
}

// The same with a slice for each of `count` ids.
template <typename Rule>
void UpdateFollowingBySlices(const Follower& follower, int64_t count, int64_t width,
                             const Rule& rule) {
  std::vector<Slice> slices(count), scratch(count);
  Pack(follower.numbers, count, follower.rows.count, slices.data());
  SortInPlace(slices.data(), scratch.data(), count, follower.rows.count);
  UpdateRange(slices.data(), count, 0, count, follower.gradients, width, rule);
}

template <bool kAccumulators>
class RowProductUpdateOp : public OpKernel {
 public:
  explicit RowProductUpdateOp(OpKernelConstruction* context) : OpKernel(context) {
    if (kAccumulators) OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
    OP_REQUIRES_OK(context, entries_.Read(context));
    OP_REQUIRES_OK(context, ReadFieldRows(context, entries_, &rows_));
  }

  void Compute(OpKernelContext* context) override {
    const int count = entries_.rows().size();
    UpdatedTables<kAccumulators> tables(context, count);
    OP_REQUIRES_OK(context, tables.Open(context));
    std::vector<const float*> values;
    for (int t = 0; t < count; ++t) {
      const int64_t rows = entries_.rows()[t], width = entries_.width();
      OP_REQUIRES(context, tables.Rows(t) == rows && tables.Width(t) == width,
                  InvalidArgument("Table ", t, " must be of shape (", rows, ", ", width,
                                  "), not (", tables.Rows(t), ", ", tables.Width(t), ")"));
      values.push_back(tables.Values(t));
    }
    float rate = 0;
    OP_REQUIRES_OK(context, ReadRate(context, &rate));
    Upstream upstream;
    OP_REQUIRES_OK(context, upstream.Read(context, entries_));
    FieldsOfStep fields;
    OP_REQUIRES_OK(context, fields.Allocate(context, rows_, values, upstream.batch(),
                                            entries_.width()));
    OP_REQUIRES_OK(context, fields.Sort(context, upstream.numbers()));
    const auto with_rule = [&](const EntryRows& rows, const auto& work) {
      tables.WithRule(rows.table, rows.first, rate, epsilon_, work);
    };
    WithConstant(entries_.width(), [&](auto width) {
      Lead<width.value>(context, fields, upstream.values(), with_rule);
      Follow<width.value>(context, fields, with_rule);
    });
  }

 private:
  template <int64_t kWidth, typename WithRule>
  void Lead(OpKernelContext* context, const FieldsOfStep& fields, const float* upstream,
            const WithRule& with_rule) const {
    const int64_t width = entries_.width();
    ForParts(context, fields.parts(), [&](int64_t part) {
      fields.ForFields(part, [&](int64_t f, int64_t begin, int64_t end) {
        const Field& field = fields.fields()[f];
        const int64_t own_part = part - field.first_part;
        for (const Follower& follower : field.followers) {
          if (!follower.is_summed) continue;
          std::fill_n(follower.Sums(own_part, width), follower.rows.count * width, 0.0f);
        }
        const Gradients gradients{upstream + f * width, entries_.fields() * width};
        with_rule(field.rows, [&](const auto& rule) {
          UpdateLeading<kWidth>(field, begin, end, fields.batch(), own_part, gradients, width,
                                rule);
        });
      });
    });
  }

  template <int64_t kWidth, typename WithRule>
  void Follow(OpKernelContext* context, const FieldsOfStep& fields,
              const WithRule& with_rule) const {
    const int64_t width = entries_.width();
    int64_t rows = 0;
    for (const Field& field : fields.fields()) {
      for (const Follower& follower : field.followers) {
        rows += follower.is_summed ? follower.rows.count : fields.batch();
      }
    }
    if (rows == 0) return;
    const auto update = [&](int64_t begin, int64_t end) {
      for (int64_t f = begin; f < end; ++f) {
        const Field& field = fields.fields()[f];
        for (const Follower& follower : field.followers) {
          with_rule(follower.rows, [&](const auto& rule) {
            if (follower.is_summed) {
              UpdateFollowing<kWidth>(follower, field.parts, width, rule);
            } else {
              UpdateFollowingBySlices(follower, fields.batch(), width, rule);
            }
          });
        }
      }
    };
    // They are next to one another, so that one takes a fourth of what an id takes.
    ForRanges(context, entries_.fields(), update, rows / entries_.fields() / 4 + 1);
  }

  Entries entries_;
  std::vector<std::vector<EntryRows>> rows_;  // of each field
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
