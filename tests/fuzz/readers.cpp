#include "tests/fuzz/readers.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/error.h"
#include "lib/family/families.h"
#include "lib/files/gguf.h"
#include "lib/files/npy.h"
#include "lib/files/torch_file.h"
#include "lib/import/import.h"
#include "lib/model/config.h"
#include "lib/signal/clip_file.h"
#include "lib/tokenizer/open.h"
#include "lib/tokenizer/read.h"
#include "lib/trace/reader.h"

namespace moe::fuzz {
namespace {

void use_tokenizer(const Tokenizer& tokenizer) {
  for (const char* text :
       {"", "Hello, World! 12345", "  a\r\n\tb ", "床前明月光\xFF<s>é\xCC\x81"}) {
    const Encoded ids = tokenizer.encode(text, {.frame = true, .offsets = true});
    tokenizer.decode(ids.ids);
  }
  tokenizer.pieces();
}

void read_tokenizer_json(const char* path) {
  use_tokenizer(*open_tokenizer(path));
}

void read_sentencepiece(const char* path) {
  use_tokenizer(*open_tokenizer(path));
}

void read_tekken(const char* path) {
  use_tokenizer(*open_tokenizer(path));
}

void read_gguf(const char* path) {
  const GgufFile file(path);
  if (gguf_has_tokenizer(path))
    use_tokenizer(*read_gguf_tokenizer(path));
}

void read_safetensors(const char* path) {
  const Tensors tensors(path);
}

void read_config_json(const char* path) {
  config_from_json(read_json(path));
}

void read_trace(const char* path) {
  const TraceReader trace(path);
  constexpr std::uint64_t rows = 4096;
  trace.read(0, std::min(rows, trace.tokens()), trace.fields());
}

void read_recording(const char* path) {
  ImportOptions options;
  options.inputs = {path};
  options.experts = 8;
  const std::string target = std::string(path) + ".h5";
  try {
    import_trace(options, target, {}, true);
  } catch (const Error&) {
    std::filesystem::remove(target);
    throw;
  }
  std::filesystem::remove(target);
}

void read_npy(const char* path) {
  NpyFile file(path);
  std::vector<std::int64_t> numbers(4096);
  while (file.read(numbers) > 0) {
  }
}

void read_torch_file(const char* path) {
  const TorchFile file(path);
  file.root().kind();
}

void read_model_spec(const char* path) {
  std::ifstream in(path, std::ios::binary);
  model_config(std::string(std::istreambuf_iterator<char>(in), {}));
}

void read_gif(const char* path) {
  constexpr std::int64_t small = 1 << 20;  // pixels: large screens are allowed, and slow
  const ClipFile clip(path);
  clip.frames_a_second();
  const PictureSize size = clip.size();
  const int ends[] = {0, clip.frames() - 1};  // the last one stands on all before it
  if (std::int64_t(size.height) * size.width <= small)
    clip.read(ends);
}

std::filesystem::path folder() {
  const std::filesystem::path memory = "/dev/shm";
  return (std::filesystem::exists(memory) ? memory : std::filesystem::temp_directory_path()) /
         ("moe-fuzz-" + std::to_string(::getpid()));
}

struct Folder {  // of this process
  Folder() : path(folder()) {
    std::filesystem::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  const std::filesystem::path path;
};

}  // namespace

const std::vector<Reader>& readers() {
  static const std::vector<Reader> all = {
#define FUZZ(name, file, seeds) {#name, file, seeds, read_##name},
#include "tests/fuzz/readers.def"
#undef FUZZ
  };
  return all;
}

const Reader* find_reader(std::string_view name) {
  const auto at = std::ranges::find(readers(), name, &Reader::name);
  return at == readers().end() ? nullptr : &*at;
}

void try_bytes(const Reader& reader, std::span<const std::uint8_t> bytes) {
  static const Folder here;
  const std::filesystem::path path = here.path / reader.file;
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  try {
    reader.read(path.c_str());
  } catch (const Error&) {  // a sentence and an exit code
  }
}

}  // namespace moe::fuzz
