// What is said where libjpeg was missing when this was built.
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/signal/picture_file.h"

namespace moe {

Picture read_jpeg(std::span<const std::byte>, const std::string& name) {
  throw Error(Exit::environment,
              concat(name, " is a JPEG, and this program was built without libjpeg"))
      .hint("build it with Debian's libjpeg-dev, or convert the file to PPM");
}

}  // namespace moe
