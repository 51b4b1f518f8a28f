#include "lib/layer/expert_cache.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>

#include "lib/backend/cpu_loops.h"
#include "lib/backend/host_memory.h"
#include "lib/core/parallel.h"

namespace moe {
namespace {

constexpr std::size_t matrices = 3;  // of an expert's parts, before its biases
// enough rows for all threads; more experts would only take more memory between them
constexpr Index rows_at_once = 4096;
// of f32, read in place at once, while as much is read ahead
constexpr Index bytes_at_once = Index(256) << 20;

template <class S>
std::array<const Parameter<S>*, 6> parts_of(const ExpertParameters<S>& b) {
  return {&b.gate, &b.up, &b.down, &b.gate_bias, &b.up_bias, &b.down_bias};
}

// A plan of the experts at `offset`, whose first row is row 0: a part of the whole one.
template <class S>
Plan plan_of(Backend<S>& backend, const std::vector<Index>& offset, const Plan& whole) {
  Matrix<int> numbers(1, Index(offset.size()));
  for (std::size_t i = 0; i < offset.size(); ++i)
    numbers(0, Index(i)) = int(offset[i]);
  Plan plan;
  plan.offset = Array<int>(backend, std::as_const(numbers).view());
  plan.slots = offset.back();
  if (!whole.host_offset.empty())
    plan.host_offset = offset;
  plan.decoding = whole.decoding;
  return plan;
}

}  // namespace

template <class S>
ExpertCache<S>::ExpertCache(Backend<S>& backend, Index limit_bytes, Index experts)
    : backend_(backend), limit_(limit_bytes), experts_(experts) {}

template <class S>
void ExpertCache<S>::check_shape(const ExpertParameters<S>& bodies) const {
  const auto parts = parts_of(bodies);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i]->empty() && (parts[i]->value().cols != part_[i].cols ||
                               parts[i]->value().rows != part_[i].rows * parts[i]->dims()[0])) {
      throw Error(Exit::bug,
                  "the layers of a model have experts of one shape, and this one has another");
    }
  }
}

namespace {

// Whether matrices are held as bf16.
template <class S>
bool held_as_half(const Backend<S>& backend, std::size_t part) {
  return part < matrices && backend.operand_type() == DType::bf16;
}

}  // namespace

template <class S>
Index ExpertCache<S>::bytes_of(const ExpertParameters<S>& bodies) const {
  const auto parts = parts_of(bodies);
  Index bytes = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Index each = held_as_half(backend_, i) ? sizeof(std::uint16_t) : sizeof(S);
    bytes += parts[i]->empty() ? 0 : parts[i]->size() / parts[i]->dims()[0] * each;
  }
  return std::max<Index>(1, bytes);
}

template <class S>
Index ExpertCache<S>::all_room(const ExpertParameters<S>& bodies) const {
  return std::clamp<Index>(limit_ / bytes_of(bodies), 1, std::max<Index>(1, experts_));
}

template <class S>
void ExpertCache<S>::open(const ExpertParameters<S>& bodies) {
  if (!part_.empty())
    return check_shape(bodies);
  const auto parts = parts_of(bodies);
  const auto half = [&](std::size_t part) {
    return held_as_half(backend_, part);
  };
  const Index room = all_room(bodies);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Index rows = parts[i]->empty() ? 0 : parts[i]->value().rows / parts[i]->dims()[0];
    const Index cols = parts[i]->value().cols;
    part_.push_back({Array<S>(backend_, half(i) ? 0 : room * rows, cols),
                     Array<std::uint16_t>(backend_, half(i) ? room * rows : 0, cols), rows, cols});
  }
  place_.resize(std::size_t(room));
}

template <class S>
void ExpertCache<S>::read_ahead(std::vector<const ExpertParameters<S>*> layers,
                                std::unique_ptr<ReadAhead> ahead) {
  layers_ = std::move(layers);
  ahead_ = std::move(ahead);
}

// Where experts lie that are not in memory, in the order of the file.
template <class S>
std::vector<std::span<const std::byte>> ExpertCache<S>::in_file(
    const ExpertParameters<S>& bodies, std::span<const Index> experts) const {
  std::vector<std::span<const std::byte>> bytes;
  if constexpr (std::is_same_v<S, float>) {
    for (const Parameter<S>* p : parts_of(bodies)) {
      for (const Index e : experts) {
        if (p->empty() || !p->elsewhere() || at_.contains({bodies.up.id(), e}))
          continue;
        const Index rows = p->value().rows / p->dims()[0];
        std::ranges::copy(p->elsewhere()->bytes(e * rows, rows), std::back_inserter(bytes));
      }
    }
  }
  std::ranges::sort(bytes, {}, [](const auto& part) { return part.data(); });
  return bytes;
}

template <class S>
void ExpertCache<S>::ask(const ExpertParameters<S>& bodies, std::span<const Index> experts) {
  if (ahead_)
    ahead_->ask(in_file(bodies, experts));
}

