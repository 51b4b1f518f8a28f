// `shapes`: small pictures of coloured forms in a grid of cells, and questions about them with
// known answers: how many are red, which colour or form is top left. Some pairs of a colour and a
// form are held out of training, and so is a tenth of all layouts.
#include <array>
#include <cmath>

#include "datasets/samples.h"
#include "lib/core/error.h"

namespace moe {
namespace {

struct Colour {
  const char* name;
  std::array<int, 3> rgb;
};
constexpr std::array<Colour, 8> colours{{{"red", {220, 40, 40}},
                                         {"green", {40, 190, 60}},
                                         {"blue", {50, 80, 230}},
                                         {"yellow", {230, 215, 50}},
                                         {"purple", {170, 50, 190}},
                                         {"cyan", {50, 200, 210}},
                                         {"orange", {240, 140, 30}},
                                         {"white", {235, 235, 235}}}};

// Whether (u,v) is inside the form; both go from -1 to 1, v downwards.
struct Form {
  const char* name;
  bool (*inside)(double u, double v);
};
constexpr std::array<Form, 8> forms{{{"square",
                                      [](double u, double v) {
                                        return std::abs(u) <= 0.9 && std::abs(v) <= 0.9;
                                      }},
                                     {"disc",
                                      [](double u, double v) {
                                        return u * u + v * v <= 1;
                                      }},
                                     {"triangle",
                                      [](double u, double v) {
                                        return std::abs(u) <= (v + 1) / 2;
                                      }},
                                     {"cross",
                                      [](double u, double v) {
                                        return std::abs(u) <= 0.34 || std::abs(v) <= 0.34;
                                      }},
                                     {"ring",
                                      [](double u, double v) {
                                        return u * u + v * v <= 1 && u * u + v * v >= 0.3;
                                      }},
                                     {"diamond",
                                      [](double u, double v) {
                                        return std::abs(u) + std::abs(v) <= 1;
                                      }},
                                     {"bar",
                                      [](double, double v) {
                                        return std::abs(v) <= 0.4;
                                      }},
                                     {"post", [](double u, double) {
                                        return std::abs(u) <= 0.4;
                                      }}}};

constexpr int most_objects = 9;
constexpr int dark = 25, grain = 12;  // of the ground, and how far each pixel wanders
constexpr double ask_empty = 0.2, ask_absent = 0.2, same_colour = 0.4;
constexpr Index most_tries = 10'000;
enum Kind : int { how_many, colour_of, form_of, kinds };

const char* place_name(int side, int cell) {
  static constexpr const char* two[] = {"top left", "top right", "bottom left", "bottom right"};
  static constexpr const char* three[] = {"top left",    "top",    "top right",
                                          "left",        "middle", "right",
                                          "bottom left", "bottom", "bottom right"};
  return side == 1 ? "here" : side == 2 ? two[cell] : three[cell];
}

struct Object {
  int colour = -1, form = -1;  // -1 = the cell is empty
};
using Layout = std::vector<Object>;  // a cell each, row by row

class Shapes final : public Samples {
 public:
  Shapes(Spec& spec, const Tokenizer& tokenizer) : Samples("shapes", tokenizer) {
    size_ = spec.get("size", 16, 1);
    rule_ = patch_rule(spec.get("patch", 4, 1));
    objects_ = spec.get("objects", 4, 1);
    colours_ = spec.get("colours", 4, 2);
    forms_ = spec.get("forms", 4, 2);
    const int hold = spec.get("hold", 4, 0);
    seed_ = std::uint64_t(spec.get("seed", 0));
    const int valid = spec.get("valid", 1024, 1);
    spec.done();
    info_.spec = spec.resolved();
    side_ = int(std::ceil(std::sqrt(double(objects_))));
    check();
    pairs_.emplace(colours_, forms_, hold, Rng(seed_).stream(0x70616972), "shapes");
    info_.questions = {"how many", "colour", "form"};
    if (hold > 0)
      info_.questions = with_unseen_pairs(info_.questions);
    const int places = (size_ / rule_.patch) * (size_ / rule_.patch);
    signal_is(modality::image, rule_.numbers(3), places);
    add_domain("shapes", kEndless, valid);
    tell(places);
  }

