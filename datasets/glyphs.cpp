// `glyphs`: characters of fonts as pictures, and what they are called. Held out are whole
// faces (a known character in another hand) and, where characters have names, whole characters (a
// new one, whose name is made of known words): two questions that are told apart.
#include <algorithm>
#include <map>
#include <set>

#include "datasets/files.h"
#include "datasets/fonts.h"
#include "datasets/samples.h"
#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/files/file.h"
#include "lib/files/unpacked.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr int least_script = 40;      // glyphs of a domain of its own
constexpr int paper = 25, ink = 235;  // of 255
enum Kind : int { unseen_face, unseen_character };

struct Range {
  char32_t first, last;
  bool holds(char32_t c) const {
    return c >= first && c <= last;
  }
};

char32_t code_of(const std::string& text, const std::string& codes) {
  if (text.empty() || text.size() > 6 ||
      text.find_first_not_of("0123456789abcdefABCDEF") != text.npos) {
    throw Error(Exit::usage, concat("glyphs: codes=", codes, " has '", text,
                                    "' where a hexadecimal code of a character is expected"))
        .hint("codes=21-24f+370-52f");
  }
  return char32_t(std::stoul(text, nullptr, 16));
}

std::vector<Range> ranges_of(const std::string& codes) {
  std::vector<Range> out;
  for (const std::string& part : split_list(codes)) {
    const std::size_t dash = std::min(part.find('-'), part.size());
    const char32_t first = code_of(part.substr(0, dash), codes);
    out.push_back({first, dash < part.size() ? code_of(part.substr(dash + 1), codes) : first});
  }
  return out;
}

std::uint64_t hash_of(const std::string& text) {
  return hash_bytes(std::as_bytes(std::span(text)));
}

// A font's hand: "Terminus16" of Lat2-Terminus16.psf.gz and of all other code pages of it,
// "DejaVuSans-Bold" of DejaVuSans-Bold.ttf.
std::string face_of(const fs::path& path) {
  if (is_outline_name(path))
    return path.stem();
  const std::string stem = without_packing(path).stem();
  return stem.substr(stem.rfind('-') + 1);
}

class Glyphs final : public Samples {
 public:
  Glyphs(Spec& spec, const Tokenizer& tokenizer) : Samples("glyphs", tokenizer) {
    const std::string font = spec.get("font", "");
    const std::string names = spec.get("names", "");
    const std::string codes = spec.get("codes", "21-24f+370-52f");
    size_ = spec.get("size", 16, 1);
    rule_ = patch_rule(spec.get("patch", 4, 1));
    most_valid_ = spec.get("valid", 512, 1);
    spec.done();
    info_.spec = spec.resolved();
    if (font.empty()) {
      throw Error(Exit::usage, "the dataset glyphs was given no font")
          .hint(
              "glyphs:font=/usr/share/unifont/unifont.hex,names=UnicodeData.txt, or a folder "
              "of fonts");
    }
    if (size_ > 256 || size_ % rule_.patch != 0) {
      throw Error(Exit::usage,
                  concat("glyphs: size=", size_, " is not whole patches of ", rule_.patch))
          .hint("size=16,patch=4");
    }
    if (!names.empty())
      names_ = read_character_names(names);
    info_.questions = {"character, unseen face"};
    if (!names_.empty())
      info_.questions = {"name, unseen face", "name, unseen character"};
    const int across = size_ / rule_.patch;
    signal_is(modality::image, rule_.numbers(3), across * across);
    read_all(font, ranges_of(codes));
    add_domains();
  }

 private:
  struct Domain {
    std::vector<Glyph> train;
    std::vector<std::pair<Glyph, Kind>> valid;
  };

  // Glyphs of faces and characters that training sees, and the others.
  struct Found {
    std::vector<Glyph> train, other_face, other_character;
    Index too_large = 0;
  };

  void read_all(const std::string& font, const std::vector<Range>& ranges) {
    const Paths files = files_of(font);
    std::set<std::string> faces;
    for (const fs::path& path : files)
      faces.insert(face_of(path));
    if (faces.size() < 2 && names_.empty()) {
      throw Error(Exit::usage,
                  concat("'", font,
                         "' is one face, and without names= nothing of it can be asked "
                         "that training has not shown"))
          .hint("a folder of fonts, or names=UnicodeData.txt");
    }
    const std::set<std::string> held = tenth_of(faces);
    Found found;
    for (const fs::path& path : files)
      read(path, held.contains(face_of(path)), ranges, found);
    deal(found);
    if (found.too_large > 0) {
      info_.notes.push_back(concat("glyphs: ", found.too_large, " characters do not fit into ",
                                   size_, " x ", size_, " pixels and are left out"));
    }
  }

  static Paths files_of(const fs::path& path) {
    std::error_code code;
    if (fs::is_regular_file(path, code))
      return {path};
    if (!fs::is_directory(path, code)) {
      throw Error(Exit::input, concat("'", path.native(), "' does not exist"))
          .hint("glyphs:font=FILE.hex, FILE.psf, FILE.ttf, or a folder of such files");
    }
    Paths out = files_below(path, "*");
    std::erase_if(out, [](const fs::path& p) { return !is_font_name(p); });
    if (out.empty()) {
      throw Error(Exit::input,
                  concat("folder '", path.native(), "' holds no .hex, .psf, .ttf or .otf file"))
          .hint("/usr/share/consolefonts of the package console-setup-linux has hundreds");
    }
    return out;
  }