// The first ones of the layer that a pass comes to next, or that the next pass begins with.
template <class S>
void ExpertCache<S>::ask_next_layer(const ExpertParameters<S>& bodies, std::size_t count) {
  const auto at = std::ranges::find(layers_, &bodies);
  if (at == layers_.end())
    return;
  const ExpertParameters<S>& next = *(at + 1 == layers_.end() ? layers_.front() : *(at + 1));
  std::vector<Index> experts(std::min(count, std::size_t(next.up.dims()[0])));
  std::iota(experts.begin(), experts.end(), Index(0));
  ask(next, experts);
}

template <class S>
bool ExpertCache<S>::reads_in_place(const ExpertParameters<S>& bodies, const Plan& plan) const {
  if constexpr (std::is_same_v<S, float>) {
    const bool on_host = dynamic_cast<const HostBackend<S>*>(&backend_) != nullptr;
    const bool half = backend_.operand_type() == DType::bf16;
    const auto can = [&](const RowSource& rows) {
      return plan.decoding ? rows.has_dots() : !half || rows.lies_as_bf16();
    };
    return on_host && all_room(bodies) < experts_ &&
           std::ranges::all_of(parts_of(bodies), [&](const Parameter<S>* p) {
             return p->empty() ||
                    (p->elsewhere() && p->kind() == ParameterKind::matrix && can(*p->elsewhere()));
           });
  }
  return false;
}

template <class S>
auto ExpertCache<S>::groups(const ExpertParameters<S>& bodies, std::span<const Index> used,
                            const Matrix<int>& offset, bool in_place) const
    -> std::vector<std::span<const Index>> {
  const Index most_experts =
      in_place ? std::max<Index>(1, bytes_at_once / bytes_of(bodies)) : room();
  std::vector<std::span<const Index>> out;
  for (std::size_t first = 0, end = 0; first < used.size(); first = end) {
    for (Index rows = 0; end < used.size() && Index(end - first) < most_experts &&
                         (in_place || rows < rows_at_once);
         ++end) {
      rows += offset(0, used[end] + 1) - offset(0, used[end]);
    }
    out.push_back(used.subspan(first, end - first));
  }
  return out;
}

// Rows of each expert lie together in xs.
template <class S>
void ExpertCache<S>::experts(const ExpertParameters<S>& bodies, View<const S> xs, const Plan& plan,
                             View<S> ys) {
  const bool in_place = reads_in_place(bodies, plan);
  if (!in_place)
    open(bodies);
  const Matrix<int> offset = plan.offset.to_host();
  std::vector<Index> used;
  for (Index e = 0; e < plan.experts(); ++e) {
    if (offset(0, e + 1) > offset(0, e))
      used.push_back(e);
  }
  const auto all = groups(bodies, used, offset, in_place);
  if (!all.empty())
    ask(bodies, all.front());
  for (std::size_t g = 0; g < all.size(); ++g) {
    if (g + 1 < all.size())
      ask(bodies, all[g + 1]);
    else if (Index(used.size()) * 2 > plan.experts())  // the next layer's are as likely
      ask_next_layer(bodies, all.front().size());
    if (in_place)
      run_in_place(bodies, xs, plan, offset, all[g], ys);
    else
      run_group(bodies, xs, plan, offset, all[g], ys);
  }
}

template <class S>
void ExpertCache<S>::run_in_place(const ExpertParameters<S>& bodies, View<const S> xs,
                                  const Plan& plan, const Matrix<int>& offset,
                                  std::span<const Index> group, View<S> ys) {
  if constexpr (std::is_same_v<S, float>) {
    const Index first = group.front();
    const Index count = group.back() + 1 - first;
    std::vector<Index> here(std::size_t(count) + 1, 0);
    for (Index e = 0; e <= count; ++e)
      here[std::size_t(e)] = offset(0, first + e) - offset(0, first);
    const auto weight = [&](const Parameter<S>& p) {
      if (p.empty())
        return Weight();
      const Index rows = p.value().rows / p.dims()[0];
      Weight w = p.weight_elsewhere();
      w.first = first * rows;
      w.rows = count * rows;
      return w;
    };
    const ExpertWeights<S> weights{
        bodies.activation, weight(bodies.gate), weight(bodies.up), weight(bodies.down), {}, {}, {}};
    const Index start = offset(0, first);
    ExpertTape<S> tape;
    backend_.experts(weights, xs.slice(start, here.back()), plan_of(backend_, here, plan), tape,
                     ys.slice(start, here.back()));
    // what a few tokens read is read again soon
    if (ahead_ && !plan.decoding)
      ahead_->forget(in_file(bodies, group));
  }
}

