#include "lib/tower/pixels.h"

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

template <class S>
PatchRows<S> rows_of_pixels(std::span<const double> pixels, const Dims& dims,
                            const TowerPatches& rule) {
  if (dims.size() != 4 || dims[1] != rule.channels || dims[2] % rule.patch != 0 ||
      dims[3] % rule.patch != 0 || rule.times != 1) {
    throw Error(Exit::input, concat("pictures of the shape ", text_of(dims), " do not divide into ",
                                    rule.channels, " channels of patches of ", rule.patch));
  }
  const Index height = dims[2];
  const Index width = dims[3];
  PatchRows<S> out;
  out.grid.assign(std::size_t(dims[0]), {1, int(height) / rule.patch, int(width) / rule.patch});
  out.row = Matrix<S>(patches_of(out.grid), rule.numbers());
  const std::vector<PatchPlace> places = places_of(out.grid, rule.merge);
  const Index of_one = out.grid.empty() ? 1 : out.grid[0].patches();
  for (Index n = 0; n < out.row.rows(); ++n) {
    const PatchPlace& p = places[std::size_t(n)];
    Index i = 0;
    for (Index c = 0; c < dims[1]; ++c) {
      const Index plane = (n / of_one * dims[1] + c) * height * width;
      for (Index y = 0; y < rule.patch; ++y) {
        for (Index x = 0; x < rule.patch; ++x) {
          const Index at = (Index(p.row) * rule.patch + y) * width + p.column * rule.patch + x;
          out.row(n, i++) = S(pixels[std::size_t(plane + at)]);
        }
      }
    }
  }
  return out;
}

template PatchRows<float> rows_of_pixels(std::span<const double>, const Dims&, const TowerPatches&);
template PatchRows<double> rows_of_pixels(std::span<const double>, const Dims&,
                                          const TowerPatches&);

}  // namespace moe
