// What is said where libpng was missing when this was built.
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/signal/picture_file.h"

namespace moe {

Picture read_png(std::span<const std::byte>, const std::string& name) {
  throw Error(Exit::environment,
              concat(name, " is a PNG, and this program was built without libpng"))
      .hint("build it with Debian's libpng-dev, or convert the file to PPM");
}

std::string png_of(const Picture&) {
  throw Error(Exit::environment, "this program was built without libpng, so it writes no PNG")
      .hint("build it with Debian's libpng-dev");
}

}  // namespace moe
