// Samples of a picture or a sound, a question and its answer: how they lie in a batch, that the
// answers are true, and that what is held out stays out.
#include <catch2/catch.hpp>
#include <map>
#include <regex>
#include <set>

#include "tests/datasets/fixture.h"

using namespace moe;

namespace {

std::string text_of(const Batch& b, Index q, bool asked) {
  std::string out;
  for (Index t = b.start[std::size_t(q)]; t < b.start[std::size_t(q) + 1]; ++t) {
    const int id = asked ? b.target[std::size_t(t)] : b.token[std::size_t(t)];
    if (b.modality_of(t) == modality::text && id >= 0 && id < 256)
      out += char(id);
  }
  return out;
}

// Pixel (y,x) of channel c from patches of `patch` pixels, `across` beside each other.
double pixel(const Signal& s, Index first, int patch, int across, int y, int x, int c) {
  const int place = y / patch * across + x / patch;
  return double(s.value(first + place, (c * patch + y % patch) * patch + x % patch)) * 0.25 + 0.5;
}

// How much of the red, green and blue of a cell lies above the dark ground.
std::array<double, 3> light_of(const Signal& s, Index first, int cell) {
  std::array<double, 3> out{};
  for (int y = 0; y < 8; ++y) {
    for (int x = 0; x < 8; ++x) {
      for (int c = 0; c < 3; ++c) {
        const double v = pixel(s, first, 4, 4, cell / 2 * 8 + y, cell % 2 * 8 + x, c);
        out[std::size_t(c)] += std::max(0.0, v - 0.16);
      }
    }
  }
  return out;
}

// What stands in a cell, by its mean colour.
std::string colour_of(const std::array<double, 3>& light) {
  const double most = std::max({light[0], light[1], light[2]});
  if (most < 1)
    return "none";
  if (light[0] > 0.5 * most && light[1] > 0.5 * most)
    return "yellow";
  return light[0] == most ? "red" : light[1] == most ? "green" : "blue";
}

const std::vector<std::string> cells = {"top left", "top right", "bottom left", "bottom right"};

}  // namespace

TEST_CASE("a sample is one sequence: places with numbers, a question, and the answer asked for") {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"shapes"}, *tokenizer, 1);
  CHECK(corpus.info().signals == SignalShapes{{modality::image, 48, 16}});
  CHECK(corpus.info().vocabulary == 320 + 16);
  const Batch b = corpus.train(0, 6, 64);
  REQUIRE(b.sequences() == 6);
  REQUIRE(b.signal.size() == 1);
  CHECK(b.signal[0].value.rows() == 6 * 16);
  CHECK(b.signal[0].value.cols() == 48);
  REQUIRE(b.question.size() == 6);
  CHECK(b.grid == std::vector<SignalGrid>(6, {4, 4}));
  for (Index q = 0; q < 6; ++q) {
    const Index first = b.start[std::size_t(q)];
    for (Index i = 0; i < 16; ++i) {
      CHECK(b.signal[0].row[std::size_t(q * 16 + i)] == first + i);
      CHECK(b.token[std::size_t(first + i)] == 320 + i);
      CHECK(b.modality_of(first + i) == modality::image);
      CHECK(b.target[std::size_t(first + i)] == -1);
    }
    const std::string text = text_of(b, q, false);
    const std::string answer = text_of(b, q, true);
    INFO(text);
    CHECK(std::regex_match(text, std::regex("(how many|colour|form) [a-z ]+\\? [a-z0-9]+")));
    CHECK(text.ends_with("? " + answer));
    CHECK(b.target[std::size_t(b.start[std::size_t(q) + 1] - 1)] == tokenizer->boundary());
    const auto asked = std::ranges::count_if(b.target.begin() + first,
                                             b.target.begin() + b.start[std::size_t(q) + 1],
                                             [](int id) { return id >= 0; });
    CHECK(std::size_t(asked) == answer.size() + 1);
  }
}

TEST_CASE("a sound lies in one row of its stretches of time, and text has no grid") {
  const auto tokenizer = make_tokenizer("bytes");
  const Batch tones = Corpus({"tones"}, *tokenizer, 1).train(0, 1, 64);
  REQUIRE(tones.grid.size() == 1);
  CHECK(tones.grid[0] == SignalGrid{1, std::uint16_t(tones.signal.at(0).value.rows())});
  CHECK(Corpus({"clusters"}, *tokenizer, 1).train(0, 2, 16).grid.empty());
  const Batch mixed = Corpus({"clusters", "shapes"}, *tokenizer, 1).train(0, 2, 64);
  REQUIRE(mixed.grid.size() == 2);
  CHECK(mixed.grid[0] != mixed.grid[1]);
}

