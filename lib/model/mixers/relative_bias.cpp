#include "lib/model/mixers/relative_bias.h"

#include <algorithm>
#include <cmath>

#include "lib/backend/backend.h"
#include "lib/model/config.h"

namespace moe {

// Distances below half of a side's buckets have one each, the others share logarithmically. In
// float, as the class: a distance at a border falls where it falls there.
int bucket_of(const BucketRule& rule, Index apart) {
  int side = rule.buckets;
  int first = 0;
  Index far = std::max<Index>(0, -apart);
  if (rule.both_sides) {
    side /= 2;
    first = apart > 0 ? side : 0;
    far = std::abs(apart);
  }
  const int exact = side / 2;
  if (far < exact)
    return first + int(far);
  const float along = std::log(float(far) / float(exact)) /
                      float(std::log(double(rule.distance) / exact)) * float(side - exact);
  return first + std::min(exact + int(along), side - 1);
}

template <class S>
RelativeBias<S>::RelativeBias(const ModelConfig& c, Backend<S>& b, const std::string& stack,
                              const BucketRule& rule)
    : backend_(b),
      rule_(rule),
      start_(matrix_start(c, MatrixRole::other, c.hidden)),
      table_(b, "relative_bias." + stack, {rule.buckets, c.heads}, ParameterKind::vector) {}

template <class S>
Array<S> RelativeBias<S>::by_distance(Index reach) const {
  const Matrix<S> table = table_.to_host();
  Matrix<S> out(table.cols(), 2 * reach - 1);
  for (Index d = 1 - reach; d < reach; ++d) {
    const int bucket = bucket_of(rule_, d);
    for (Index h = 0; h < table.cols(); ++h)
      out(h, reach - 1 + d) = table(bucket, h);
  }
  return Array<S>(backend_, std::as_const(out).view());
}

template <class S>
void RelativeBias<S>::backward(const Array<S>& dbias) {
  const Matrix<S> by = dbias.to_host();
  const Index reach = (by.cols() + 1) / 2;
  Matrix<S> sum(table_.value().rows, table_.value().cols);
  for (Index d = 1 - reach; d < reach; ++d) {
    const int bucket = bucket_of(rule_, d);
    for (Index h = 0; h < sum.cols(); ++h)
      sum(bucket, h) += by(h, reach - 1 + d);
  }
  const Array<S> part(backend_, std::as_const(sum).view());
  backend_.add(part.view(), table_.grad(), 1);
}

template <class S>
void RelativeBias<S>::collect(std::vector<ModelParameter<S>>& all) {
  const std::string stack = table_.name().substr(table_.name().find('.') + 1);
  all.push_back({.parameter = &table_,
                 .start = start_,
                 .published = stack + ".relative_attention_bias.weight"});
}

template class RelativeBias<float>;
template class RelativeBias<double>;

}  // namespace moe
