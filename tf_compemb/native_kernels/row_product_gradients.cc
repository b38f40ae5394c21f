// The gradients of tables whose rows' products are vectors: of the rows read, or of all rows.
//
// The result does not depend on the number of threads.

#include <algorithm>
#include <cstdint>
#include <vector>

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
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;

// Ids whose gradients are worth a thread.
constexpr int64_t kLeastPart = 512;

// The gradients of the tables: a slice for each row number, or, where `dense` says so, a sum for
// each row.
class RowProductGradientsOp : public OpKernel {
 public:
  explicit RowProductGradientsOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, entries_.Read(context));
    OP_REQUIRES_OK(context, context->GetAttr("dense", &dense_));
    const std::vector<int64_t>& rows = entries_.rows();
    OP_REQUIRES(context, dense_.size() == rows.size(),
                InvalidArgument("`dense` must say one thing for each table"));
    for (size_t t = 0; t < rows.size(); ++t) {
      first_sums_.push_back(dense_rows_);
      dense_rows_ += dense_[t] ? rows[t] : 0;
    }
  }

  void Compute(OpKernelContext* context) override {
    if (!IsWanted(context)) return;
    HeldTables held;
    OP_REQUIRES_OK(context, held.Hold(context, entries_));
    Upstream upstream;
    OP_REQUIRES_OK(context, upstream.Read(context, entries_));
    OP_REQUIRES_OK(context, Check(upstream));
    const int64_t fields = entries_.fields(), width = entries_.width(), batch = upstream.batch();
    std::vector<float*> gradients;
    OP_REQUIRES_OK(context, Outputs(context, batch, &gradients));
    const Factors factors(entries_, held, upstream.numbers());
    const int64_t parts = Parts(batch * fields), part_size = dense_rows_ * width;
    Tensor sums;
    OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_FLOAT,
                                                   TensorShape({parts * part_size}), &sums));
    float* sum = sums.flat<float>().data();
    ForParts(context, parts, [&](int64_t part) {
      float* own = sum + part * part_size;
      std::fill_n(own, part_size, 0.0f);
      const std::vector<Target> targets = Targets(gradients, own);
      WithConstant(width, [&](auto constant) {
        Differentiate<constant.value>(factors, upstream.values(),
                                      batch * part / parts, batch * (part + 1) / parts, targets);
      });
    });
    for (size_t t = 0; t < dense_.size(); ++t) {
      if (!dense_[t]) continue;
      AddUp(sum + first_sums_[t] * width, parts, part_size, entries_.rows()[t] * width,
            gradients[t]);
    }
  }

 private:
  // Not where the gradients are applied without being written.
  static bool IsWanted(OpKernelContext* context) {
    for (int t = 0; t < context->num_outputs(); ++t) {
      if (context->output_required(t)) return true;
    }
    return false;
  }

  Status Check(const Upstream& upstream) const {
    const std::vector<int64_t>& rows = entries_.rows();
    for (size_t t = 0; t < rows.size(); ++t) {
      const int64_t count = upstream.batch() * entries_.Count(t);
      uint32_t largest = 0;  // Negative numbers are larger than all others then.
#pragma omp simd reduction(max : largest)
      for (int64_t i = 0; i < count; ++i) {
        largest = std::max(largest, static_cast<uint32_t>(upstream.numbers()[t][i]));
      }
      if (count > 0 && largest >= static_cast<uint32_t>(rows[t])) {
        return InvalidArgument("Row numbers of table ", t, " must be in [0, ", rows[t], ")");
      }
    }
    return tensorflow::OkStatus();
  }

  Status Outputs(OpKernelContext* context, int64_t batch, std::vector<float*>* gradients) const {
    OpOutputList outputs;
    TF_RETURN_IF_ERROR(context->output_list("gradients", &outputs));
    for (int t = 0; t < outputs.size(); ++t) {
      const int64_t rows = dense_[t] ? entries_.rows()[t] : batch * entries_.Count(t);
      Tensor* output = nullptr;
      TF_RETURN_IF_ERROR(outputs.allocate(t, TensorShape({rows, entries_.width()}), &output));
      gradients->push_back(output->flat<float>().data());
    }
    return tensorflow::OkStatus();
  }

  // In how many parts of the batch dense gradients are added up: not by the number of threads.
  int64_t Parts(int64_t count) const {
    return std::clamp<int64_t>(count / std::max(kLeastPart, 4 * dense_rows_), 1, 16);
  }

  // Where the gradients of an entry go, in the order of `Factors`.
  struct Target {
    float* values;
    int64_t columns;  // of slices; 0 where the gradients of a row are added up
  };

  std::vector<Target> Targets(const std::vector<float*>& gradients, float* sums) const {
    std::vector<Target> targets;
    for (int64_t f = 0; f < entries_.fields(); ++f) {
      for (const Entry& entry : entries_.Of(f)) {
        if (dense_[entry.table]) {
          targets.push_back({sums + first_sums_[entry.table] * entries_.width(), 0});
        } else {
          targets.push_back({gradients[entry.table] + entry.column * entries_.width(),
                             entries_.Count(entry.table)});
        }
      }
    }
    return targets;
  }

  template <int64_t kWidth>
  void Differentiate(const Factors& factors, const float* upstream, int64_t begin, int64_t end,
                     const std::vector<Target>& targets) const {
    const int64_t fields = entries_.fields(), width = kWidth ? kWidth : entries_.width();
    std::vector<float> buffer(width);
    float* product = buffer.data();
    for (int64_t b = begin; b < end; ++b) {
      const Target* target = targets.data();
      for (int64_t f = 0; f < fields; ++f) {
        const Factor* first = factors.First(f);
        const Factor* last = factors.End(f);
        if (last - first > 1) factors.Prefetch(f, b, end, width);
        for (const Factor* own = first; own != last; ++own, ++target) {
          const float* gradient = upstream + (b * fields + f) * width;
          for (const Factor* other = first; other != last; ++other) {
            if (other == own) continue;
            Multiply(gradient, other->Row(b, width), width, product);
            gradient = product;
          }
          if (target->columns == 0) {
            Add(gradient, width, target->values + own->Number(b) * width);
          } else {
            Copy(gradient, width, target->values + b * target->columns * width);
          }
        }
      }
    }
  }

  static void AddUp(const float* sums, int64_t parts, int64_t part_size, int64_t size, float* to) {
    std::copy_n(sums, size, to);
    for (int64_t part = 1; part < parts; ++part) {
      Add(sums + part * part_size, size, to);
    }
  }

  Entries entries_;
  std::vector<bool> dense_;
  std::vector<int64_t> first_sums_;  // of each table in the sums
  int64_t dense_rows_ = 0;
};

