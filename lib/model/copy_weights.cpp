#include "lib/model/copy_weights.h"

#include <algorithm>
#include <map>

#include "lib/core/error.h"
#include "lib/core/tensor.h"

namespace moe {

void copy_parameter(const Parameter<float>& from, Parameter<float>& to) {
  if (from.dims() != to.dims()) {
    throw Error(Exit::usage, concat(to.name(), " is ", text_of(from.dims()), " there and ",
                                    text_of(to.dims()), " here"))
        .hint("the sizes of both models must agree");
  }
  if (from.made_when_read())
    return to.come_from(from.source());
  const Matrix<float> host = from.to_host();
  if (to.stored())
    to.set(host.view());
  else
    to.hold(host.view());
}

namespace {

// What both routers and balancers hold besides parameters.
void copy_state(MoeLayer<float>& from, MoeLayer<float>& to) {
  for (const auto& [name, numbers] : to.state()) {
    for (const auto& [old_name, old] : from.state()) {
      if (name == old_name && old.size() == numbers.size())
        std::ranges::copy(old, numbers.begin());
    }
  }
}

}  // namespace

void copy_weights(Decoder<float>& from, Decoder<float>& to) {
  std::map<std::string, Parameter<float>*> by_name;
  for (auto* p : from.parameters())
    by_name[p->name()] = p;
  for (auto* p : to.parameters()) {
    const auto at = by_name.find(p->name());
    if (at == by_name.end()) {
      throw Error(Exit::usage, concat("the other model has no ", p->name()))
          .hint("the structures of both models must agree");
    }
    copy_parameter(*at->second, *p);
  }
  const auto sources = from.moe_layers();
  const auto targets = to.moe_layers();
  for (std::size_t l = 0; l < std::min(sources.size(), targets.size()); ++l)
    copy_state(*sources[l], *targets[l]);
}

}  // namespace moe
