// What is said where libsndfile was missing when this was built.
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/signal/sound_file.h"

namespace moe {

Recording read_recording(const std::filesystem::path& path, double) {
  throw Error(Exit::environment,
              concat(in_quotes(path), " is a sound, and this program was built without libsndfile"))
      .hint("build it with Debian's libsndfile1-dev; --data tones needs no file");
}

}  // namespace moe
