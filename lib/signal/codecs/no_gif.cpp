// What is said where giflib was missing when this was built.
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/signal/gif.h"

namespace moe {

Gif read_gif(std::span<const std::byte>, const std::string& name) {
  throw Error(Exit::environment,
              concat(name, " is a GIF, and this program was built without giflib"))
      .hint(
          "build it with Debian's libgif-dev, or make a folder NAME.clip of its frames: "
          "ImageMagick's `convert x.gif -coalesce x.clip/%04d.png`");
}

}  // namespace moe
