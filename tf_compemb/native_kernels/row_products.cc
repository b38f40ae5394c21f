// Vectors of ids that are products of rows: row numbers, rows and their product in one pass.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "digits.h"
#include "product_entries.h"
#include "rows.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tf_compemb {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::OpOutputList;
using tensorflow::Status;
using tensorflow::Tensor;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

template <typename Id>
class ReadRowProductsOp : public OpKernel {
 public:
  explicit ReadRowProductsOp(OpKernelConstruction* context) : OpKernel(context) {
    std::vector<DigitBounds> bounds;
    OP_REQUIRES_OK(context, entries_.Read(context));
    OP_REQUIRES_OK(context, ReadBounds(context, entries_, &bounds));
    OP_REQUIRES_OK(context, context->GetAttr("sizes", &sizes_));
    OP_REQUIRES_OK(context, context->GetAttr("message", &message_));
    digits_.resize(entries_.rows().size());
    for (const Entry& entry : entries_.All()) {
      digits_[entry.table].Add(entry.field, bounds[entry.position]);
    }
  }

  void Compute(OpKernelContext* context) override {
    HeldTables held;
    OP_REQUIRES_OK(context, held.Hold(context, entries_));
    const Tensor* ids = nullptr;
    OP_REQUIRES_OK(context, context->input("ids", &ids));
    OP_REQUIRES(context, ids->dims() == 2 && ids->dim_size(1) == entries_.fields(),
                InvalidArgument("The ids must be a matrix of ", entries_.fields(),
                                " columns, not of shape ", ids->shape().DebugString()));
    const int64_t batch = ids->dim_size(0);
    Tensor* vectors = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(
                                "vectors", {batch, entries_.fields(), entries_.width()}, &vectors));
    OpOutputList outputs;
    OP_REQUIRES_OK(context, context->output_list("row_numbers", &outputs));
    std::vector<int32_t*> numbers;
    for (int t = 0; t < outputs.size(); ++t) {
      Tensor* output = nullptr;
      OP_REQUIRES_OK(context, outputs.allocate(t, {batch, entries_.Count(t)}, &output));
      numbers.push_back(output->flat<int32_t>().data());
    }
    const Id* values = ids->flat<Id>().data();
    float* to = vectors->flat<float>().data();
    const Factors factors(entries_, held, {numbers.begin(), numbers.end()});
    std::atomic<bool> all_in_range{true};
    ForRanges(
        context, batch,
        [&](int64_t begin, int64_t end) {
          if (!Number(values, begin, end, numbers)) {
            all_in_range = false;
            return;
          }
          WithConstant(entries_.width(), [&](auto width) {
            Read<width.value>(factors, begin, end, to);
          });
        },
        entries_.fields());
    if (!all_in_range) Refuse(context, values, batch);
  }

 private:
  bool IsInRange(Id id, int64_t field) const {
    return static_cast<uint64_t>(static_cast<int64_t>(id)) < static_cast<uint64_t>(sizes_[field]);
  }

  // Writes row numbers; whether all ids are in range, without which they mean nothing.
  bool Number(const Id* ids, int64_t begin, int64_t end,
              const std::vector<int32_t*>& numbers) const {
    const int64_t fields = sizes_.size();
    bool all_in_range = true;
    for (int64_t b = begin; b < end; ++b) {
      const Id* of_row = ids + b * fields;
      for (int64_t f = 0; f < fields; ++f) all_in_range &= IsInRange(of_row[f], f);
      for (size_t t = 0; t < digits_.size(); ++t) {
        digits_[t].RowsOf(of_row, numbers[t] + b * entries_.Count(t));
      }
    }
    return all_in_range;
  }

  template <int64_t kWidth>
  void Read(const Factors& factors, int64_t begin, int64_t end, float* vectors) const {
    const int64_t fields = entries_.fields(), width = kWidth ? kWidth : entries_.width();
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t f = 0; f < fields; ++f) {
        factors.Prefetch(f, b, end, width);
        const Factor* factor = factors.First(f);
        const Factor* last = factors.End(f);
        float* to = vectors + (b * fields + f) * width;
        const float* row = factor->Row(b, width);
        if (++factor == last) {
          Copy(row, width, to);
          continue;
        }
        Multiply(row, factor->Row(b, width), width, to);
        while (++factor != last) Multiply(to, factor->Row(b, width), width, to);
      }
    }
  }

  void Refuse(OpKernelContext* context, const Id* ids, int64_t batch) const {
    const int64_t fields = sizes_.size();
    for (int64_t i = 0; i < batch * fields; ++i) {
      if (IsInRange(ids[i], i % fields)) continue;
      context->CtxFailure(InvalidArgument(message_, "ids[", i / fields, ", ", i % fields,
                                          "] = ", ids[i], " is not in [0, ", sizes_[i % fields],
                                          ")"));
      return;
    }
  }

  Entries entries_;
  std::vector<int64_t> sizes_;
  std::string message_;
  std::vector<Digits> digits_;  // of each table
};

Status VectorShapes(InferenceContext* context) {
  std::vector<int64_t> rows, tables;
  int64_t width, fields;
  TF_RETURN_IF_ERROR(context->GetAttr("rows", &rows));
  TF_RETURN_IF_ERROR(context->GetAttr("tables_of_entries", &tables));
  TF_RETURN_IF_ERROR(context->GetAttr("width", &width));
  TF_RETURN_IF_ERROR(context->GetAttr("num_fields", &fields));
  ShapeHandle ids;
  TF_RETURN_IF_ERROR(
      context->WithRank(context->input(static_cast<int>(rows.size())), 2, &ids));
  const DimensionHandle batch = context->Dim(ids, 0);
  context->set_output(
      0, context->MakeShape({batch, context->MakeDim(fields), context->MakeDim(width)}));
  for (size_t t = 0; t < rows.size(); ++t) {
    const int64_t columns = std::count(tables.begin(), tables.end(), static_cast<int64_t>(t));
    context->set_output(static_cast<int>(t) + 1,
                        context->Matrix(batch, context->MakeDim(columns)));
  }
  return tensorflow::OkStatus();
}

REGISTER_OP("TfCompemb>ReadRowProducts")
    .Input("tables: N * resource")
    .Input("ids: Id")
    .Output("vectors: float")
    .Output("row_numbers: N * int32")
    .TF_COMPEMB_PRODUCT_ENTRIES.TF_COMPEMB_PRODUCT_DIGITS
    .Attr("Id: {int32, int64}")
    .Attr("message: string = ''")
    .SetShapeFn(VectorShapes);

#define REGISTER(id)                                                 \
  REGISTER_KERNEL_BUILDER(Name("TfCompemb>ReadRowProducts")          \
                              .Device(tensorflow::DEVICE_CPU)        \
                              .TypeConstraint<id>("Id"),             \
                          ReadRowProductsOp<id>)
REGISTER(int32_t);
REGISTER(int64_t);
#undef REGISTER

}  // namespace
}  // namespace tf_compemb
