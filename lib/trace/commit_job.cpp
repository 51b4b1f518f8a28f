#include "lib/trace/commit_job.h"

#include "lib/files/file.h"
#include "lib/trace/filter.h"
#include "lib/trace/hash.h"

namespace moe {

void CommitJob::add(Plane p) {
  const TraceColumn& c = columns_[p.column];
  const std::size_t bytes = std::size_t(c.chunk) * c.row_bytes();
  for (std::size_t at = 0; at < p.raw.size(); at += bytes)
    chunks.push_back({planes.size(), at, p.row + at / c.row_bytes(), {}});
  planes.push_back(std::move(p));
}

void CommitJob::work() noexcept {
  for (std::size_t item; (item = begun_.fetch_add(1)) <= chunks.size();) {
    try {
      pack_one(item);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    }
    finished_.fetch_add(1);
    finished_.notify_all();
  }
}

void CommitJob::wait() const {
  for (std::size_t n; (n = finished_.load()) <= chunks.size();)
    finished_.wait(n);
  if (failure_)
    std::rethrow_exception(failure_);
}

void CommitJob::pack_one(std::size_t item) {
  if (item == chunks.size()) {
    data_xxh3 = hash();
    return;
  }
  Chunk& k = chunks[item];
  pack_chunk(k);
  k.xxh3 = hash_bytes(std::as_bytes(std::span(k.packed)));
}

void CommitJob::pack_chunk(Chunk& k) const {
  const Plane& p = planes[k.plane];
  const TraceColumn& c = columns_[p.column];
  const std::span<const std::uint8_t> raw{p.raw.data() + k.at,
                                          std::size_t(c.chunk) * c.row_bytes()};
  if (deflate_ == 0) {
    k.packed.assign(raw.begin(), raw.end());
    return;
  }
  const std::size_t element = h5::bytes_of(c.cell);
  k.packed = pack(raw, element, false, deflate_);
  if (k.at == 0 && k.packed.size() == p.last_packed)
    k.packed = pack(raw, element, true, deflate_);
}

std::uint64_t CommitJob::hash() const {
  Xxh3 data;
  for (std::size_t i = 0, j = 0; i < columns_.size(); ++i) {
    const TraceColumn& c = columns_[i];
    std::vector<const std::uint8_t*> from;
    for (; j < planes.size() && planes[j].column == i; ++j)
      from.push_back(planes[j].raw.data() + (first - planes[j].row) * c.row_bytes());
    data.update(interleave(from, Index(rows - first), c.row_bytes()));
  }
  return data.value();
}

}  // namespace moe
