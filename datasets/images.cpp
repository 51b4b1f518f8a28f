// `images`: pictures of files, each brought to one size, and what they are called: by a .txt file
// beside, by the file's name, by its folder.
#include "datasets/captioned.h"
#include "lib/core/error.h"
#include "lib/signal/picture_file.h"

namespace moe {
namespace {

class Images final : public Captioned {
 public:
  Images(Spec& spec, const Tokenizer& tokenizer) : Captioned("images", tokenizer) {
    read_options(spec, "images");
    size_ = spec.get("size", 32, 1);
    rule_ = patch_rule(spec.get("patch", 8, 1));
    spec.done();
    info_.spec = spec.resolved();
    if (size_ > 1024 || size_ % rule_.patch != 0) {
      throw Error(Exit::usage,
                  concat("images: size=", size_, " is not whole patches of ", rule_.patch))
          .hint("size=32,patch=8");
    }
    const int across = size_ / rule_.patch;
    signal_is(modality::image, rule_.numbers(3), across * across);
    read(
        is_picture_name,
        [this](const std::filesystem::path& path) {
          return as_floats(patches_of(square_of(read_picture(path), size_), rule_));
        },
        "picture");
  }

 private:
  int size_ = 32;
  PatchRule rule_;
};

}  // namespace

std::unique_ptr<Dataset> make_encoded_images(Spec&, const Tokenizer&);  // encoded_images.cpp

std::unique_ptr<Dataset> make_images_dataset(Spec& spec, const Tokenizer& tokenizer) {
  if (spec.has("encoder"))
    return make_encoded_images(spec, tokenizer);
  return std::make_unique<Images>(spec, tokenizer);
}

}  // namespace moe
