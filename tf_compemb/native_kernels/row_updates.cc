// One step of SGD, Adagrad or row-wise Adagrad on the rows of a table that a sparse gradient names:
// duplicates are added up, then each row and its accumulator are read and written once.
//
// The result does not depend on the number of threads: the slices of a row are added up by one
// thread, in the order of their positions.

#define EIGEN_USE_THREADS  // for the ThreadPoolDevice in training_op_helpers.h

#include <cstdint>

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
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;

// The inputs: resources `table` and, for the Adagrads, `accumulator`; then `ids`, `gradients`,
// `learning_rate`.
template <typename Id, bool kAccumulators>
class RowUpdateOp : public OpKernel {
 public:
  explicit RowUpdateOp(OpKernelConstruction* context) : OpKernel(context) {
    if (kAccumulators) OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
  }

  void Compute(OpKernelContext* context) override {
    constexpr int kResources = kAccumulators ? 2 : 1;
    const Tensor& ids = context->input(kResources);
    const Tensor& gradients = context->input(kResources + 1);
    UpdatedTables<kAccumulators> tables(context, 1);
    OP_REQUIRES_OK(context, tables.Open(context));
    const int64_t rows = tables.Rows(0), width = tables.Width(0);
    const int64_t count = ids.NumElements();
    OP_REQUIRES(context, ids.dims() == 1 && gradients.shape() == TensorShape({count, width}),
                InvalidArgument("The gradients of ", ids.shape().DebugString(),
                                " ids of rows of width ", width, " have the shape ",
                                gradients.shape().DebugString()));
    float rate = 0;
    OP_REQUIRES_OK(context, ReadRate(context, &rate));
    OP_REQUIRES(context, rows <= int64_t{1} << 32 && count < int64_t{1} << 32,
                InvalidArgument("At most 2^32 rows and ids, not ", rows, " and ", count));
    SortedSlices slices;
    OP_REQUIRES_OK(context, slices.Allocate(context, count));
    const Id* first = ids.flat<Id>().data();
    const int64_t outside = slices.Sort(first, rows);
    OP_REQUIRES(context, outside == count,
                InvalidArgument("ids[", outside, "] = ", first[outside], " is not in [0, ", rows,
                                ")"));
    const float* values = gradients.flat<float>().data();
    tables.WithRule(0, /*first_row=*/0, rate, epsilon_, [&](const auto& rule) {
      ForRanges(context, count, [&](int64_t begin, int64_t end) {
        UpdateRange(slices.Get(), count, begin, end, values, width, rule);
      });
    });
  }

 private:
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

#define REGISTER(name, accumulators, id)                                                  \
  REGISTER_KERNEL_BUILDER(                                                                \
      Name(name).Device(tensorflow::DEVICE_CPU).TypeConstraint<id>("Id"),                 \
      RowUpdateOp<id, accumulators>)
REGISTER("TfCompemb>SgdRows", false, int32_t);
REGISTER("TfCompemb>SgdRows", false, int64_t);
REGISTER("TfCompemb>AdagradRows", true, int32_t);
REGISTER("TfCompemb>AdagradRows", true, int64_t);
#undef REGISTER

}  // namespace
}  // namespace tf_compemb
