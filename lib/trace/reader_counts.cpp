// /counts/per_step out of a trace, some steps at a time.
#include <fmt/format.h>

#include "lib/core/error.h"
#include "lib/trace/reader_file.h"

namespace moe {

// A writer that was stopped has counts of steps that it did not begin.
void TraceReader::File::open_counts() {
  counts = schema.find("/counts/per_step", {h5::Cell::u32}, 3);
  if (!counts)
    return;
  const auto& d = counts->dims;
  if (d[1] != header.layers.size() || d[2] != std::uint64_t(header.max_experts())) {
    schema.refuse(
        fmt::format("/counts/per_step has shape [{}]; the model has {} MoE layers, {} experts",
                    fmt::join(d, ","), header.layers.size(), header.max_experts()));
  }
  count_steps = d[0];
  if (!has_steps) {
    for (std::uint64_t i = 0; i < count_steps && state.tokens == 0; ++i)
      steps.push_back({std::int64_t(i), 0, 0, Phase::eval});
  } else if (steps.size() != count_steps) {
    warn(fmt::format("there are counts of {} steps and /steps has {}: the smaller number is used",
                     count_steps, steps.size()));
    count_steps = std::min<std::uint64_t>(count_steps, steps.size());
  }
}

void TraceReader::File::check_counts(std::uint64_t first,
                                     const Matrix<std::uint32_t>& cells) const {
  const Index width = header.max_experts();
  for (Index s = 0; s < cells.rows(); ++s) {
    for (std::size_t l = 0; l < header.layers.size(); ++l) {
      const std::uint32_t* layer = cells.row(s).data() + Index(l) * width;
      for (Index e = header.layers[l].experts; e < width; ++e) {
        if (layer[e] == 0)
          continue;
        schema.refuse(
            fmt::format("step {} counts {} tokens for expert {} of MoE layer {}, which has {}",
                        first + std::uint64_t(s), layer[e], e, l, header.layers[l].experts));
      }
    }
  }
}

Matrix<std::uint32_t> TraceReader::File::read_counts(std::uint64_t first,
                                                     std::uint64_t count) const {
  if (first > count_steps || count > count_steps - first) {
    throw Error(Exit::bug, fmt::format("counts of steps {}..{} of a trace that has {}", first,
                                       first + count, count_steps));
  }
  if (count == 0)
    return {};
  const hsize_t width = hsize_t(header.max_experts());
  const hsize_t layers = header.layers.size();
  Matrix<std::uint32_t> out(Index(count), Index(layers * width));
  const hsize_t start[3] = {first, 0, 0};
  const hsize_t size[3] = {count, layers, width};
  const std::string doing =
      fmt::format("read steps {}..{} of {}", first, first + count, counts->path);
  const h5::Handle there{H5Dget_space(counts->dataset), doing};
  h5::must(H5Sselect_hyperslab(there, H5S_SELECT_SET, start, nullptr, size, nullptr), doing);
  h5::must(H5Dread(counts->dataset, h5::type_of(h5::Cell::u32), h5::space({count, layers, width}),
                   there, H5P_DEFAULT, out.data()),
           doing);
  check_counts(first, out);
  return out;
}

std::uint64_t TraceReader::count_steps() const {
  return file_->count_steps;
}
Matrix<std::uint32_t> TraceReader::counts(std::uint64_t first, std::uint64_t count) const {
  return file_->read_counts(first, count);
}

}  // namespace moe
