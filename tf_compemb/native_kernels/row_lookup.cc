// Rows of a table by their numbers, as ResourceGather reads them, with rows asked for ahead of
// time and few threads for few rows.

#include <atomic>
#include <cstdint>
#include <cstring>

#include "rows.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tf_compemb {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::errors::InvalidArgument;

constexpr int64_t kRowsAhead = 16;

template <typename Id>
class ReadRowsOp : public OpKernel {
 public:
  explicit ReadRowsOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    tensorflow::core::RefCountPtr<tensorflow::Var> variable;
    OP_REQUIRES_OK(context, tensorflow::LookupResource(
                                context, tensorflow::HandleFromInput(context, 0), &variable));
    tensorflow::tf_shared_lock lock(*variable->mu());
    const Tensor& table = *variable->tensor();
    OP_REQUIRES(context, table.dtype() == tensorflow::DT_FLOAT && table.dims() == 2,
                InvalidArgument("The variable must be a float32 matrix, not ",
                                table.DebugString(0)));
    const Tensor& ids = context->input(1);
    const int64_t rows = table.dim_size(0), width = table.dim_size(1), count = ids.NumElements();
    tensorflow::TensorShape shape = ids.shape();
    OP_REQUIRES_OK(context, shape.AddDimWithStatus(width));
    Tensor* read = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &read));
    const Id* numbers = ids.flat<Id>().data();
    const float* from = table.flat<float>().data();
    float* to = read->flat<float>().data();
    std::atomic<bool> all_in_range{true};
    ForRanges(context, count, [&](int64_t begin, int64_t end) {
      if (!Copy(numbers, begin, end, from, rows, width, to)) all_in_range = false;
    });
    if (!all_in_range) {
      const int64_t outside = FirstOutside(numbers, count, rows);
      context->CtxFailure(InvalidArgument("ids[", outside, "] = ", numbers[outside],
                                          " is not in [0, ", rows, ")"));
    }
  }

 private:
  // Copies rows until one is out of range; whether none was.
  static bool Copy(const Id* ids, int64_t begin, int64_t end, const float* from, int64_t rows,
                   int64_t width, float* to) {
    const auto in_range = [rows](Id id) { return id >= 0 && id < rows; };
    for (int64_t i = begin; i < end; ++i) {
      if (i + kRowsAhead < end && in_range(ids[i + kRowsAhead])) {
        Prefetch<false>(from + ids[i + kRowsAhead] * width, width);
      }
      if (!in_range(ids[i])) return false;
      const float* row = from + ids[i] * width;
      for (int64_t j = 0; j < width; ++j) to[i * width + j] = row[j];
    }
    return true;
  }
};

REGISTER_OP("TfCompemb>ReadRows")
    .Input("table: resource")
    .Input("ids: Id")
    .Output("read: float")
    .Attr("rows: int")
    .Attr("width: int")
    .Attr("Id: {int32, int64}")
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      int64_t width;
      TF_RETURN_IF_ERROR(context->GetAttr("width", &width));
      tensorflow::shape_inference::ShapeHandle shape;
      TF_RETURN_IF_ERROR(
          context->Concatenate(context->input(1), context->Vector(width), &shape));
      context->set_output(0, shape);
      return absl::OkStatus();
    });

#define REGISTER(id)                                                                      \
  REGISTER_KERNEL_BUILDER(                                                                \
      Name("TfCompemb>ReadRows").Device(tensorflow::DEVICE_CPU).TypeConstraint<id>("Id"), \
      ReadRowsOp<id>)
REGISTER(int32_t);
REGISTER(int64_t);
#undef REGISTER

}  // namespace
}  // namespace tf_compemb
