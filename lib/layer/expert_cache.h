// Experts whose numbers lie elsewhere (a mapped file), brought into memory when rows need them: as
// many as a limit of bytes holds, those used longest ago go first. Matrices are held in the type
// that the backend multiplies, which halves them in bf16. One buffer serves all layers of a model,
// whose experts have one shape. What comes out is what Backend::experts gives for all of them at
// once, bit for bit where a backend computes every expert's rows for themselves.
#pragma once
#include <map>
#include <mutex>
#include <span>
#include <utility>

#include "lib/layer/feed_forward.h"

namespace moe {

template <class S>
class ExpertCache {
 public:
  // At least one expert is held, at most `experts` (of all layers). Memory is taken when the first
  // is asked for.
  ExpertCache(Backend<S>&, Index limit_bytes, Index experts);

  // The bodies of all slots, xs (S,H) -> ys (S,H), as Backend::experts; nothing is left for a
  // backward pass.
  void experts(const ExpertParameters<S>&, View<const S> xs, const Plan&, View<S> ys);

  // experts held at most; 0 before the first was asked for
  Index room() const {
    return Index(place_.size());
  }
  std::int64_t hits() const {
    return hits_;
  }
  std::int64_t misses() const {
    return misses_;
  }

 private:
  using Key = std::pair<std::uint64_t, Index>;  // a layer's parameter, an expert
  struct Place {
    Key key{0, -1};
    std::uint64_t used = 0;  // when, by clock_
  };
  struct Part {  // of an expert's numbers: rows of one parameter
    Array<S> numbers;
    Array<std::uint16_t> halves;  // instead, of a matrix that the backend multiplies as bf16
    Index rows = 0, cols = 0;     // an expert's
  };

  void open(const ExpertParameters<S>&);
  void check_shape(const ExpertParameters<S>&) const;
  std::vector<Index> make_room(std::size_t count);
  std::vector<Index> bring(const ExpertParameters<S>&,
                           std::span<const Index> experts);  // the place of each
  void run_group(const ExpertParameters<S>&, View<const S> xs, const Plan&,
                 const Matrix<int>& offset /*(1,E+1)*/, std::span<const Index> group, View<S> ys);
  void fill(const ExpertParameters<S>&, std::span<const Index> experts,
            std::span<const Index> places);
  void fill_part(const Parameter<S>&, Part&, Index expert, Index place);
  ExpertWeights<S> weights(const ExpertParameters<S>&, Index first, Index count) const;

  Backend<S>& backend_;
  std::mutex copying_;
  Index limit_, experts_;
  std::vector<Part> part_;  // gate, up, down, gate_bias, up_bias, down_bias
  std::vector<Place> place_;
  std::map<Key, Index> at_;
  std::uint64_t clock_ = 0;
  std::int64_t hits_ = 0, misses_ = 0;
};

extern template class ExpertCache<float>;
extern template class ExpertCache<double>;

}  // namespace moe