// Of the experts brought in together, those whose places rise are one call.
template <class S>
void ExpertCache<S>::run_group(const ExpertParameters<S>& bodies, View<const S> xs,
                               const Plan& plan, const Matrix<int>& offset,
                               std::span<const Index> group, View<S> ys) {
  const std::vector<Index> place = bring(bodies, group);
  for (std::size_t a = 0, b = 1; a < group.size(); a = b++) {
    while (b < group.size() && place[b] > place[b - 1])
      ++b;
    const Index start = offset(0, group[a]);
    const Index count = place[b - 1] - place[a] + 1;
    std::vector<Index> here(std::size_t(count) + 1, 0);  // places between have no rows
    for (std::size_t i = a; i < b; ++i)
      here[std::size_t(place[i] - place[a]) + 1] = offset(0, group[i] + 1) - offset(0, group[i]);
    std::partial_sum(here.begin(), here.end(), here.begin());
    ExpertTape<S> tape;
    backend_.experts(weights(bodies, place[a], count), xs.slice(start, here.back()),
                     plan_of(backend_, here, plan), tape, ys.slice(start, here.back()));
  }
}

// Empties so many places, those that were used longest ago.
template <class S>
std::vector<Index> ExpertCache<S>::make_room(std::size_t count) {
  std::vector<Index> free;
  for (Index i = 0; i < room(); ++i) {
    if (place_[i].used != clock_)
      free.push_back(i);
  }
  std::ranges::stable_sort(free, {}, [&](Index i) { return place_[i].used; });
  std::vector<Index> places(free.begin(), free.begin() + std::ptrdiff_t(count));
  std::ranges::sort(places);  // so that neighbours are computed in one call
  for (const Index i : places) {
    at_.erase(place_[i].key);
    place_[i] = {};
  }
  return places;
}

template <class S>
std::vector<Index> ExpertCache<S>::bring(const ExpertParameters<S>& bodies,
                                         std::span<const Index> experts) {
  ++clock_;
  std::vector<Index> out, missing;
  for (const Index e : experts) {
    const auto at = at_.find({bodies.up.id(), e});
    out.push_back(at == at_.end() ? -1 : at->second);
    if (at == at_.end())
      missing.push_back(e);
    else
      place_[at->second].used = clock_;
  }
  hits_ += std::int64_t(experts.size() - missing.size());
  misses_ += std::int64_t(missing.size());
  if (missing.empty())
    return out;
  const std::vector<Index> places = make_room(missing.size());
  fill(bodies, missing, places);
  if (ahead_)
    ahead_->forget(in_file(bodies, missing));
  for (std::size_t i = 0, next = 0; i < out.size(); ++i) {
    if (out[i] >= 0)
      continue;
    place_[places[next]] = {{bodies.up.id(), experts[i]}, clock_};
    at_[{bodies.up.id(), experts[i]}] = out[i] = places[next++];
  }
  return out;
}

template <class S>
void ExpertCache<S>::fill(const ExpertParameters<S>& bodies, std::span<const Index> experts,
                          std::span<const Index> places) {
  const auto parts = parts_of(bodies);
  parallel_for(Index(parts.size() * experts.size()), 1, [&](Index task, Index) {
    const std::size_t i = std::size_t(task) % parts.size();
    const std::size_t n = std::size_t(task) / parts.size();
    if (!parts[i]->empty())
      fill_part(*parts[i], part_[i], experts[n], places[n]);
  });
}

template <class S>
void ExpertCache<S>::fill_part(const Parameter<S>& from, Part& part, Index expert, Index place) {
  // its arrays can be written where they are
  const bool direct = dynamic_cast<HostBackend<S>*>(&backend_) != nullptr;
  const Index rows = part.rows;
  // a few rows at a time, so that what is read is rounded while it is in the cache
  if (!part.halves.empty()) {
    const View<std::uint16_t> to = part.halves.view().block(place, rows);
    Matrix<S> some(std::clamp<Index>(32768 / std::max<Index>(part.cols, 1), 1, rows), part.cols);
    for (Index r = 0; r < rows; r += some.rows()) {
      const View<S> read = some.view().slice(0, std::min(some.rows(), rows - r));
      from.read(expert * rows + r, read);
      if constexpr (std::is_same_v<S, float>)
        loops::to_half(read.data, to.row(r).data(), read.size());
      else
        throw Error(Exit::bug, "only a backend in f32 multiplies bf16");
    }
    return;
  }
  const View<S> to = part.numbers.view().block(place, rows);
  if (direct)
    return from.read(expert * rows, to);
  Matrix<S> host(to.rows, to.cols);
  from.read(expert * rows, host.view());
  const std::lock_guard one_at_a_time(copying_);
  backend_.to_device(host.data(), to.data, std::size_t(to.size()) * sizeof(S));
}

template <class S>
ExpertWeights<S> ExpertCache<S>::weights(const ExpertParameters<S>& bodies, Index first,
                                         Index count) const {
  const auto rows = [&](std::size_t i) {
    return part_[i].numbers.empty()
               ? View<const S>{}
               : part_[i].numbers.view().slice(first * part_[i].rows, count * part_[i].rows);
  };
  const auto matrix = [&](std::size_t i) {
    const Part& p = part_[i];
    return p.halves.empty() ? Weight(rows(i))
                            : Weight(p.halves.view().block(first, p.rows).data, DType::bf16,
                                     count * p.rows, p.cols);
  };
  return {bodies.activation, matrix(0), matrix(1), matrix(2), rows(3), rows(4), rows(5)};
}

template class ExpertCache<float>;
template class ExpertCache<double>;

}  // namespace moe