TEST_CASE("shapes: the answers are true of the pictures") {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"shapes"}, *tokenizer, 1);
  const Batch b = corpus.train(0, 300, 64);
  std::map<std::string, int> answers;
  for (Index q = 0; q < b.sequences(); ++q) {
    std::vector<std::string> seen;
    for (int cell = 0; cell < 4; ++cell)
      seen.push_back(colour_of(light_of(b.signal[0], q * 16, cell)));
    const std::string answer = text_of(b, q, true);
    std::string question = text_of(b, q, false);
    question.resize(question.size() - answer.size() - 2);
    INFO(question << ": " << answer);
    if (question.starts_with("how many ")) {
      CHECK(answer == std::to_string(std::ranges::count(seen, question.substr(9))));
    } else {
      const std::string place = question.substr(question.find(' ') + 1);
      const auto cell = std::size_t(std::ranges::find(cells, place) - cells.begin());
      REQUIRE(cell < 4);
      if (question.starts_with("colour"))
        CHECK(answer == seen[cell]);
      else
        CHECK((answer == "none") == (seen[cell] == "none"));
    }
    ++answers[answer];
  }
  for (const char* answer : {"0", "1", "2", "red", "green", "blue", "yellow", "square", "disc",
                             "triangle", "cross", "none"})
    CHECK(answers[answer] > 0);
}

TEST_CASE("shapes: half of the validation asks about pairs that training never shows") {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"shapes:valid=240"}, *tokenizer, 1);
  CHECK(corpus.info().questions ==
        std::vector<std::string>{"how many", "colour", "form", "how many, unseen pair",
                                 "colour, unseen pair", "form, unseen pair"});
  CHECK(corpus.info().notes.at(0).find("held out of training: ") != std::string::npos);
  std::vector<int> asked(6);
  std::set<std::string> train_pictures;
  const Batch train = corpus.train(3, 500, 64);
  const auto picture = [](const Batch& b, Index q) {
    std::string out;
    for (int cell = 0; cell < 4; ++cell)
      out += colour_of(light_of(b.signal[0], q * 16, cell)) + " ";
    return out;
  };
  for (Index q = 0; q < train.sequences(); ++q) {
    CHECK(train.question[std::size_t(q)] < 3);
    train_pictures.insert(picture(train, q));
  }
  CHECK(train_pictures.size() > 50);
  for (Index n = 0; const auto b = valid_batch(corpus, 0, n, 1, 64); ++n) {
    ++asked[std::size_t(b->question.at(0))];
    if (b->question[0] >= 3)
      CHECK(text_of(*b, 0, true) != "none");
  }
  CHECK(asked == std::vector<int>(6, 40));
  const Corpus all({"shapes:hold=0"}, *tokenizer, 1);
  CHECK(all.info().questions.size() == 3);
}

TEST_CASE("samples say what they refuse") {
  CHECK(refusal_of("shapes:size=15").starts_with("2: shapes: size=15 does not hold 2 x 2 cells"));
  CHECK(refusal_of("shapes:colours=9").starts_with("2: shapes: objects=4, colours=9, forms=4"));
  CHECK(refusal_of("shapes:hold=16") ==
        "2: shapes: hold=16 of 16 pairs leaves something with none to learn it from");
  CHECK(refusal_of("shapes:hold=12").empty());
  CHECK(refusal_of("shapes:task=denoise").starts_with("2: 'shapes:task=denoise' has pictures"));
  const auto tokenizer = make_tokenizer("bytes");
  CHECK(refusal([&] {
          Corpus({"shapes"}, *tokenizer, 0).train(0, 1, 20);
        }).starts_with("3: a sample of shapes has "));
  CHECK(refusal([&] {
          Corpus({"shapes", "shapes:patch=8"}, *tokenizer, 0);
        }) ==
        "2: 'shapes:split=train,size=16,patch=8,objects=4,colours=4,forms=4,hold=4,seed=0,"
        "valid=1024' has rows of 192 numbers of the kind image, and other data have 48");
}

TEST_CASE("a model says where it has the ids of places") {
  const auto tokenizer = make_tokenizer("bytes");
  Corpus corpus({"shapes", "zipf"}, *tokenizer, 1);
  CHECK(corpus.info().questions.size() == 6);
  corpus.use_places({{modality::image, 48, 20}, {modality::audio, 5, 7}}, 400);
  const Batch b = corpus.train(0, 2, 64);
  const Index first = b.domain[0] == 0 ? 0 : b.start[1];
  CHECK(b.token[std::size_t(first)] == 400 - 27);
  REQUIRE(b.modality.size() == b.token.size());
  REQUIRE(b.question.size() == 2);
  CHECK(b.question[b.domain[0] == 0 ? 1 : 0] == -1);
  CHECK(refusal([&] { corpus.use_places({}, 400); }) ==
        "2: the data bring image:numbers=48,places=16 and the model reads text alone");
  CHECK(refusal([&] {
          corpus.use_places({{modality::image, 48, 9}}, 400);
        }) ==
        "2: the data bring image:numbers=48,places=16 and the model reads "
        "image:numbers=48,places=9");
}
