// Parts of the HTML page. Everything that comes from the report goes through html() of utf8.h on
// its way in.
#pragma once
#include <string>

#include "analysis/report/cells.h"
#include "analysis/report/render.h"

namespace moe::drawing {

std::string style_sheet(int experts);  // with the colours of that many experts, light and dark
// sorting, layers of the sample, values under the pointer on large maps
std::string_view page_script();

// The charts that a table asks for, with their scales, keys and notes.
std::string figure_of(const Table&, const std::string& id);

// A table with its reading, its figure when it asks for one, and its data. `id` is its own on the
// page.
std::string article(const Table&, const std::string& id, const RenderOptions&);

// A figure that has a light, as a link to `target` ("" = none).
std::string tile(const Tile&, const std::string& target);

// Of a map too large for its numbers to stand on the page: bars of how many values are how large
// ("" where they say nothing), and the rows of its table with the largest values, the largest
// first; a thing against itself is left out of both.
std::string values_figure(const Map&);
Table largest_first(const Table&, const Map&, std::size_t most);

int experts_in(const Report&);  // of the samples: largest id + 1
std::string sample_section(const Report&);

}  // namespace moe::drawing
