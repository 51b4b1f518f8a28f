// What is said where FreeType was missing when this was built.
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/signal/glyph.h"

namespace moe {

std::vector<Glyph> read_outlines(std::span<const char>, int, const std::filesystem::path& name) {
  throw Error(Exit::environment, concat(in_quotes(name),
                                        " is a font of outlines, and this program was built "
                                        "without FreeType"))
      .hint("build it with Debian's libfreetype-dev, or take a .hex or .psf font");
}

void write_text(Picture&, const std::string&, std::span<const char> font, int pixels, int,
                const std::filesystem::path& name) {
  read_outlines(font, pixels, name);
}

}  // namespace moe
