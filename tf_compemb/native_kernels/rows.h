// What the kernels share: reading ids, asking for rows ahead of time, sharing work out.

#ifndef TF_COMPEMB_ROWS_H_
#define TF_COMPEMB_ROWS_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/platform/threadpool.h"

namespace tf_compemb {

constexpr int64_t kFloatsOfCacheLine = 16;
// Ids that a thread takes at a time: some 0.05 ms of work.
constexpr int64_t kBlock = 2048;

// Position of the first id that is not in [0, rows), or `count`.
template <typename Id>
int64_t FirstOutside(const Id* ids, int64_t count, int64_t rows) {
  return std::find_if(ids, ids + count, [rows](Id id) { return id < 0 || id >= rows; }) - ids;
}

// Inlined always: a compiler drops calls of functions that compute nothing.
template <bool kToWrite>
[[gnu::always_inline]] inline void Prefetch(const float* row, int64_t width) {
  for (int64_t j = 0; j < width; j += kFloatsOfCacheLine) __builtin_prefetch(row + j, kToWrite);
}

// Calls `work(begin, end)` for ranges that make up [0, count), on TensorFlow's own threads. One of
// `count` stands for `ids` ids.
template <typename Work>
void ForRanges(tensorflow::OpKernelContext* context, int64_t count, const Work& work,
               int64_t ids = 1) {
  using tsl::thread::ThreadPool;
  const auto& threads = *context->device()->tensorflow_cpu_worker_threads();
  const int64_t block = std::max<int64_t>(kBlock / ids, 1);
  if (count <= block || threads.num_threads == 1) {
    work(0, count);
    return;
  }
  threads.workers->ParallelFor(
      count,
      ThreadPool::SchedulingParams(ThreadPool::SchedulingStrategy::kFixedBlockSize, std::nullopt,
                                   block),
      work);
}

// Calls `work(part)` for each part in [0, parts), each a range of its own for `ForRanges`.
template <typename Work>
void ForParts(tensorflow::OpKernelContext* context, int64_t parts, const Work& work) {
  const auto each = [&work](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) work(part);
  };
  ForRanges(context, parts, each, /*ids=*/kBlock);
}

}  // namespace tf_compemb

#endif  // TF_COMPEMB_ROWS_H_
