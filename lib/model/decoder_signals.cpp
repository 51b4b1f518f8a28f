// What a decoder reads besides text: rows of numbers, of which a projector for each kind makes
// vectors (linear patches: Dosovitskiy 2020, equation 1). The row's id is that of its place, so
// that the embedding adds the learned position; the projector adds what is seen or heard there.
#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/profile.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"

namespace moe {
namespace {

const std::string& name_of(std::uint8_t modality) {
  return modality_names().at(modality);
}

// Signals that a model has no matrix for, or that do not fit the batch.
void check_signals(const Batch& batch, const SignalShapes& shapes) {
  for (const Signal& s : batch.signal) {
    const SignalShape* shape = find_signal(shapes, s.modality);
    if (!shape || shape->numbers != s.value.cols()) {
      throw Error(Exit::input, concat("rows of ", s.value.cols(), " numbers of the kind ",
                                      name_of(s.modality), " were given to a model that reads ",
                                      shapes.empty() ? "text alone" : signal_text(shapes)))
          .hint("a model that was trained on such data, with its sizes");
    }
    const bool inside = std::ranges::all_of(
        s.row, [&](Index t) { return t >= 0 && t < batch.tokens() && batch.is_valid(t); });
    if (Index(s.row.size()) != s.value.rows() || !inside) {
      throw Error(Exit::bug,
                  concat(s.value.rows(), " rows of the kind ", name_of(s.modality),
                         " do not stand at ", s.row.size(), " valid rows of ", batch.tokens()));
    }
  }
}

}  // namespace

template <class S>
void Decoder<S>::add_signals(const Batch& batch, View<S> x, Tape& tape) {
  tape.signal.clear();
  if (batch.signal.empty())
    return;
  const SignalShapes& shapes = config_->signal;
  check_signals(batch, shapes);
  tape.signal.resize(shapes.size());
  for (const Signal& s : batch.signal) {
    const std::size_t kind = std::size_t(find_signal(shapes, s.modality) - shapes.data());
    projector_[kind].forward(s, x, tape.signal[kind]);
  }
}

template <class S>
void Decoder<S>::signals_backward(View<const S> dx, Tape& tape) {
  const TimeSpan time(TimePart::output, "signals backward");
  for (std::size_t kind = 0; kind < tape.signal.size(); ++kind)
    projector_[kind].backward(dx, tape.signal[kind]);
}

// decoder.h leaves what it declares to decoder.cpp, so each of these is asked for by itself.
#define INSTANTIATE(S)                                                 \
  template void Decoder<S>::add_signals(const Batch&, View<S>, Tape&); \
  template void Decoder<S>::signals_backward(View<const S>, Tape&);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