 private:
  void check() const {
    const auto refuse = [](bool when, const std::string& why, const std::string& hint) {
      if (when)
        throw Error(Exit::usage, "shapes: " + why).hint(hint);
    };
    refuse(objects_ > most_objects || colours_ > int(colours.size()) || forms_ > int(forms.size()),
           concat("objects=", objects_, ", colours=", colours_, ", forms=", forms_,
                  " are more than ", most_objects, ", ", colours.size(), " and ", forms.size()),
           "objects=4,colours=4,forms=4");
    refuse(size_ > 256 || size_ % rule_.patch != 0 || size_ % side_ != 0 || size_ / side_ < 6,
           concat("size=", size_, " does not hold ", side_, " x ", side_,
                  " cells of 6 pixels or more and whole patches of ", rule_.patch),
           concat("size=", 8 * side_, ",patch=4"));
  }

  void tell(int places) {
    std::string held;
    for (const auto& [c, f] : pairs_->held())
      held += concat(held.empty() ? "; held out of training: " : ", ", colours[std::size_t(c)].name,
                     " ", forms[std::size_t(f)].name);
    Rng rng(seed_);
    const Sample s = train_sample(0, rng);
    info_.notes.push_back(concat("shapes: a sample is ", places, " rows of a picture of ", size_,
                                 " x ", size_, " pixels and a question with its answer, as '",
                                 s.question, s.answer, "'", held));
  }

  // Cells with 1 to `objects` objects of pairs that training may see.
  Layout drawn(Rng& rng) const {
    Layout out(std::size_t(side_ * side_));
    const Index count = 1 + rng.below(objects_);
    int last = -1;  // colour
    for (Index n = 0; n < count;) {
      Object& cell = out[std::size_t(rng.below(Index(out.size())))];
      if (cell.colour >= 0)
        continue;
      const auto [colour, form] =
          n > 0 && rng.uniform() < same_colour ? pair_like(last, rng) : pairs_->any_seen(rng);
      last = colour;
      cell = {colour, form};
      ++n;
    }
    return out;
  }
  // With a colour that has stood there before, so that there is something to count.
  HeldPairs::Pair pair_like(int colour, Rng& rng) const {
    HeldPairs::Pair out = pairs_->any_seen(rng);
    while (out.first != colour)
      out = pairs_->any_seen(rng);
    return out;
  }

  // A tenth of all layouts is for validation, by a hash.
  bool is_valid(const Layout& layout) const {
    std::string text = concat(seed_);
    for (const Object& o : layout)
      text += concat(" ", o.colour, ",", o.form);
    return in_tenth(text);
  }

  Layout drawn(Split split, Rng& rng) const {
    for (Index n = 0; n < most_tries; ++n) {
      Layout out = drawn(rng);
      if (is_valid(out) == (split == Split::valid))
        return out;
    }
    throw Error(Exit::usage, concat("shapes: objects=", objects_, ",colours=", colours_, ",forms=",
                                    forms_, " make too few pictures to keep a tenth of them apart"))
        .hint("more objects, colours or forms");
  }

  Sample train_sample(int, Rng& rng) const override {
    const Layout layout = drawn(Split::train, rng);
    const Kind kind = Kind(rng.below(kinds));
    return sample(layout, kind, asked_cell(layout, kind, rng), rng, Wanted::all);
  }

  // In turn of pairs that were seen in training and of others, and of all kinds.
  Sample valid_sample(int, Index n, Wanted wanted) const override {
    Rng rng = Rng(seed_).stream(0x76616c6964).stream(std::uint64_t(n));
    const bool unseen = n % 2 == 1 && !pairs_->held().empty();
    const Kind kind = Kind(n / 2 % kinds);
    Layout layout = drawn(unseen ? Split::train : Split::valid, rng);
    int cell = asked_cell(layout, kind, rng);
    if (unseen) {
      while (cell < 0 || layout[std::size_t(cell)].colour < 0)
        cell = int(rng.below(Index(layout.size())));
      const auto [colour, form] = pairs_->any_held(rng);
      layout[std::size_t(cell)] = {colour, form};
    }
    Sample out = sample(layout, kind, cell, rng, wanted);
    out.kind += unseen ? kinds : 0;
    return out;
  }

