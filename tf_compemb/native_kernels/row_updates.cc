// One step of SGD, Adagrad or row-wise Adagrad on the rows of a table that a sparse gradient names:
// duplicates are added up, then each row and its accumulator are read and written once.
//
// The result does not depend on the number of threads: the slices of a row are added up by one
// thread, in the order of their positions.

#define EIGEN_USE_THREADS  // for the ThreadPoolDevice in training_op_helpers.h

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "rows.h"
#include "sorted_slices.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/kernels/training_op_helpers.h"

namespace tf_compemb {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;

// How many slices ahead memory is asked for, to have arrived when it is read.
constexpr int64_t kAhead = 12;

struct Sgd {
  float* table;
  int64_t width;
  float rate;

  [[gnu::always_inline]] void PrefetchRow(int64_t row) const {
    Prefetch<true>(table + row * width, width);
  }

  void Update(int64_t row, const float* __restrict gradient) const {
    float* __restrict weights = table + row * width;
    for (int64_t j = 0; j < width; ++j) weights[j] -= rate * gradient[j];
  }
};

struct Adagrad {
  float* table;
  float* accumulator;
  int64_t width;
  float rate;
  float epsilon;

  [[gnu::always_inline]] void PrefetchRow(int64_t row) const {
    Prefetch<true>(table + row * width, width);
    Prefetch<true>(accumulator + row * width, width);
  }

  void Update(int64_t row, const float* __restrict gradient) const {
    float* __restrict weights = table + row * width;
    float* __restrict total = accumulator + row * width;
    for (int64_t j = 0; j < width; ++j) {
      total[j] += gradient[j] * gradient[j];
      weights[j] -= rate * gradient[j] / std::sqrt(total[j] + epsilon);
    }
  }
};

struct RowWiseAdagrad {
  float* table;
  float* accumulator;
  int64_t width;
  float rate;
  float epsilon;

  [[gnu::always_inline]] void PrefetchRow(int64_t row) const {
    Prefetch<true>(table + row * width, width);
    __builtin_prefetch(accumulator + row, 1);
  }

  void Update(int64_t row, const float* __restrict gradient) const {
    float* __restrict weights = table + row * width;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < width; ++j) squares += gradient[j] * gradient[j];
    accumulator[row] += squares / width;
    const float step = rate / std::sqrt(accumulator[row] + epsilon);
    for (int64_t j = 0; j < width; ++j) weights[j] -= step * gradient[j];
  }
};

// Updates the rows whose first slice is in [begin, end).
template <typename Rule>
void UpdateRange(const Slice* slices, int64_t count, int64_t begin, int64_t end,
                 const float* gradients, int64_t width, const Rule& rule) {
  std::vector<float> sum(width);
  float* __restrict total = sum.data();
  int64_t i = begin;
  while (i > 0 && i < end && RowOf(slices[i]) == RowOf(slices[i - 1])) ++i;
  while (i < end) {
    const uint32_t row = RowOf(slices[i]);
    const float* gradient = gradients + PositionOf(slices[i]) * width;
    const int64_t first = i;
    for (;; ++i) {
      if (i + kAhead < count) {
        const Slice coming = slices[i + kAhead];
        Prefetch<false>(gradients + PositionOf(coming) * width, width);
        if (RowOf(coming) != RowOf(slices[i + kAhead - 1])) rule.PrefetchRow(RowOf(coming));
      }
      if (i > first) {
        const float* __restrict further = gradients + PositionOf(slices[i]) * width;
        if (i == first + 1) std::memcpy(total, gradient, width * sizeof(float));
        for (int64_t j = 0; j < width; ++j) total[j] += further[j];
      }
      if (i + 1 == count || RowOf(slices[i + 1]) != row) break;
    }
    ++i;
    rule.Update(row, i == first + 1 ? gradient : total);
  }
}

template <typename Rule>
void UpdateRows(OpKernelContext* context, const Slice* slices, int64_t count,
                const float* gradients, int64_t width, const Rule& rule) {
  ForRanges(context, count, [&](int64_t begin, int64_t end) {
    UpdateRange(slices, count, begin, end, gradients, width, rule);
  });
}

