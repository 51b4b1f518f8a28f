// Stands in for figures_rsvg.cpp where librsvg is not there.
#include "analysis/report/figures.h"
#include "lib/core/error.h"

namespace moe {
namespace {

[[noreturn]] void refuse() {
  throw Error(Exit::environment, "this program was built without librsvg: it writes figures as SVG")
      .hint("apt install librsvg2-dev and build again with -DMOE_RSVG=ON, or rsvg-convert -f pdf");
}

}  // namespace

bool can_render_figures() {
  return false;
}
std::string figure_pdf(const Figure&) {
  refuse();
}
std::string figure_png(const Figure&) {
  refuse();
}

}  // namespace moe