Status GradientShapes(InferenceContext* context) {
  std::vector<int64_t> rows;
  std::vector<bool> dense;
  int64_t width;
  TF_RETURN_IF_ERROR(context->GetAttr("rows", &rows));
  TF_RETURN_IF_ERROR(context->GetAttr("dense", &dense));
  TF_RETURN_IF_ERROR(context->GetAttr("width", &width));
  for (size_t t = 0; t < rows.size(); ++t) {
    const DimensionHandle slices =
        context->NumElements(context->input(static_cast<int>(rows.size() + t)));
    const bool is_dense = t < dense.size() && dense[t];
    context->set_output(static_cast<int>(t),
                        context->Matrix(is_dense ? context->MakeDim(rows[t]) : slices,
                                        context->MakeDim(width)));
  }
  return tensorflow::OkStatus();
}

REGISTER_OP("TfCompemb>RowProductGradients")
    .Input("tables: N * resource")
    .Input("row_numbers: N * int32")
    .Input("upstream: float")
    .Output("gradients: N * float")
    .TF_COMPEMB_PRODUCT_ENTRIES.Attr("dense: list(bool)")
    .SetShapeFn(GradientShapes);
REGISTER_KERNEL_BUILDER(Name("TfCompemb>RowProductGradients").Device(tensorflow::DEVICE_CPU),
                        RowProductGradientsOp);

}  // namespace
}  // namespace tf_compemb
