// A small corpus in a temporary folder, which is the current folder while the fixture lives: the
// example specs of datasets.def name `corpus`.
#pragma once
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "datasets/dataset.h"
#include "lib/core/error.h"
#include "lib/trace/arrays.h"

namespace moe {

namespace fs = std::filesystem;

inline void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path().empty() ? "." : path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

// Lines that say their number, so that a place in the text is known from the text.
inline std::string numbered(const std::string& word, int lines) {
  std::string out;
  for (int i = 0; i < lines; ++i)
    out += word + " " + std::to_string(i) + "\n";
  return out;
}

// Pieces first_piece, first_piece + 1, ... of one domain's validation split, at most `sequences`;
// none behind its end.
inline std::optional<Batch> valid_batch(const Corpus& corpus, int domain, Index first_piece,
                                        int sequences, int length) {
  std::vector<PieceNumber> pieces;
  for (int q = 0; q < sequences; ++q)
    pieces.push_back({domain, first_piece + q});
  const Batch batch = corpus.valid(pieces, length);
  return batch.sequences() ? std::optional(batch) : std::nullopt;
}

// A picture of 10 x 12 pixels that no other number gives.
inline std::string ppm_of(int n) {
  std::string out = "P6\n# made up\n10 12 255\n";
  for (int i = 0; i < 10 * 12 * 3; ++i)
    out += char((i * (n % 17 + 3) + n * 31) % 256);
  return out;
}

// A tenth of a second of a tone, 8,000 samples a second of 16 bits.
inline std::string wav_of(double hz) {
  const auto number = [](std::uint32_t v, int bytes) {
    std::string out;
    for (int i = 0; i < bytes; ++i)
      out += char(v >> (8 * i));
    return out;
  };
  std::string samples;
  for (int i = 0; i < 800; ++i)
    samples += number(std::uint32_t(int(12000 * std::sin(i * hz * 2 * 3.14159265 / 8000))), 2);
  const auto size = std::uint32_t(samples.size());
  return "RIFF" + number(36 + size, 4) + "WAVEfmt " + number(16, 4) + number(1, 2) + number(1, 2) +
         number(8000, 4) + number(16000, 4) + number(2, 2) + number(16, 2) + "data" +
         number(size, 4) + samples;
}

// Letters A to z of a font of bits in which letter c has what `shift` makes of its code.
inline std::string hex_font(int shift) {
  std::string out;
  char line[64];
  for (int c = 0x41; c < 0x7b; ++c) {
    std::snprintf(line, sizeof(line), "%04X:00000000%02X%02X%02X%02X0000000000000000\n", c, c,
                  (c * 5 + shift) % 255 + 1, c ^ 0x5A, (c + shift) % 255 + 1);
    out += line;
  }
  return out;
}

class Folder {
 public:
  Folder() : before_(fs::current_path()) {
    std::string name = (fs::temp_directory_path() / "moe-data-XXXXXX").string();
    if (!mkdtemp(name.data()))
      throw std::runtime_error("no temporary folder");
    path_ = name;
    fs::current_path(path_);
    write("corpus/english.txt", numbered("the house number", 9000));
    write("corpus/chinese.txt", numbered("床前明月光,疑是地上霜", 4000));
    write("corpus/code/a.h", numbered("int f(); //", 3000));
    write("corpus/code/deep/b.h", numbered("double g(); //", 100));
    write("corpus/code/.git/hidden.h", numbered("hidden", 100));
    std::string lines, ids;
    for (int i = 0; i < 600; ++i) {
      lines += R"({"input_ids":[)" + std::to_string(i % 97) + ",5,6,7,8], \"domain\":\"" +
               (i % 3 ? "code" : "prose") + "\"}\n";
      ids += std::to_string(i * 7 % 512) + (i % 9 ? " " : "\n");
    }
    std::string pairs;
    for (int i = 0; i < 400; ++i)
      pairs +=
          "the house number " + std::to_string(i) + "\tdas Haus Nummer " + std::to_string(i) + "\n";
    write("pairs.tsv", pairs);
    write_samples();
    write_rows();
    write("ids.jsonl", lines);
    write("ids.txt", ids);
  }
  static void write_samples() {
    const char* folders[] = {"cats", "dogs", "trees", "cars"};
    std::string names;
    for (int n = 0; n < 60; ++n) {
      const std::string folder = folders[n % 4];
      write("pictures/" + folder + "/red_thing-" + std::to_string(n) + ".ppm", ppm_of(n));
      write("beeps/" + folder + "/tone_" + std::to_string(n) + ".wav", wav_of(200 + 37 * n));
    }
    write("pictures/cats/red_thing-0.txt", "a red cat\nthat sits\n");
    for (int c = 0x41; c < 0x7b; ++c) {
      std::string code(64, ' ');
      code.resize(std::size_t(std::snprintf(code.data(), 64, "%04X;LETTER NUMBER %d;Lu", c, c)));
      names += code + "\n";
    }
    write("fonts/names.txt", names);
    for (const int shift : {0, 7, 20})
      write(std::string("fonts/") + "abc"[shift % 3] + ".hex", hex_font(shift));
  }
  static NamedArray positions_of(int sequences, int length) {
    NamedArray at{"position_ids", {3, std::uint64_t(sequences), std::uint64_t(length)}, {}, {}};
    for (int a = 0; a < 3; ++a) {
      for (int t = 0; t < sequences * length; ++t) {
        const int n = t % length;
        at.values.push_back(n >= 4 ? n - 2 : a == 0 ? 0 : a == 1 ? n / 2 : n % 2);
      }
    }
    return at;
  }
  // Twelve sequences of six rows, 2 x 2 patches before text, of a model of width 4.
  static void write_rows() {
    constexpr int sequences = 12, length = 6, all = sequences * length;
    NamedArray ids{"input_ids", {sequences, length}, {}, {}};
    NamedArray kind{"modality", {sequences, length}, {}, {}};
    NamedArray target{"target", {sequences, length}, {}, {}};
    NamedArray rows{"inputs_embeds", {sequences, length, 4}, {}, {}};
    NamedArray more{"deepstack_0", {4 * sequences, 4}, {}, {}};
    for (int t = 0; t < all; ++t) {
      const bool patch = t % length < 4;
      ids.values.push_back(patch ? -200 : 3 + t);
      kind.values.push_back(patch);
      target.values.push_back(patch ? -1 : 7 + t);
      for (int i = 0; i < 4; ++i)
        rows.values.push_back(0.25 * ((t * 4 + i * 5) % 13) - 1);
    }
    const NamedArray at = positions_of(sequences, length);
    for (int i = 0; i < 16 * sequences; ++i)
      more.values.push_back(0.125 * (i % 7));
    write_arrays("rows.h5", {ids, kind, target, at, rows, more}, {});
    ids.values[5] = 2;
    write_arrays("rows2.h5", {ids, kind, target, at, rows, more}, {});
  }
  ~Folder() {
    fs::current_path(before_);
    fs::remove_all(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

 private:
  fs::path before_, path_;
};

// What an action throws: "CODE: sentence"; "" if nothing. A refusal without a hint is marked, so
// that a test fails.
template <class F>
std::string refusal(F action) {
  try {
    action();
  } catch (const Error& e) {
    return std::to_string(int(e.code())) + ": " + e.what() + (e.hint().empty() ? " [no hint]" : "");
  }
  return "";
}

inline std::string refusal_of(const std::string& spec) {
  const auto tokenizer = make_tokenizer("bytes");
  return refusal([&] { Corpus({spec}, *tokenizer, 0); });
}

}  // namespace moe
