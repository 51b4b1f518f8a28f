// PNG by libpng's simplified interface, which reports what is wrong in place of jumping.
#include <png.h>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/signal/picture_file.h"

namespace moe {

Picture read_png(std::span<const std::byte> bytes, const std::string& name) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()))
    bad_picture(name, "PNG", image.message);
  image.format = PNG_FORMAT_RGB;
  Picture out;
  try {
    out = picture_of(image.width, image.height, name);
  } catch (...) {
    png_image_free(&image);
    throw;
  }
  const png_color white{255, 255, 255};
  const int read = png_image_finish_read(&image, &white, out.pixel.data(), 0, nullptr);
  const std::string message = image.message;
  png_image_free(&image);
  if (!read)
    bad_picture(name, "PNG", message);
  return out;
}

std::string png_of(const Picture& p) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = png_uint_32(p.width);
  image.height = png_uint_32(p.height);
  image.format = p.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  std::string out(std::size_t(PNG_IMAGE_PNG_SIZE_MAX(image)), '\0');
  png_alloc_size_t size = out.size();
  if (!png_image_write_to_memory(&image, out.data(), &size, 0, p.pixel.data(), 0, nullptr))
    throw Error(Exit::bug, concat("libpng writes no picture: ", image.message));
  out.resize(size);
  return out;
}

}  // namespace moe
