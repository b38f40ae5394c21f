// Which rows the vectors of a batch are products of.
//
// Ids are (batch, fields). An entry says which table a field reads, and which of its rows: a digit
// of the id plus an offset, `id / divisor % modulus + offset`. A field with several entries has the
// product of their rows. Row numbers stand in one array for each table, (batch, entries of the
// table).

#ifndef TF_COMPEMB_PRODUCT_ENTRIES_H_
#define TF_COMPEMB_PRODUCT_ENTRIES_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "digits.h"
#include "rows.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

namespace tf_compemb {

constexpr int64_t kIdsAhead = 16;
// Tables of more rows are not expected in the processor's cache.
constexpr int64_t kRowsInCache = 4096;

struct Entry {
  int64_t field, table;
  int64_t column;    // among the entries of the table
  int64_t position;  // among all
};

// Which entries a field has, and how many a table, from the op's attributes.
class Entries {
 public:
  tensorflow::Status Read(tensorflow::OpKernelConstruction* context) {
    using tensorflow::errors::InvalidArgument;
    std::vector<int64_t> fields, tables;
    int64_t num_fields;
    TF_RETURN_IF_ERROR(context->GetAttr("rows", &rows_));
    TF_RETURN_IF_ERROR(context->GetAttr("width", &width_));
    TF_RETURN_IF_ERROR(context->GetAttr("fields", &fields));
    TF_RETURN_IF_ERROR(context->GetAttr("tables_of_entries", &tables));
    TF_RETURN_IF_ERROR(context->GetAttr("num_fields", &num_fields));
    if (fields.size() != tables.size()) {
      return InvalidArgument("Each entry must have a field and a table");
    }
    of_fields_.resize(num_fields);
    of_tables_.resize(rows_.size());
    for (size_t e = 0; e < fields.size(); ++e) {
      const int64_t field = fields[e], table = tables[e];
      if (field < 0 || field >= num_fields || table < 0 ||
          table >= static_cast<int64_t>(rows_.size())) {
        return InvalidArgument("Entry ", e, " has a field or a table that is not there");
      }
      entries_.push_back({field, table, of_tables_[table]++, static_cast<int64_t>(e)});
      of_fields_[field].push_back(entries_.back());
    }
    for (const auto& entries : of_fields_) {
      if (entries.empty()) return InvalidArgument("Each field must have an entry");
    }
    return tensorflow::OkStatus();
  }

  // In the order of the attributes.
  const std::vector<Entry>& All() const { return entries_; }
  const std::vector<Entry>& Of(int64_t field) const { return of_fields_[field]; }
  int64_t Count(int64_t table) const { return of_tables_[table]; }
  int64_t fields() const { return of_fields_.size(); }
  const std::vector<int64_t>& rows() const { return rows_; }
  int64_t width() const { return width_; }

 private:
  std::vector<Entry> entries_;
  std::vector<std::vector<Entry>> of_fields_;
  std::vector<int64_t> of_tables_, rows_;
  int64_t width_;
};

// Which digit of the ids each entry's row numbers are, from the op's attributes.
inline tensorflow::Status ReadBounds(tensorflow::OpKernelConstruction* context,
                                     const Entries& entries, std::vector<DigitBounds>* bounds) {
  using tensorflow::errors::InvalidArgument;
  std::vector<int64_t> sizes, divisors, moduli, offsets;
  TF_RETURN_IF_ERROR(context->GetAttr("sizes", &sizes));
  TF_RETURN_IF_ERROR(context->GetAttr("divisors", &divisors));
  TF_RETURN_IF_ERROR(context->GetAttr("moduli", &moduli));
  TF_RETURN_IF_ERROR(context->GetAttr("offsets", &offsets));
  const size_t count = entries.All().size();
  if (divisors.size() != count || moduli.size() != count || offsets.size() != count ||
      sizes.size() != static_cast<size_t>(entries.fields())) {
    return InvalidArgument("There must be a divisor, a modulus and an offset for each of ", count,
                           " entries, and a size for each field");
  }
  for (size_t e = 0; e < count; ++e) {
    const Entry& entry = entries.All()[e];
    bounds->push_back({sizes[entry.field], divisors[e], moduli[e], offsets[e],
                       entries.rows()[entry.table]});
    if (!bounds->back().Hold()) {
      return InvalidArgument("Entry ", e, " reaches beyond its table");
    }
  }
  return tensorflow::OkStatus();
}

// The tables of an op's inputs, held for reading while this lives.
class HeldTables {
 public:
  tensorflow::Status Hold(tensorflow::OpKernelContext* context, const Entries& entries) {
    tensorflow::OpInputList handles;
    TF_RETURN_IF_ERROR(context->input_list("tables", &handles));
    variables_.resize(handles.size());
    for (int t = 0; t < handles.size(); ++t) {
      TF_RETURN_IF_ERROR(tensorflow::LookupResource(
          context, handles[t].scalar<tensorflow::ResourceHandle>()(), &variables_[t]));
      locks_.emplace_back(std::make_unique<tensorflow::tf_shared_lock>(*variables_[t]->mu()));
      const tensorflow::Tensor& table = *variables_[t]->tensor();
      const int64_t rows = entries.rows()[t], width = entries.width();
      if (table.dtype() != tensorflow::DT_FLOAT ||
          table.shape() != tensorflow::TensorShape({rows, width})) {
        return tensorflow::errors::InvalidArgument("Table ", t, " must be a float32 matrix (", rows,
                                                   ", ", width, "), not ", table.DebugString(0));
      }
    }
    return tensorflow::OkStatus();
  }

  const float* Values(int64_t table) const {
    return variables_[table]->tensor()->flat<float>().data();
  }

