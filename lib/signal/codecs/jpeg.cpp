// JPEG by libjpeg. Its errors jump: nothing with a destructor lives where they jump over.
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>

#include "lib/core/text.h"
#include "lib/signal/picture_file.h"

namespace moe {
namespace {

constexpr int most_scans = 500;  // of a progressive file; more are made to cost time

struct Reading {
  jpeg_decompress_struct file;
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress;
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};

Reading& reading_of(j_common_ptr file) {
  return *static_cast<Reading*>(file->client_data);
}

[[noreturn]] void fail(j_common_ptr file) {
  Reading& r = reading_of(file);
  file->err->format_message(file, r.message);
  std::longjmp(r.back, 1);
}
// A warning says that data are damaged or cut off: what was made of them is not the picture.
void hear(j_common_ptr file, int level) {
  if (level < 0)
    fail(file);
}
void count_scans(j_common_ptr file) {
  const auto* d = reinterpret_cast<j_decompress_ptr>(file);
  if (d->input_scan_number <= most_scans)
    return;
  Reading& r = reading_of(file);
  std::strcpy(r.message, "it has more than 500 scans");
  std::longjmp(r.back, 1);
}

// Whether the header could be read; then the size stands in r.file.
bool begin(Reading& r, std::span<const std::byte> bytes) {
  r.file.err = jpeg_std_error(&r.errors);
  r.errors.error_exit = fail;
  r.errors.emit_message = hear;
  r.file.client_data = &r;
  if (setjmp(r.back))
    return false;
  jpeg_create_decompress(&r.file);
  r.file.client_data = &r;
  r.progress.progress_monitor = count_scans;
  r.file.progress = &r.progress;
  jpeg_mem_src(&r.file, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&r.file, TRUE);
  r.file.out_color_space = JCS_RGB;
  return true;
}

bool read_rows(Reading& r, std::uint8_t* pixels) {
  if (setjmp(r.back))
    return false;
  jpeg_start_decompress(&r.file);
  while (r.file.output_scanline < r.file.output_height) {
    JSAMPROW row = pixels + std::size_t(r.file.output_scanline) * r.file.output_width * 3;
    jpeg_read_scanlines(&r.file, &row, 1);
  }
  jpeg_finish_decompress(&r.file);
  return true;
}

// Frees what a reading holds, however it ends.
struct Closing {
  Reading& r;
  ~Closing() {
    jpeg_destroy_decompress(&r.file);
  }
};

}  // namespace

Picture read_jpeg(std::span<const std::byte> bytes, const std::string& name) {
  Reading r{};
  const Closing closing{r};
  if (!begin(r, bytes))
    bad_picture(name, "JPEG", r.message);
  // four colours of print have no way back to three without a profile
  if (r.file.jpeg_color_space == JCS_CMYK || r.file.jpeg_color_space == JCS_YCCK)
    bad_picture(name, "JPEG", "its colours are those of print (CMYK)");
  Picture out = picture_of(r.file.image_width, r.file.image_height, name);
  if (!read_rows(r, out.pixel.data()))
    bad_picture(name, "JPEG", r.message);
  return out;
}

}  // namespace moe
