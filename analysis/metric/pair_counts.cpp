// With few experts to a choice it is quicker to add whole rows than single cells: what a token
// chose stands as a row of 0 and 1 in bytes, 64 in a register, and is added to the row of each
// expert that it goes with. Bytes hold the sums of 255 tokens.
#include "analysis/metric/pair_counts.h"

#include "lib/core/clones.h"

namespace moe {
namespace {

constexpr Index width = 64, most_tokens = 255, most_cells = 65536;

struct alignas(width) Block {
  std::uint8_t x[width];
};

struct Scratch {            // of one thread
  std::vector<Block> rows;  // (tokens of a batch, E' in blocks)
  std::vector<Block> sums;  // (E, E' in blocks)
};

Index blocks(Index experts) {
  return (experts + width - 1) / width;
}

bool rows_pay(const LayerChoices& from, const LayerChoices& to, const Counts& out) {
  return from.width >= 3 && to.width >= 3 && 2 * blocks(out.cols()) <= Index(to.width) &&
         out.rows() * blocks(out.cols()) * width <= most_cells;
}

// How often each token chose each expert; false where one chose an expert twice.
MOE_SIMD bool spread(const LayerChoices& c, const Index* token, Index n, Index blocks,
                     Block* rows) {
  Block any = {};
  std::uint8_t most = 0;
  std::fill_n(rows, n * blocks, Block{});
  for (Index i = 0; i < n; ++i) {
    std::uint8_t* row = rows[i * blocks].x;
    for (const int e : c.of(token[i]))
      ++row[e];
  }
  for (Index b = 0; b < n * blocks; ++b) {
    for (Index x = 0; x < width; ++x)
      any.x[x] |= rows[b].x[x];
  }
  for (const std::uint8_t a : any.x)
    most |= a;
  return most < 2;
}

MOE_INLINE void add_rows(const LayerChoices& from, const Index* token, Index n, Index blocks,
                         const Block* __restrict rows, Block* __restrict sums) {
  for (Index i = 0; i < n; ++i) {
    for (const int e : from.of(token[i])) {
      for (Index b = 0; b < blocks; ++b) {
        for (Index x = 0; x < width; ++x) {
          sums[e * blocks + b].x[x] =
              std::uint8_t(sums[e * blocks + b].x[x] + rows[i * blocks + b].x[x]);
        }
      }
    }
  }
}
MOE_SIMD void add_one_block(const LayerChoices& from, const Index* token, Index n,
                            const Block* rows, Block* sums) {
  add_rows(from, token, n, 1, rows, sums);
}
MOE_SIMD void add_blocks(const LayerChoices& from, const Index* token, Index n, Index blocks,
                         const Block* rows, Block* sums) {
  add_rows(from, token, n, blocks, rows, sums);
}

MOE_SIMD std::uint64_t sum_of(const Block* sums, Index n) {
  std::uint64_t all = 0;
  for (Index b = 0; b < n; ++b) {
    std::uint32_t one = 0;
    for (Index x = 0; x < width; ++x)
      one += sums[b].x[x];
    all += one;
  }
  return all;
}

MOE_SIMD void add_up(std::uint32_t* __restrict cells, Index rows, Index cols,
                     const Block* __restrict sums, Index blocks) {
  for (Index i = 0; i < rows; ++i) {
    const std::uint8_t* from = sums[i * blocks].x;
    for (Index j = 0; j < cols; ++j)
      cells[i * cols + j] += from[j];
  }
}

template <class Cell>
void count_cells(const LayerChoices& from, const LayerChoices& to, std::span<const Index> tokens,
                 Cell* cells, Index cols) {
  for (const Index t : tokens) {
    for (const int i : from.of(t)) {
      for (const int j : to.of(t))
        ++cells[i * cols + j];
    }
  }
}

template <class Cell>
void count_own_cells(const LayerChoices& c, std::span<const Index> tokens, Cell* cells,
                     Index cols) {
  for (const Index t : tokens) {
    const auto chosen = c.of(t);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      for (std::size_t j = i; j < chosen.size(); ++j)
        ++cells[chosen[i] * cols + chosen[j]];
    }
  }
}

// By rows, batch by batch. What a byte could not hold is missing from the sum of all (where tokens
// choose one expert many times); that batch goes to `others`, and with `once` each in which a token
// chose an expert twice.
template <class Others>
void count_rows(const LayerChoices& from, const LayerChoices& to, std::span<const Index> tokens,
                std::uint32_t* cells, Index rows, Index cols, bool once, Others others) {
  thread_local Scratch s;
  const Index across = blocks(cols);
  s.rows.resize(std::size_t(most_tokens * across));
  while (!tokens.empty()) {
    const auto batch = tokens.first(std::min(tokens.size(), std::size_t(most_tokens)));
    const Index n = Index(batch.size());
    tokens = tokens.subspan(batch.size());
    std::uint64_t pairs = 0;
    for (const Index t : batch)
      pairs += from.of(t).size() * to.of(t).size();
    const bool distinct = spread(to, batch.data(), n, across, s.rows.data());
    s.sums.assign(std::size_t(rows * across), {});
    across == 1 ? add_one_block(from, batch.data(), n, s.rows.data(), s.sums.data())
                : add_blocks(from, batch.data(), n, across, s.rows.data(), s.sums.data());
    if ((once && !distinct) || sum_of(s.sums.data(), rows * across) != pairs)
      others(batch);
    else
      add_up(cells, rows, cols, s.sums.data(), across);
  }
}

}  // namespace

void count_pairs(const LayerChoices& from, const LayerChoices& to, std::span<const Index> tokens,
                 Counts& out) {
  in_small_cells(
      out, tokens.size() * std::size_t(from.width) * std::size_t(to.width), [&](auto* cells) {
        const auto one_by_one = [&](std::span<const Index> some) {
          count_cells(from, to, some, cells, out.cols());
        };
        if constexpr (sizeof *cells == 4) {
          if (rows_pay(from, to, out))
            return count_rows(from, to, tokens, cells, out.rows(), out.cols(), false, one_by_one);
        }
        one_by_one(tokens);
      });
}

void count_own_pairs(const LayerChoices& c, std::span<const Index> tokens, Counts& out) {
  const Index n = out.cols();
  const std::size_t steps = tokens.size() * std::size_t(c.width) * std::size_t(c.width);
  if (std::size_t(out.size()) > steps || !rows_pay(c, c, out)) {
    return in_small_cells(out, steps / 2,
                          [&](auto* cells) { count_own_cells(c, tokens, cells, n); });
  }
  thread_local std::vector<std::uint32_t> both;  // rows count a pair in both directions
  both.assign(std::size_t(out.size()), 0);
  count_rows(c, c, tokens, both.data(), n, n, true,
             [&](std::span<const Index> some) { count_own_cells(c, some, out.data(), n); });
  for (Index i = 0; i < n; ++i) {
    for (Index j = i; j < n; ++j)
      out(i, j) += both[i * n + j];
  }
}

}  // namespace moe