  // A cell to ask for; of how_many one whose colour is asked for, -1 = any colour.
  int asked_cell(const Layout& layout, Kind kind, Rng& rng) const {
    std::vector<int> empty, filled;
    for (int i = 0; i < int(layout.size()); ++i)
      (layout[std::size_t(i)].colour < 0 ? empty : filled).push_back(i);
    const double draw = rng.uniform();
    const auto any = [&](const std::vector<int>& cells) {
      return cells[std::size_t(rng.below(Index(cells.size())))];
    };
    if (kind == how_many)
      return draw < ask_absent ? -1 : any(filled);
    return draw < ask_empty && !empty.empty() ? any(empty) : any(filled);
  }

  Sample sample(const Layout& layout, Kind kind, int cell, Rng& rng, Wanted wanted) const {
    Sample out;
    out.row_count = info_.signals[0].places;
    out.kind = kind;
    if (kind == how_many) {
      const int colour = cell < 0 ? int(rng.below(colours_)) : layout[std::size_t(cell)].colour;
      out.question = concat("how many ", colours[std::size_t(colour)].name, "? ");
      out.answer = concat(std::ranges::count(layout, colour, &Object::colour));
    } else {
      const Object& o = layout[std::size_t(cell)];
      out.question = concat(kind == colour_of ? "colour " : "form ", place_name(side_, cell), "? ");
      out.answer = o.colour < 0        ? "none"
                   : kind == colour_of ? colours[std::size_t(o.colour)].name
                                       : forms[std::size_t(o.form)].name;
    }
    if (wanted == Wanted::all)
      out.rows = as_floats(patches_of(painted(layout, rng), rule_));
    return out;
  }

  Picture painted(const Layout& layout, Rng& rng) const {
    Picture out{.height = size_, .width = size_, .channels = 3, .pixel = {}};
    out.pixel.assign(std::size_t(size_ * size_ * 3), dark);
    for (std::size_t cell = 0; cell < layout.size(); ++cell) {
      if (layout[cell].colour >= 0)
        paint(layout[cell], int(cell), rng, out);
    }
    for (std::uint8_t& v : out.pixel)
      v = std::uint8_t(std::min<Index>(255, v + rng.below(2 * grain) - grain));
    return out;
  }

  // Somewhere in its cell, a little larger or smaller.
  void paint(const Object& o, int cell, Rng& rng, Picture& out) const {
    const double width = double(size_) / side_;
    const double radius = width * (0.34 + 0.12 * rng.uniform());
    const double slack = width / 2 - radius;
    const double x0 = (cell % side_ + 0.5) * width + slack * (2 * rng.uniform() - 1);
    const double y0 = (cell / side_ + 0.5) * width + slack * (2 * rng.uniform() - 1);
    const auto first = [&](double centre) {
      return std::max(0, int(std::floor(centre - radius)));
    };
    const auto last = [&](double centre) {
      return std::min(size_, int(centre + radius) + 1);
    };
    for (int y = first(y0); y < last(y0); ++y) {
      for (int x = first(x0); x < last(x0); ++x) {
        const double u = (x + 0.5 - x0) / radius;
        const double v = (y + 0.5 - y0) / radius;
        if (std::abs(u) > 1 || std::abs(v) > 1 || !forms[std::size_t(o.form)].inside(u, v))
          continue;
        for (int c = 0; c < 3; ++c) {
          out.pixel[std::size_t((y * size_ + x) * 3 + c)] =
              std::uint8_t(colours[std::size_t(o.colour)].rgb[std::size_t(c)]);
        }
      }
    }
  }

  int size_ = 16, objects_ = 4, colours_ = 4, forms_ = 4, side_ = 2;
  std::uint64_t seed_ = 0;
  PatchRule rule_;
  std::optional<HeldPairs> pairs_;
};

}  // namespace

std::unique_ptr<Dataset> make_shapes_dataset(Spec& spec, const Tokenizer& tokenizer) {
  return std::make_unique<Shapes>(spec, tokenizer);
}

}  // namespace moe
