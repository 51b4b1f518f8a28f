// From token ids to rows, and from logits to the loss.
#pragma once
#include "lib/backend/machine.h"
#include "lib/backend/weight.h"

namespace moe {

template <class S>
class TokenOps : public virtual Machine<S> {
 public:
  // y_t = table[id_t]
  virtual void embed(const Weight& table /*(V,H)*/, View<const int> id /*(1,T)*/, View<S> y);
  // dtable[id] += dy, in order of t
  virtual void embed_backward(View<const S> dy, View<const int> id, View<S> dtable);
  // loss_t = -log softmax(z_t)[target], 0 where target is -1; with `backward` z becomes the
  // gradient of the loss, times `scale`
  virtual void cross_entropy(View<S> z /*(T,V)*/, View<const int> target /*(1,T)*/,
                             View<S> loss /*(1,T)*/, S scale, bool backward);
};

extern template class TokenOps<float>;
extern template class TokenOps<double>;

}  // namespace moe