  void read(const fs::path& path, bool held, const std::vector<Range>& ranges, Found& found) {
    for (const Glyph& whole : read_font(path, size_)) {
      const bool wanted =
          std::ranges::any_of(ranges, [&](const Range& r) { return r.holds(whole.code); });
      if (!wanted || (!names_.empty() && !names_.contains(whole.code)))
        continue;
      Glyph g = trimmed(whole);
      if (g.height > size_ || g.width > size_) {
        ++found.too_large;
        continue;
      }
      const bool character = !names_.empty() && in_tenth(concat("character ", int(g.code)));
      (character ? found.other_character
       : held    ? found.other_face
                 : found.train)
          .push_back(std::move(g));
    }
  }

  // Each picture of a character once, and none on both sides.
  void deal(const Found& found) {
    for (const Glyph& g : found.train) {
      if (!names_.empty())
        ++script_sizes_[first_word(names_.at(g.code))];
    }
    std::set<std::string> seen;
    const auto is_new = [&](const Glyph& g) {
      return seen.insert(key_of(g)).second;
    };
    for (const Glyph& g : found.train) {
      if (is_new(g))
        domains_[domain_of(g.code)].train.push_back(g);
    }
    std::set<char32_t> known;
    for (const auto& [name, d] : domains_) {
      for (const Glyph& g : d.train)
        known.insert(g.code);
    }
    for (const Glyph& g : found.other_face) {
      if (known.contains(g.code) && is_new(g))
        domains_[domain_of(g.code)].valid.emplace_back(g, unseen_face);
    }
    for (const Glyph& g : found.other_character) {
      if (is_new(g))
        domains_[domain_of(g.code)].valid.emplace_back(g, unseen_character);
    }
    std::erase_if(domains_, [](const auto& d) { return d.second.train.empty(); });
    if (domains_.empty()) {
      throw Error(Exit::input, "none of the characters that codes= names can be trained on")
          .hint("other codes=, a larger size=, or other fonts");
    }
  }

  static std::string key_of(const Glyph& g) {
    return concat(int(g.code), " ", g.height, " ", g.width, " ",
                  std::string_view(reinterpret_cast<const char*>(g.bit.data()), g.bit.size()));
  }

  // The first word of a name says its script: latin, greek, cyrillic. Those that few characters
  // have are one domain, since all domains are drawn as often.
  std::string domain_of(char32_t code) const {
    const auto at = names_.find(code);
    if (at == names_.end())
      return "glyphs";
    const std::string word = first_word(at->second);
    const auto known = script_sizes_.find(word);
    return known != script_sizes_.end() && known->second >= least_script ? word : "others";
  }
  static std::string first_word(const std::string& name) {
    return name.substr(0, name.find(' '));
  }

  // As many of both kinds as there are, at most `valid` of a domain, spread over all.
  void add_domains() {
    for (auto& [name, d] : domains_) {
      std::ranges::stable_sort(
          d.valid, {}, [](const std::pair<Glyph, Kind>& v) { return hash_of(key_of(v.first)); });
      if (Index(d.valid.size()) > most_valid_)
        d.valid.resize(std::size_t(most_valid_));
      order_.push_back(&d);
      Index rows = 0;
      for (const Glyph& g : d.train)
        rows += rows_of(sample(g, 0, nullptr));
      add_domain(name, rows, Index(d.valid.size()));
      std::string all;
      for (const Glyph& g : d.train)
        all += key_of(g);
      for (const auto& [g, kind] : d.valid)
        all += key_of(g) + concat(int(kind));
      info_.content_hash.push_back(hash_of(all));
    }
  }

  Sample train_sample(int domain, Rng& rng) const override {
    const auto& all = order_[std::size_t(domain)]->train;
    return sample(all[std::size_t(rng.below(Index(all.size())))], 0, &rng);
  }

  Sample valid_sample(int domain, Index n, Wanted wanted) const override {
    const auto& [glyph, kind] = order_[std::size_t(domain)]->valid[std::size_t(n)];
    Rng rng = Rng(0).stream(std::uint64_t(domain)).stream(std::uint64_t(n));
    return sample(glyph, kind, wanted == Wanted::all ? &rng : nullptr);
  }

  // Without numbers to draw from, its text alone.
  Sample sample(const Glyph& g, int kind, Rng* rng) const {
    Sample out;
    out.kind = kind;
    out.row_count = info_.signals[0].places;
    out.question = names_.empty() ? "character? " : "name? ";
    out.answer = names_.empty() ? utf8_of(std::u32string(1, g.code)) : names_.at(g.code);
    if (rng)
      out.rows = as_floats(patches_of(painted(g, *rng), rule_));
    return out;
  }

  // Around the middle, up to two pixels aside.
  Picture painted(const Glyph& g, Rng& rng) const {
    Picture out{.height = size_, .width = size_, .channels = 3, .pixel = {}};
    out.pixel.assign(std::size_t(size_ * size_ * 3), paper);
    const auto placed = [&](int length) {
      const int spare = size_ - length;
      return std::clamp(spare / 2 + int(rng.below(5)) - 2, 0, spare);
    };
    const int top = placed(g.height);
    const int left = placed(g.width);
    for (int y = 0; y < g.height; ++y) {
      for (int x = 0; x < g.width; ++x) {
        for (int c = 0; c < 3 && g.at(y, x); ++c)
          out.pixel[std::size_t(((top + y) * size_ + left + x) * 3 + c)] = ink;
      }
    }
    return out;
  }

  int size_ = 16;
  Index most_valid_ = 512;
  PatchRule rule_;
  std::map<char32_t, std::string> names_;
  std::map<std::string, int> script_sizes_;  // glyphs to train on, by the first word of their name
  std::map<std::string, Domain> domains_;
  std::vector<const Domain*> order_;
};

}  // namespace

std::unique_ptr<Dataset> make_glyphs_dataset(Spec& spec, const Tokenizer& tokenizer) {
  return std::make_unique<Glyphs>(spec, tokenizer);
}

}  // namespace moe
