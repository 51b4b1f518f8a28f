// Charts as inline SVG: bars, lines and maps with axes, ticks, labels, a <title> on every mark, and
// the chance value drawn where it is known. Colours of text and series come from the page's CSS
// variables, so one drawing serves light and dark.
#pragma once
#include <string>

#include "analysis/report/cells.h"

namespace moe::drawing {

struct Size {
  int width, height;
};

std::string bar_chart(const Table&, const Panel&, Size);
std::string row_bars(const Table&, const Panel&, int width);  // lying bars, for long names
std::string line_chart(const Table&, const Panel&, Size);
std::string flow_chart(const Table&, int width);  // of a table with Chart::flow
bool lying(const Table&);                         // its names are too long to stand under bars

std::string spark_chart(const Tile&);  // all layers as a line, without axes

// One grid of a map: few cells are rectangles, many are a picture, which gets the attributes
// `hover` for the page's script.
std::string map_chart(const Map&, const Grid&, const std::string& hover, int width);
std::string map_scale(const Map&, const std::string& id);  // colour bar with ends and chance

}  // namespace moe::drawing