// The inputs: resources `table` and, for Adagrad, `accumulator`; then `ids`, `gradients`,
// `learning_rate`.
template <typename Id, int kResources>
class RowUpdateOp : public OpKernel {
 public:
  explicit RowUpdateOp(OpKernelConstruction* context) : OpKernel(context) {
    if (kResources == 2) OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& ids = context->input(kResources);
    const Tensor& gradients = context->input(kResources + 1);
    const Tensor& rate = context->input(kResources + 2);
    std::vector<int> resources(kResources);
    for (int i = 0; i < kResources; ++i) resources[i] = i;
    const auto locks = tensorflow::MaybeLockVariableInputMutexesInOrder<CPUDevice, float>(
        context, /*do_lock=*/true, /*sparse=*/true, resources);
    std::vector<Tensor> variables(kResources);
    for (int i = 0; i < kResources; ++i) {
      OP_REQUIRES_OK(context, tensorflow::GetInputTensorFromVariable<CPUDevice, float>(
                                  context, i, /*lock_held=*/true, /*sparse=*/true, &variables[i]));
      OP_REQUIRES(context, variables[i].dtype() == tensorflow::DT_FLOAT && variables[i].dims() == 2,
                  InvalidArgument("The variables must be float32 matrices, not ",
                                  variables[i].DebugString(0)));
    }
    const int64_t rows = variables[0].dim_size(0), width = variables[0].dim_size(1);
    const int64_t count = ids.NumElements();
    OP_REQUIRES(context, ids.dims() == 1 && gradients.shape() == TensorShape({count, width}),
                InvalidArgument("The gradients of ", ids.shape().DebugString(),
                                " ids of rows of width ", width, " have the shape ",
                                gradients.shape().DebugString()));
    OP_REQUIRES(context, rate.dims() == 0,
                InvalidArgument("The learning rate must be a scalar, not of shape ",
                                rate.shape().DebugString()));
    OP_REQUIRES(context, rows <= int64_t{1} << 32 && count < int64_t{1} << 32,
                InvalidArgument("At most 2^32 rows and ids, not ", rows, " and ", count));
    Tensor packed, scratch;
    const TensorShape shape({count});
    OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_UINT64, shape, &packed));
    OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_UINT64, shape, &scratch));
    Slice* slices = packed.flat<Slice>().data();
    const Id* first = ids.flat<Id>().data();
    const int64_t outside = Pack(first, count, rows, slices);
    OP_REQUIRES(context, outside == count,
                InvalidArgument("ids[", outside, "] = ", first[outside], " is not in [0, ", rows,
                                ")"));
    slices = SortByRow(slices, scratch.flat<Slice>().data(), count, rows);
    Update(context, variables, slices, gradients, rate.scalar<float>()());
  }

 private:
  using CPUDevice = Eigen::ThreadPoolDevice;

  void Update(OpKernelContext* context, std::vector<Tensor>& variables, const Slice* slices,
              const Tensor& gradients, float rate) {
    const int64_t count = gradients.dim_size(0), width = gradients.dim_size(1);
    const float* values = gradients.flat<float>().data();
    float* table = variables[0].flat<float>().data();
    const auto update = [&](const auto& rule) {
      UpdateRows(context, slices, count, values, width, rule);
    };
    if constexpr (kResources == 1) {
      update(Sgd{table, width, rate});
    } else {
      const int64_t rows = variables[0].dim_size(0);
      const TensorShape row_wise({rows, 1});
      OP_REQUIRES(context,
                  variables[1].shape() == variables[0].shape() || variables[1].shape() == row_wise,
                  InvalidArgument("The accumulator must have the shape ",
                                  variables[0].shape().DebugString(), " or ",
                                  row_wise.DebugString(), ", not ",
                                  variables[1].shape().DebugString()));
      float* accumulator = variables[1].flat<float>().data();
      if (variables[1].shape() == variables[0].shape()) {
        update(Adagrad{table, accumulator, width, rate, epsilon_});
      } else {
        update(RowWiseAdagrad{table, accumulator, width, rate, epsilon_});
      }
    }
  }

  float epsilon_ = 0;
};

REGISTER_OP("TfCompemb>SgdRows")
    .Input("table: resource")
    .Input("ids: Id")
    .Input("gradients: float")
    .Input("learning_rate: float")
    .Attr("Id: {int32, int64}")
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

REGISTER_OP("TfCompemb>AdagradRows")
    .Input("table: resource")
    .Input("accumulator: resource")
    .Input("ids: Id")
    .Input("gradients: float")
    .Input("learning_rate: float")
    .Attr("epsilon: float")
    .Attr("Id: {int32, int64}")
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

#define REGISTER(name, resources, id)                                                     \
  REGISTER_KERNEL_BUILDER(                                                                \
      Name(name).Device(tensorflow::DEVICE_CPU).TypeConstraint<id>("Id"),                 \
      RowUpdateOp<id, resources>)
REGISTER("TfCompemb>SgdRows", 1, int32_t);
REGISTER("TfCompemb>SgdRows", 1, int64_t);
REGISTER("TfCompemb>AdagradRows", 2, int32_t);
REGISTER("TfCompemb>AdagradRows", 2, int64_t);
#undef REGISTER

}  // namespace
}  // namespace tf_compemb
