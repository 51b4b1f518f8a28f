#include "lib/core/signal.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/modality.h"
#include "lib/core/spec.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr int most = 1'000'000;  // numbers of a row, places of a kind

}  // namespace

SignalShapes signal_shapes(const std::string& text) {
  SignalShapes out;
  for (const std::string& entry : split_list(text, ";+")) {
    Spec spec(entry);
    SignalShape s{.modality = modality_of(spec.name(), "signal")};
    s.numbers = spec.get("numbers", 0, 1);
    s.places = spec.get("places", 0, 1);
    spec.done();
    if (s.numbers > most || s.places > most) {
      throw Error(Exit::usage, concat("signal: ", entry, " is more than ", most, " of something"))
          .hint("patches of 4 x 4 pixels in three colours have 48 numbers");
    }
    if (s.modality == modality::text) {
      throw Error(Exit::usage, "signal: text comes as ids, not as rows of numbers")
          .hint("signal={image:numbers=48,places=16}");
    }
    if (find_signal(out, s.modality))
      throw Error(Exit::usage, concat("signal: ", spec.name(), " stands there twice"))
          .hint("one entry for each kind");
    out.push_back(s);
  }
  std::ranges::sort(out, {}, &SignalShape::modality);
  return out;
}

std::string signal_text(const SignalShapes& shapes) {
  std::string out;
  for (const SignalShape& s : shapes) {
    out += concat(out.empty() ? "" : ";", modality_names()[s.modality], ":numbers=", s.numbers,
                  ",places=", s.places);
  }
  return out;
}

const SignalShape* find_signal(const SignalShapes& shapes, std::uint8_t modality) {
  const auto at = std::ranges::find(shapes, modality, &SignalShape::modality);
  return at == shapes.end() ? nullptr : &*at;
}

int place_ids(const SignalShapes& shapes) {
  int sum = 0;
  for (const SignalShape& s : shapes)
    sum += s.places;
  return sum;
}

int first_place_id(const SignalShapes& shapes, std::uint8_t modality, int vocabulary) {
  int id = vocabulary - place_ids(shapes);
  for (const SignalShape& s : shapes) {
    if (s.modality == modality)
      return id;
    id += s.places;
  }
  throw Error(Exit::bug, concat("there are no places of the modality ", int(modality)));
}

std::vector<std::string> place_names(const SignalShapes& shapes) {
  std::vector<std::string> out;
  for (const SignalShape& s : shapes) {
    for (int i = 0; i < s.places; ++i)
      out.push_back(concat("<", modality_names()[s.modality], " ", i, ">"));
  }
  return out;
}

}  // namespace moe
