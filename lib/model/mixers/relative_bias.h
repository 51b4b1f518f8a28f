// T5's relative position bias (1910.10683, section 2.1): a number for each head and bucket of
// distances, learned once for all layers of a stack.
#pragma once
#include <functional>
#include <vector>

#include "lib/layer/parameter.h"
#include "lib/model/mixer_type.h"

namespace moe {

struct BucketRule {
  int buckets = 32, distance = 128;  // from `distance` on all share the last bucket
  bool both_sides = false;           // half of the buckets for keys behind the query
};
// Of a key `apart` positions behind the query (negative: before it), as the class computes it.
int bucket_of(const BucketRule&, Index apart);

template <class S>
class RelativeBias final : public SharedPart<S> {
 public:
  // `stack`: "encoder" or "decoder"
  RelativeBias(const ModelConfig&, Backend<S>&, const std::string& stack, const BucketRule&);

  const BucketRule& rule() const {
    return rule_;
  }
  // (heads, 2 reach - 1): column reach-1+d for distance d
  Array<S> by_distance(Index reach) const;
  // Adds what arrives at by_distance() to the table's gradient.
  void backward(const Array<S>& dbias);
  bool wants_grad() {
    return !table_.grad().empty();
  }
  void collect(std::vector<ModelParameter<S>>& all) override;

 private:
  Backend<S>& backend_;
  BucketRule rule_;
  Start start_;
  Parameter<S> table_;  // (buckets, heads)
};

extern template class RelativeBias<float>;
extern template class RelativeBias<double>;

}  // namespace moe
