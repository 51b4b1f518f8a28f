// The figures of a report as files for papers and slides: SVG that stands alone, with its colours
// and fonts inside, 3.3 inches wide (a column of two) or 6.9 (both).
#pragma once
#include <string>
#include <vector>

#include "analysis/table.h"

namespace moe {

struct Figure {
  std::string name;  // of a file, without its ending: "load", "load-2", "coactivation_map_1"
  std::string svg;   // well-formed XML
};

// Every chart of every table, in the order of the report; maps have their scale above them.
std::vector<Figure> figures_of(const Report&);

// Whether this program was built with a renderer for the two below (MOE_RSVG).
bool can_render_figures();
// The bytes of a PDF, or of a PNG with 300 dots an inch. Throws Error(environment) where it was
// not.
std::string figure_pdf(const Figure&);
std::string figure_png(const Figure&);

}  // namespace moe