 private:
  std::vector<tensorflow::core::RefCountPtr<tensorflow::Var>> variables_;
  std::vector<std::unique_ptr<tensorflow::tf_shared_lock>> locks_;
};

// What an op of gradients is given: the row numbers that were read, and the gradient of the vectors.
class Upstream {
 public:
  tensorflow::Status Read(tensorflow::OpKernelContext* context, const Entries& entries) {
    using tensorflow::TensorShape;
    using tensorflow::errors::InvalidArgument;
    const tensorflow::Tensor* upstream = nullptr;
    tensorflow::OpInputList inputs;
    TF_RETURN_IF_ERROR(context->input("upstream", &upstream));
    TF_RETURN_IF_ERROR(context->input_list("row_numbers", &inputs));
    const int64_t fields = entries.fields(), width = entries.width();
    batch_ = upstream->dims() == 3 ? upstream->dim_size(0) : 0;
    if (upstream->shape() != TensorShape({batch_, fields, width})) {
      return InvalidArgument("The gradient of the vectors must be of shape (batch, ", fields, ", ",
                             width, "), not ", upstream->shape().DebugString());
    }
    values_ = upstream->flat<float>().data();
    for (int t = 0; t < inputs.size(); ++t) {
      if (inputs[t].shape() != TensorShape({batch_, entries.Count(t)})) {
        return InvalidArgument("Row numbers of table ", t, " must be of shape (", batch_, ", ",
                               entries.Count(t), "), not ", inputs[t].shape().DebugString());
      }
      numbers_.push_back(inputs[t].flat<int32_t>().data());
    }
    return tensorflow::OkStatus();
  }

  int64_t batch() const { return batch_; }
  const float* values() const { return values_; }
  // Row numbers of each table.
  const std::vector<const int32_t*>& numbers() const { return numbers_; }

 private:
  int64_t batch_ = 0;
  const float* values_ = nullptr;
  std::vector<const int32_t*> numbers_;
};

// The rows of one entry: those of a table that its column of row numbers says.
struct Factor {
  const float* values;
  const int32_t* numbers;
  int64_t columns;
  bool far;  // whether memory is asked for ahead of time

  int64_t Number(int64_t b) const { return numbers[b * columns]; }
  const float* Row(int64_t b, int64_t width) const { return values + Number(b) * width; }
};

// The factors of each field, side by side in memory.
class Factors {
 public:
  Factors(const Entries& entries, const HeldTables& tables,
          const std::vector<const int32_t*>& numbers)
      : ahead_((kIdsAhead + entries.fields() - 1) / entries.fields()) {
    starts_.push_back(0);
    for (int64_t f = 0; f < entries.fields(); ++f) {
      for (const Entry& entry : entries.Of(f)) {
        const int64_t table = entry.table;
        factors_.push_back({tables.Values(table), numbers[table] + entry.column,
                            entries.Count(table), entries.rows()[table] > kRowsInCache});
      }
      starts_.push_back(factors_.size());
    }
  }

  const Factor* First(int64_t field) const { return factors_.data() + starts_[field]; }
  const Factor* End(int64_t field) const { return First(field + 1); }

  // Asks for the rows that a field reads some rows of the batch later.
  [[gnu::always_inline]] void Prefetch(int64_t field, int64_t b, int64_t end,
                                       int64_t width) const {
    if (b + ahead_ >= end) return;
    for (const Factor* factor = First(field); factor != End(field); ++factor) {
      if (factor->far) tf_compemb::Prefetch<false>(factor->Row(b + ahead_, width), width);
    }
  }

 private:
  std::vector<Factor> factors_;
  std::vector<int64_t> starts_;
  int64_t ahead_;
};

// Calls `work` with the width as a constant where it is a common one, and else with 0.
template <typename Work>
void WithConstant(int64_t width, const Work& work) {
  switch (width) {
    case 8: return work(std::integral_constant<int64_t, 8>());
    case 16: return work(std::integral_constant<int64_t, 16>());
    case 32: return work(std::integral_constant<int64_t, 32>());
    case 64: return work(std::integral_constant<int64_t, 64>());
    default: return work(std::integral_constant<int64_t, 0>());
  }
}

// Loops over a row. Without `omp simd` they are unrolled number by number where the width is known.
inline void Copy(const float* from, int64_t width, float* to) {
#pragma omp simd
  for (int64_t j = 0; j < width; ++j) to[j] = from[j];
}

inline void Add(const float* row, int64_t width, float* to) {
#pragma omp simd
  for (int64_t j = 0; j < width; ++j) to[j] += row[j];
}

// `to` may be one of the factors.
inline void Multiply(const float* x, const float* y, int64_t width, float* to) {
#pragma omp simd
  for (int64_t j = 0; j < width; ++j) to[j] = x[j] * y[j];
}

inline void MultiplyAdd(const float* x, const float* y, int64_t width, float* to) {
#pragma omp simd
  for (int64_t j = 0; j < width; ++j) to[j] += x[j] * y[j];
}

// What all ops of products say of their entries.
#define TF_COMPEMB_PRODUCT_ENTRIES   \
  Attr("N: int >= 1")                \
      .Attr("rows: list(int)")       \
      .Attr("width: int >= 1")       \
      .Attr("num_fields: int >= 1")  \
      .Attr("fields: list(int)")     \
      .Attr("tables_of_entries: list(int)")

#define TF_COMPEMB_PRODUCT_DIGITS  \
  Attr("sizes: list(int)")         \
      .Attr("divisors: list(int)") \
      .Attr("moduli: list(int)")   \
      .Attr("offsets: list(int)")

}  // namespace tf_compemb

#endif  // TF_COMPEMB_PRODUCT_ENTRIES_H_
