// What a batch brings from outside of the decoder: rows in the place of embeddings, rows that are
// added behind layers (deepstack), positions in time, height and width. Encoders of pictures and
// sounds make them, or another engine.
#include <algorithm>

#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/rope_axes.h"

namespace moe {
namespace {

// Calls visit(place among the rows, row of the batch, how many) for rows that follow each other.
template <class Visit>
void for_runs(const std::vector<Index>& row, const Visit& visit) {
  for (std::size_t i = 0, n = 0; i < row.size(); i += n) {
    for (n = 1; i + n < row.size() && row[i + n] == row[i] + Index(n);)
      ++n;
    visit(Index(i), row[i], Index(n));
  }
}

template <class S>
Array<S> on_device(Backend<S>& backend, const Matrix<float>& value) {
  Matrix<S> wide(value.rows(), value.cols());
  std::ranges::copy(value.flat(), wide.data());
  return Array<S>(backend, std::as_const(wide).view());
}

void check_values(const RowValues& v, const Batch& batch, Index hidden) {
  if (v.empty())
    return;
  if (v.value.cols() != hidden) {
    throw Error(Exit::input, concat("rows of ", v.value.cols(),
                                    " numbers were given to a model of hidden size ", hidden))
        .hint("rows that were made for this model");
  }
  bool fits = Index(v.row.size()) == v.value.rows();
  for (std::size_t i = 0; fits && i < v.row.size(); ++i)
    fits = v.row[i] > (i > 0 ? v.row[i - 1] : -1) && v.row[i] < batch.tokens();
  if (!fits) {
    throw Error(Exit::bug, concat(v.value.rows(), " given rows do not stand at ", v.row.size(),
                                  " rows, ascending, of ", batch.tokens()));
  }
}

void check_ids(const Batch& batch, int vocabulary) {
  const auto word = [&](int id, const char* what, bool ok) {
    if (!ok) {
      throw Error(Exit::input, concat(what, " ", id, " is outside the vocabulary of ", vocabulary))
          .hint("use the tokenizer the model was trained with");
    }
  };
  const auto given = [&](Index t) {
    return std::ranges::binary_search(batch.given.row, t);
  };
  for (Index t = 0; t < batch.tokens(); ++t) {
    const int id = batch.token[std::size_t(t)];
    word(id, "token", (id >= 0 && id < vocabulary) || (id == -1 && given(t)));
  }
  for (const int id : batch.target)
    word(id, "target", id >= -1 && id < vocabulary);
}

// What follows each sequence on all axes: a picture counts by its height and width, and its last
// row has the largest of both.
std::vector<int> positions_behind(const Batch& batch, std::vector<int> next) {
  for (std::size_t q = 0; q + 1 < batch.start.size(); ++q) {
    Index last = batch.start[q + 1] - 1;
    while (last >= batch.start[q] && !batch.is_valid(last))
      --last;
    if (last >= batch.start[q])
      next[q] = std::max(batch.position(1, last), batch.position(2, last)) + 1;
  }
  return next;
}

}  // namespace

template <class S>
void Decoder<S>::check_batch(const Batch& batch) const {
  check_values(batch.given, batch, config_->hidden);
  check_ids(batch, config_->vocabulary);
  for (std::size_t q = 0; q + 1 < batch.start.size(); ++q) {
    for (Index t = batch.start[q] + 1; t < batch.start[q + 1]; ++t) {
      if (batch.is_valid(t) && !batch.is_valid(t - 1))
        throw Error(Exit::bug, concat("row ", t, " follows padding inside sequence ", q));
    }
  }
  for (const RowValues& added : batch.added)
    check_values(added, batch, config_->hidden);
  const int layers = config_->layers - config_->encoder_layers;
  if (int(batch.added.size()) > layers) {
    throw Error(Exit::input, concat("rows are to be added behind layer ", batch.added.size() - 1,
                                    " and the model has ", layers));
  }
  if (!batch.added.empty() && config_->streams > 0) {
    throw Error(Exit::input, "rows are to be added behind layers of a model with several streams")
        .hint("a model with one residual stream");
  }
}

// Ids and targets, and no losses yet.
template <class S>
void Decoder<S>::take_ids(const Batch& batch, Tape& tape) {
  const Index tokens = batch.tokens();
  Matrix<int> target(1, tokens, -1);
  tape.targets = 0;
  for (Index t = 0; t < Index(batch.target.size()); ++t) {
    if (batch.is_valid(t) && batch.target[std::size_t(t)] >= 0) {
      target(0, t) = batch.target[std::size_t(t)];
      ++tape.targets;
    }
  }
  Matrix<int> token(1, tokens);  // of a row that is given and has no id: any
  for (Index t = 0; t < tokens; ++t)
    token(0, t) = std::max(0, batch.token[std::size_t(t)]);
  tape.token = Array<int>(backend_, std::as_const(token).view());
  tape.target = Array<int>(backend_, std::as_const(target).view());
  tape.token_loss = Matrix<S>(1, tokens);
  tape.predicted = {};
  tape.loss = 0;
}

template <class S>
void Decoder<S>::check_positions(const Batch& batch, const DecoderState* state) const {
  if (batch.position.empty())
    return;
  if (batch.position.rows() != 3 || batch.position.cols() != batch.tokens() ||
      std::ranges::min(batch.position.flat()) < 0) {
    throw Error(Exit::bug, concat(batch.position.rows(), " x ", batch.position.cols(),
                                  " positions for ", batch.tokens(), " rows"));
  }
  if (!config_->rope_axes.empty())
    return;
  const Matrix<int> place =
      positions(batch, state ? std::span<const Index>(state->start) : std::span<const Index>{});
  for (Index a = 0; a < 3; ++a) {
    if (!std::ranges::equal(batch.position.row(a), place.row(0))) {
      throw Error(Exit::input,
                  "rows come with positions in time, height and width, and the model turns by the "
                  "place of a row alone")
          .hint("a model with rope_axes=, or positions that count the rows");
    }
  }
}

template <class S>
void Decoder<S>::put_given(const Batch& batch, View<S> x) {
  if (batch.given.empty())
    return;
  const Array<S> value = on_device<S>(backend_, batch.given.value);
  for_runs(batch.given.row, [&](Index from, Index row, Index n) {
    const View<S> here = x.slice(row, n);
    backend_.add(here, here, S(-1));
    backend_.add(value.view().slice(from, n), here, 1);
  });
}
template <class S>
void Decoder<S>::forget_given(const Batch& batch, View<S> dx) {
  for_runs(batch.given.row, [&](Index, Index row, Index n) {
    const View<S> here = dx.slice(row, n);
    backend_.add(here, here, S(-1));
  });
}

template <class S>
void Decoder<S>::add_behind(const Batch& batch, int layer, View<S> x) {
  if (std::size_t(layer) >= batch.added.size() || batch.added[std::size_t(layer)].empty())
    return;
  const RowValues& added = batch.added[std::size_t(layer)];
  const Array<S> value = on_device<S>(backend_, added.value);
  for_runs(added.row, [&](Index from, Index row, Index n) {
    backend_.add(value.view().slice(from, n), x.slice(row, n), 1);
  });
}

template <class S>
std::optional<Batch> Decoder<S>::going_on(const Batch& batch, const DecoderState& state) const {
  if (state.next.empty() || !batch.position.empty() || config_->rope_axes.empty())
    return std::nullopt;
  Batch out = batch;
  out.position = Matrix<int>(3, batch.tokens());
  for (std::size_t q = 0; q + 1 < batch.start.size(); ++q) {
    for (Index t = batch.start[q]; t < batch.start[q + 1]; ++t) {
      for (Index a = 0; a < 3; ++a)
        out.position(a, t) = state.next[q] + int(t - batch.start[q]);
    }
  }
  return out;
}

template <class S>
void Decoder<S>::remember_positions(const Batch& batch, DecoderState& state) const {
  if (batch.position.empty() || config_->rope_axes.empty())
    return;
  std::vector<int> next = state.next;
  for (std::size_t q = next.size(); q + 1 < state.start.size(); ++q)
    next.push_back(int(state.start[q + 1] - state.start[q]));
  state.next = positions_behind(batch, std::move(next));
}

// decoder.h leaves what it declares to decoder.cpp, so each of these is asked for by itself.
#define INSTANTIATE(S)                                                                         \
  template void Decoder<S>::check_batch(const Batch&) const;                                   \
  template void Decoder<S>::take_ids(const Batch&, Tape&);                                     \
  template void Decoder<S>::check_positions(const Batch&, const DecoderState*) const;          \
  template void Decoder<S>::put_given(const Batch&, View<S>);                                  \
  template void Decoder<S>::forget_given(const Batch&, View<S>);                               \
  template void Decoder<S>::add_behind(const Batch&, int, View<S>);                            \
  template std::optional<Batch> Decoder<S>::going_on(const Batch&, const DecoderState&) const; \
  template void Decoder<S>::remember_positions(const Batch&, DecoderState&) const;
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
