// Rows that the first pass keeps for the second: see sink.h.
#include <algorithm>
#include <cstring>

#include "lib/import/sink.h"

namespace moe {
namespace {

// The smallest of 1, 2 and 4 bytes in which all ids fit, each one more than it is: no expert is 0.
int bytes_for(const std::vector<LayerRows>& layers) {
  int most = 0;
  for (const LayerRows& l : layers) {
    for (const int e : l.expert.view().flat())
      most = std::max(most, e + 1);
  }
  return most <= 0xff ? 1 : most <= 0xffff ? 2 : 4;
}

template <class T>
void put_ids(std::span<const int> ids, std::uint8_t* to) {
  for (const int e : ids) {
    const T one = T(e + 1);
    std::memcpy(to, &one, sizeof one);
    to += sizeof one;
  }
}

template <class T>
void take_ids(const std::uint8_t* from, std::span<int> ids) {
  for (int& e : ids) {
    T one;
    std::memcpy(&one, from, sizeof one);
    e = int(one) - 1;
    from += sizeof one;
  }
}

}  // namespace

ImportSink::SaidRows::SaidRows(ImportBlock&& b)
    : rest(std::move(b)), id_bytes(bytes_for(rest.rows.layer)) {
  std::size_t all = 0;
  for (const LayerRows& l : rest.rows.layer)
    all += std::size_t(l.expert.size());
  ids.resize(all * std::size_t(id_bytes));
  std::uint8_t* to = ids.data();
  for (LayerRows& l : rest.rows.layer) {
    const std::span<const int> from = l.expert.view().flat();
    if (id_bytes == 1)
      put_ids<std::uint8_t>(from, to);
    else if (id_bytes == 2)
      put_ids<std::uint16_t>(from, to);
    else
      put_ids<std::uint32_t>(from, to);
    to += from.size() * std::size_t(id_bytes);
    shapes.emplace_back(l.expert.rows(), l.expert.cols());
    l.expert = {};
  }
}

ImportBlock ImportSink::SaidRows::block() && {
  const std::uint8_t* from = ids.data();
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    Matrix<int> expert(shapes[i].first, shapes[i].second);
    const std::span<int> to = expert.view().flat();
    if (id_bytes == 1)
      take_ids<std::uint8_t>(from, to);
    else if (id_bytes == 2)
      take_ids<std::uint16_t>(from, to);
    else
      take_ids<std::uint32_t>(from, to);
    from += to.size() * std::size_t(id_bytes);
    rest.rows.layer[i].expert = std::move(expert);
  }
  ids = {};
  return std::move(rest);
}

std::size_t ImportSink::SaidRows::bytes() const {
  const TraceRows& r = rest.rows;
  std::size_t bytes = sizeof(*this) + rest.where.size() + rest.layers.size() * sizeof(int);
  bytes += shapes.size() * sizeof(shapes[0]) + ids.size();
  bytes += (r.token_id.size() + r.position.size() + r.predicted_id.size()) * 4;
  bytes += r.rank.size() * 2 + r.flags.size() + r.modality.size();
  for (const LayerRows& l : r.layer) {
    bytes += sizeof(l);
    bytes += std::size_t(l.weight.size() + l.logits.size()) * 4;
    bytes += std::size_t(l.dropped.size());
  }
  return bytes;
}

}  // namespace moe
