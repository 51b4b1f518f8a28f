// Rows out of a trace: chunks are fetched as they lie in the file, then unpacked and turned into
// numbers on all threads.
#include "lib/trace/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"
#include "lib/trace/child.h"
#include "lib/trace/disk.h"
#include "lib/trace/hash.h"
#include "lib/trace/reader_file.h"
#include "lib/trace/step_counts.h"

namespace moe {
namespace {

PlanePiece raw_chunk(const Source& s, Index plane, std::uint64_t chunk_first) {
  const hsize_t at[3] = {chunk_first, hsize_t(plane), 0};
  const hid_t d = s.data.dataset;
  hsize_t size = 0;
  h5::must(H5Dget_chunk_storage_size(d, at, &size),
           fmt::format("find rows {} of {}", chunk_first, s.column.path));
  const std::size_t raw = std::size_t(s.column.chunk) * s.column.row_bytes();
  if (size > raw + raw / 8 + 4096) {
    throw Error(Exit::input, fmt::format("{}: the chunk of row {} has {} bytes where {} are plenty",
                                         s.column.path, chunk_first, size, raw));
  }
  PlanePiece p{&s, plane, 0, 0, 0, size > 0, 0, {}};
  p.bytes.resize(size > 0 ? size : raw);  // a chunk that was never written reads as zeros
  if (size > 0) {
    h5::must(H5Dread_chunk(d, H5P_DEFAULT, at, &p.skipped_filters, p.bytes.data()),
             fmt::format("read rows {} of {}", chunk_first, s.column.path));
  }
  return p;
}

PlanePiece plane_rows(const Source& s, Index plane, std::uint64_t first, std::uint64_t count) {
  PlanePiece p{&s, plane, Index(count), 0, first, false, 0, {}};
  p.bytes.resize(count * s.column.row_bytes());
  const hsize_t start[3] = {first, hsize_t(plane), 0};
  const hsize_t size[3] = {count, 1, hsize_t(s.column.width)};
  const h5::Handle there{H5Dget_space(s.data.dataset), "read " + s.column.path};
  h5::must(H5Sselect_hyperslab(there, H5S_SELECT_SET, start, nullptr, size, nullptr),
           "read " + s.column.path);
  const std::vector<std::uint64_t> dims(size, size + s.column.rank);
  h5::must(H5Dread(s.data.dataset, h5::type_of(s.column.cell), h5::space(dims), there, H5P_DEFAULT,
                   p.bytes.data()),
           fmt::format("read rows {}..{} of {}", first, first + count, s.column.path));
  return p;
}

// Reads everything a caller could ask for, so that what crashes libhdf5 or lies about its ids does
// so here.
std::string survey(const std::filesystem::path& path) {
  const TraceReader::File file(path);
  const std::uint64_t window = count_window(file.header);
  for (std::uint64_t at = 0; at < file.count_steps; at += window)
    file.read_counts(at, std::min(window, file.count_steps - at));
  std::uint64_t bad = 0;
  std::uint64_t first_bad = 0;
  for (std::uint64_t at = 0; at < file.state.tokens; at += commit_rows) {
    const TraceRows rows =
        file.read(at, std::min<std::uint64_t>(commit_rows, file.state.tokens - at), file.fields);
    for (const LayerRows& layer : rows.layer) {
      for (Index t = 0; t < layer.weight.rows(); ++t) {
        if (!rows.valid(std::size_t(t)))
          continue;
        for (Index k = 0; k < layer.weight.cols(); ++k) {
          if (layer.expert(t, k) >= 0 && !std::isfinite(layer.weight(t, k)) && ++bad == 1)
            first_bad = at + std::uint64_t(t);
        }
      }
    }
  }
  return bad ? fmt::format("{} combine weights are not finite, the first in row {}", bad, first_bad)
             : "";
}

}  // namespace

std::vector<PlanePiece> TraceReader::File::collect(const Source& s, std::uint64_t first,
                                                   std::uint64_t count) const {
  std::vector<PlanePiece> out;
  const auto length = std::uint64_t(s.column.chunk);
  for (Index plane = 0; count > 0 && plane < s.planes; ++plane) {
    if (!s.direct) {
      out.push_back(plane_rows(s, plane, first, count));
      continue;
    }
    for (std::uint64_t chunk = first / length * length; chunk < first + count; chunk += length) {
      PlanePiece p = raw_chunk(s, plane, chunk);
      p.first = std::max(first, chunk);
      p.skip = Index(p.first - chunk);
      p.count = Index(std::min(first + count, chunk + length) - p.first);
      out.push_back(std::move(p));
    }
  }
  return out;
}

template <class Sink>
void TraceReader::File::unpack_all(const std::vector<PlanePiece>& pieces, Sink sink) const {
  parallel_for(Index(pieces.size()), 1, [&](Index a, Index b) {
    // kept: a fresh one for each chunk is page faults and zeros
    thread_local std::vector<std::uint8_t> raw;
    for (Index i = a; i < b; ++i) {
      const PlanePiece& p = pieces[std::size_t(i)];
      const TraceColumn& c = p.source->column;
      const std::uint8_t* cells = p.bytes.data();
      const bool stored =
          p.source->data.pipeline.empty() && p.bytes.size() == std::size_t(c.chunk) * c.row_bytes();
      if (p.packed && !stored) {
        raw.resize(std::size_t(c.chunk) * c.row_bytes());
        try {
          unpack(p.bytes, p.source->data.pipeline, p.skipped_filters, h5::bytes_of(c.cell), raw);
        } catch (const Error& e) {
          schema.refuse(
              fmt::format("the chunk of {} that holds row {} of MoE layer {} cannot be read: {}",
                          c.path, p.first, p.plane, e.what()));
        }
        cells = raw.data();
      }
      sink(p, cells + std::size_t(p.skip) * c.row_bytes());
    }
  });
}

void TraceReader::File::check_records(const TraceRows& rows) const {
  for (std::size_t t = 0; t < rows.tokens(); ++t) {
    if (rows.sequence[t] >= sequences.size() || rows.step[t] >= steps.size()) {
      schema.refuse(fmt::format("row {} belongs to sequence {} of {} and step {} of {}",
                                rows.first + t, rows.sequence[t], sequences.size(), rows.step[t],
                                steps.size()));
    }
  }
}

// /routing/logits_token: only some tokens have logits; the others' rows stay NaN.
void TraceReader::File::read_some_logits(const Source& s, TraceRows& out) const {
  const auto from = std::lower_bound(s.tokens.begin(), s.tokens.end(), out.first);
  const auto to = std::lower_bound(from, s.tokens.end(), out.first + out.tokens());
  const auto first = std::uint64_t(from - s.tokens.begin());
  const auto count = std::uint64_t(to - from);
  TraceRows some;
  some.layer.resize(out.layer.size());
  for (Index l = 0; l < s.planes; ++l) {
    prepare(some, Index(count), s.column, l);
    prepare(out, Index(out.tokens()), s.column, l);
  }
  unpack_all(collect(s, first, count), [&](const PlanePiece& p, const std::uint8_t* cells) {
    decode(cells, p.count, s.column, header.layers[std::size_t(p.plane)], p.plane, some,
           Index(p.first - first));
  });
  for (std::size_t l = 0; l < out.layer.size(); ++l) {
    for (std::uint64_t r = 0; r < count; ++r) {
      const auto row = some.layer[l].logits.row(Index(r));
      std::copy(row.begin(), row.end(),
                out.layer[l].logits.row(Index(s.tokens[first + r] - out.first)).begin());
    }
  }
}

bool TraceReader::File::is_read(const Source& s, const TraceFields& wanted) const {
  const Field f = s.column.field;
  return asked(wanted, f) && (f != Field::sequence || has_sequences) &&
         (f != Field::step || has_steps);
}

TraceRows TraceReader::File::read(std::uint64_t first, std::uint64_t count,
                                  const TraceFields& wanted) const {
  if (first > state.tokens || count > state.tokens - first) {
    throw Error(Exit::bug, fmt::format("rows {}..{} of a trace that has {}", first, first + count,
                                       state.tokens));
  }
  TraceRows out;
  out.first = first;
  out.layer.resize(header.layers.size());
  const auto zeros = [&](auto& v) {
    v.assign(count, 0);
  };
  zeros(out.token_id);
  zeros(out.position);
  zeros(out.sequence);
  zeros(out.step);
  zeros(out.flags);
  std::vector<PlanePiece> pieces;
  for (const Source& s : sources) {
    if (!is_read(s, wanted))
      continue;
    if (!s.tokens.empty()) {
      read_some_logits(s, out);
      continue;
    }
    for (Index l = 0; l < s.planes; ++l)
      prepare(out, Index(count), s.column, l);
    auto more = collect(s, first, count);
    std::move(more.begin(), more.end(), std::back_inserter(pieces));
  }
  try {
    unpack_all(pieces, [&](const PlanePiece& p, const std::uint8_t* cells) {
      decode(cells, p.count, p.source->column, header.layers[std::size_t(p.plane)], p.plane, out,
             Index(p.first - first));
    });
  } catch (const Error& e) {
    if (std::string_view(e.what()).starts_with(path.string()))
      throw;
    schema.refuse(e.what());
  }
  check_records(out);
  return out;
}

std::uint64_t TraceReader::File::data_xxh3(std::uint64_t first, std::uint64_t count) const {
  Xxh3 hash;
  for (const Source& s : sources) {
    if (!s.tokens.empty())
      continue;
    const std::size_t row = s.column.row_bytes();
    std::vector<std::vector<std::uint8_t>> planes(std::size_t(s.planes),
                                                  std::vector<std::uint8_t>(count * row));
    unpack_all(collect(s, first, count), [&](const PlanePiece& p, const std::uint8_t* cells) {
      std::copy_n(cells, std::size_t(p.count) * row,
                  planes[std::size_t(p.plane)].begin() + std::ptrdiff_t((p.first - first) * row));
    });
    std::vector<const std::uint8_t*> starts;
    for (const auto& plane : planes)
      starts.push_back(plane.data());
    hash.update(interleave(starts, Index(count), row));
  }
  return hash.value();
}

TraceReader::TraceReader(const std::filesystem::path& path) {
  std::string doubts;
  if (!is_own(path) && std::filesystem::is_regular_file(path))
    doubts = run_apart(path, [&] { return survey(path); });
  file_ = std::make_unique<File>(path);
  for (const std::string& doubt : split(doubts, '\n'))
    file_->warn(doubt);
}
TraceReader::~TraceReader() = default;
TraceReader::TraceReader(TraceReader&&) noexcept = default;

const TraceHeader& TraceReader::header() const {
  return file_->header;
}
const TraceState& TraceReader::state() const {
  return file_->state;
}
const TraceFields& TraceReader::fields() const {
  return file_->fields;
}
const std::vector<TraceSequence>& TraceReader::sequences() const {
  return file_->sequences;
}
const std::vector<TraceStep>& TraceReader::steps() const {
  return file_->steps;
}
std::vector<TraceCommit> TraceReader::commits() const {
  std::vector<TraceCommit> out;
  for (const CommitRow& row : file_->commits)
    out.push_back({row.rows, row.step});
  return out;
}
TraceRows TraceReader::read(std::uint64_t first, std::uint64_t count,
                            const TraceFields& wanted) const {
  return file_->read(first, count, wanted);
}

}  // namespace moe
