// A small corpus in a temporary folder, which is the current folder while the fixture lives: the
// example specs of datasets.def name `corpus`.
#pragma once
#include <filesystem>
#include <fstream>
#include <string>

#include "datasets/dataset.h"
#include "lib/core/error.h"

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
    write("ids.jsonl", lines);
    write("ids.txt", ids);
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
