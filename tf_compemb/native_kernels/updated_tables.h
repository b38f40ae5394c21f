// The tables that an op updates, with their accumulators, locked while it does.

#ifndef TF_COMPEMB_UPDATED_TABLES_H_
#define TF_COMPEMB_UPDATED_TABLES_H_

#include <cstdint>
#include <numeric>
#include <vector>

#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/kernels/training_op_helpers.h"
#include "update_rules.h"

namespace tf_compemb {

// An op's input `learning_rate`.
inline tensorflow::Status ReadRate(tensorflow::OpKernelContext* context, float* rate) {
  const tensorflow::Tensor* input = nullptr;
  TF_RETURN_IF_ERROR(context->input("learning_rate", &input));
  if (input->dims() != 0) {
    return tensorflow::errors::InvalidArgument("The learning rate must be a scalar, not of shape ",
                                               input->shape().DebugString());
  }
  *rate = input->scalar<float>()();
  return tensorflow::OkStatus();
}

// The first inputs of an op: `count` tables and, for the Adagrads, as many accumulators.
template <bool kAccumulators>
class UpdatedTables {
 public:
  UpdatedTables(tensorflow::OpKernelContext* context, int count)
      : count_(count),
        locks_(tensorflow::MaybeLockVariableInputMutexesInOrder<CPUDevice, float>(
            context, /*do_lock=*/true, /*sparse=*/true, Inputs(count))) {}

  tensorflow::Status Open(tensorflow::OpKernelContext* context) {
    using tensorflow::errors::InvalidArgument;
    for (const int input : Inputs(count_)) {
      tensorflow::Tensor variable;
      TF_RETURN_IF_ERROR((tensorflow::GetInputTensorFromVariable<CPUDevice, float>(
          context, input, /*lock_held=*/true, /*sparse=*/true, &variable)));
      if (variable.dtype() != tensorflow::DT_FLOAT || variable.dims() != 2) {
        return InvalidArgument("The variables must be float32 matrices, not ",
                               variable.DebugString(0));
      }
      variables_.push_back(variable);
    }
    for (int t = 0; kAccumulators && t < count_; ++t) {
      const tensorflow::TensorShape shape = variables_[t].shape(), row_wise = RowWise(t);
      const tensorflow::TensorShape found = variables_[count_ + t].shape();
      if (found != shape && found != row_wise) {
        return InvalidArgument("The accumulator must have the shape ", shape.DebugString(), " or ",
                               row_wise.DebugString(), ", not ", found.DebugString());
      }
    }
    return tensorflow::OkStatus();
  }

  int64_t Rows(int t) const { return variables_[t].dim_size(0); }
  int64_t Width(int t) const { return variables_[t].dim_size(1); }
  const float* Values(int t) const { return variables_[t].flat<float>().data(); }

  // Calls `work` with the rule of a table from a row on, row-wise if the accumulator is.
  template <typename Work>
  void WithRule(int t, int64_t first_row, float rate, float epsilon, const Work& work) {
    float* table = variables_[t].flat<float>().data() + first_row * Width(t);
    if constexpr (kAccumulators) {
      tensorflow::Tensor& accumulator = variables_[count_ + t];
      float* values = accumulator.flat<float>().data() + first_row * accumulator.dim_size(1);
      if (accumulator.shape() == variables_[t].shape()) {
        work(Adagrad{table, values, rate, epsilon});
      } else {
        work(RowWiseAdagrad{table, values, rate, epsilon});
      }
    } else {
      work(Sgd{table, rate});
    }
  }

 private:
  using CPUDevice = Eigen::ThreadPoolDevice;

  static std::vector<int> Inputs(int count) {
    std::vector<int> inputs(kAccumulators ? 2 * count : count);
    std::iota(inputs.begin(), inputs.end(), 0);
    return inputs;
  }

  tensorflow::TensorShape RowWise(int t) const { return {Rows(t), 1}; }

  int count_;
  tensorflow::VariableInputLockHolder locks_;
  std::vector<tensorflow::Tensor> variables_;
};

}  // namespace tf_compemb

#endif  // TF_COMPEMB_UPDATED_TABLES_H_
