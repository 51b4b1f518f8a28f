// Files of pictures, clips and sounds as sequences of a published model: the rows that its encoder
// gives, the texts and ids around them, and captions.
#include <unistd.h>
#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "datasets/dataset.h"
#include "lib/core/error.h"
#include "lib/files/json.h"
#include "lib/signal/clip_file.h"
#include "lib/signal/sound_file.h"
#include "lib/tower/clip_processor.h"
#include "lib/tower/processor.h"
#include "lib/tower/sound_processor.h"
#include "tests/skip.h"
#include "tests/tower/made.h"

namespace fs = std::filesystem;
using namespace moe;
using test::picture;

namespace {

void write_picture(const fs::path& path, const Picture& p) {
  std::ofstream out(path, std::ios::binary);
  out << "P6\n" << p.width << " " << p.height << "\n255\n";
  out.write(reinterpret_cast<const char*>(p.pixel.data()), std::streamsize(p.pixel.size()));
}

// A folder of its own, which goes with it.
struct Folder {
  fs::path path = fs::temp_directory_path() / ("moe-pictures-" + std::to_string(getpid()));
  Folder() {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

// One channel of 16 bits at 16 kHz.
void write_wav(const fs::path& path, int samples) {
  const auto number = [](std::uint32_t v, int bytes) {
    std::string out;
    for (int i = 0; i < bytes; ++i)
      out += char(v >> (8 * i) & 0xFF);
    return out;
  };
  std::ofstream out(path, std::ios::binary);
  const auto bytes = std::uint32_t(2 * samples);
  out << "RIFF" << number(36 + bytes, 4) << "WAVEfmt " << number(16, 4) << number(1, 2)
      << number(1, 2) << number(16000, 4) << number(32000, 4) << number(2, 2) << number(16, 2)
      << "data" << number(bytes, 4);
  for (int i = 0; i < samples; ++i)
    out << number(std::uint32_t((i * 397 + i / 50 * 1931) % 40000 - 20000), 2);
}

struct World {
  World(const std::string& family, const Json& changes)
      : made(changed(family, changes)), model(made) {}
  static test::Made changed(const std::string& family, const Json& changes) {
    test::Made made = test::made_model(family);
    if (changes.is_object())
      made.config.merge_patch(changes);
    return made;
  }
  Batch first(const std::string& spec, Index piece = 0) {
    const Corpus corpus(with_encoder({spec}, model.path(), 400), *tokenizer, 1);
    notes = corpus.info().notes;
    CHECK(corpus.split() == Split::valid);
    return corpus.valid({{0, piece}}, 512);
  }
  // The ids of text from row `from` to `to`.
  std::string text(const Batch& b, Index from, Index to) const {
    std::string out;
    for (Index t = from; t < to; ++t)
      out += char(b.token[std::size_t(t)]);
    return out;
  }
  test::Made made;
  test::MadeFolder model;
  std::unique_ptr<Tokenizer> tokenizer = make_tokenizer("bytes");
  std::vector<std::string> notes;
};

void write_clip(const fs::path& folder, int frames, int height, int width) {
  fs::create_directories(folder);
  for (int f = 0; f < frames; ++f) {
    Picture p = picture(height, width);
    for (std::uint8_t& v : p.pixel)
      v = std::uint8_t(v / 2 + 9 * f);
    write_picture(folder / (std::to_string(f + 1) + ".ppm"), p);
  }
}

}  // namespace

TEST_CASE("pictures with an encoder are sequences of its rows and their captions") {
  const Folder pictures;
  write_picture(pictures.path / "red_square-1.ppm", picture(12, 18));
  write_picture(pictures.path / "a_line.ppm", picture(6, 30));
  test::Made made = test::made_model("qwen3_vl_moe");
  made.config["vision_start_token_id"] = 300;
  made.config["vision_end_token_id"] = 301;
  made.config["image_token_id"] = 302;
  const test::MadeFolder model(made);
  write_json(model.path() / "preprocessor_config.json",
             {{"size", {{"shortest_edge", 36}, {"longest_edge", 400}}}});
  const auto tokenizer = make_tokenizer("bytes");
  const auto specs =
      with_encoder({concat("images:path=", pictures.path.native())}, model.path(), 400);
  const Corpus corpus(specs, *tokenizer, 1);
  CHECK(corpus.split() == Split::valid);
  CHECK(corpus.info().modalities);
  const Batch batch = corpus.valid({{0, 0}, {0, 1}}, 64);
  REQUIRE(batch.sequences() == 2);
  // the line: 6 x 30 pixels are 2 x 10 patches of 3, 5 rows; the square 4 x 6, 6 rows
  const std::string line = "a line";
  REQUIRE(batch.start[1] == Index(2 + 5 + 1 + line.size() + 1));
  CHECK(batch.token[0] == tokenizer->boundary());
  CHECK(batch.token[1] == 300);
  CHECK(batch.token[2] == 302);
  CHECK(batch.token[7] == 301);
  CHECK(batch.token[8] == 'a');
  CHECK(batch.target[6] == -1);
  CHECK(batch.target[7] == 'a');
  CHECK(batch.modality_of(1) == modality::text);
  CHECK(batch.modality_of(2) == modality::image);
  REQUIRE(batch.given.row.size() == 11);
  CHECK(batch.given.row.front() == 2);
  CHECK(batch.given.row[5] == batch.start[1] + 2);
  REQUIRE(batch.added.size() == 2);
  CHECK(batch.added[0].row == batch.given.row);
  // text behind a picture goes on behind its longer side
  REQUIRE(batch.position.cols() == batch.tokens());
  CHECK(batch.position(2, 6) == 2 + 4);
  CHECK(batch.position(0, 7) == 2 + 5);
  const auto backend = make_backend("cpu");
  const Towers<float> towers = open_towers<float>(model.path(), *backend);
  const PictureProcessor processor(towers.picture->patches(), towers.processor);
  const PatchRows<float> rows = processor.rows(picture(6, 30));
  const Matrix<float> features = towers.picture->encode(rows.row.view(), rows.grid).features;
  for (Index i = 0; i < features.size(); ++i)
    CHECK(batch.given.value.data()[i] == features.data()[i]);
}

TEST_CASE("a sound with an encoder is its rows between the ids of its start and end") {
  const Folder sounds;
  fs::create_directories(sounds.path / "birds");
  write_wav(sounds.path / "birds" / "a_call-3.wav", 263 * 160 + 71);
  write_wav(sounds.path / "birds" / "too short.wav", 170);
  std::ofstream(sounds.path / "birds" / "a_call-3.txt") << "chirp\n";
  World w("qwen3_omni_moe_thinker",
          {{"audio_token_id", 310}, {"audio_start_token_id", 311}, {"audio_end_token_id", 312}});
  const Batch b = w.first(concat("sounds:path=", sounds.path.native()));
  REQUIRE(w.notes.size() == 1);
  CHECK_THAT(w.notes[0], Catch::Matchers::Contains("too short.wav"));
  const Index rows = 13 + 13 + 8;  // two pieces of 100 frames, and 63
  REQUIRE(b.tokens() == 2 + rows + 1 + 5 + 1);
  CHECK(b.token[1] == 311);
  CHECK(b.token[2] == 310);
  CHECK(b.token[std::size_t(2 + rows)] == 312);
  CHECK(w.text(b, 3 + rows, 8 + rows) == "chirp");
  CHECK(b.modality_of(2) == modality::audio);
  CHECK(b.modality_of(2 + rows) == modality::text);
  CHECK(b.target[std::size_t(2 + rows)] == 'c');
  for (Index t = 0; t < b.tokens(); ++t) {
    for (Index axis = 0; axis < 3; ++axis)
      CHECK(b.position(axis, t) == t);
  }
  REQUIRE(b.grid.size() == 1);
  CHECK(b.grid[0] == SignalGrid{1, std::uint16_t(rows)});
  const auto backend = make_backend("cpu");
  const Towers<float> towers = open_towers<float>(w.model.path(), *backend);
  const Matrix<float> frames = SoundProcessor(10, w.model.path())
                                   .rows(read_sound(sounds.path / "birds" / "a_call-3.wav", 100));
  CHECK(frames.rows() == 263);
  const Matrix<float> want = towers.sound->encode({&frames, 1}).features;
  REQUIRE(want.size() == b.given.value.size());
  for (Index i = 0; i < want.size(); ++i)
    CHECK(b.given.value.data()[i] == want.data()[i]);
  // its first second alone, where that is asked for
  const Batch part = w.first(concat("sounds:path=", sounds.path.native(), ",seconds=1"));
  CHECK(part.given.row.size() == 13);
}

TEST_CASE("a model that hears nothing, or sees no clips, says so") {
  const Folder files;
  write_wav(files.path / "a.wav", 8000);
  World llama("llama4", {});
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(llama.first(concat("sounds:path=", files.path.native())),
                    Contains("llama4") && Contains("hears no sounds"));
  write_clip(files.path / "walk.clip", 2, 16, 16);
  CHECK_THROWS_WITH(llama.first(concat("images:path=", files.path.native())),
                    Contains("walk.clip") && Contains("sees pictures alone"));
}

TEST_CASE("frames of Qwen3-VL's clips are pictures with their seconds before them") {
  const Folder files;
  write_clip(files.path / "a_walk-1.clip", 5, 12, 18);
  World w("qwen3_vl_moe",
          {{"vision_start_token_id", 300}, {"vision_end_token_id", 301}, {"video_token_id", 303}});
  write_json(w.model.path() / "video_preprocessor_config.json",
             {{"size", {{"shortest_edge", 36}, {"longest_edge", 5000}}}});
  const Batch b = w.first(concat("images:path=", files.path.native(), ",fps=4"));
  // int(5 / 4 * 2) = 2, at least 4: frames 0, 1, 3, 4; two rows of 2 x 3 blocks of 6 pixels
  const std::string first = "<0.1 seconds>";
  const std::string second = "<0.9 seconds>";
  REQUIRE(b.tokens() == Index(1 + 2 * (first.size() + 1 + 6 + 1) + 6 + 1));
  CHECK(w.text(b, 1, 14) == first);
  CHECK(b.token[14] == 300);
  CHECK(b.token[15] == 303);
  CHECK(b.token[21] == 301);
  CHECK(w.text(b, 22, 35) == second);
  CHECK(w.text(b, 43, 49) == "a walk");
  CHECK(b.modality_of(15) == modality::video);
  CHECK(b.grid[0] == SignalGrid{2, 3});
  // each frame is a picture by its places: c, then c + 3 behind it
  CHECK(b.position(0, 15) == 15);
  CHECK(b.position(2, 17) == 17);
  CHECK(b.position(0, 18) == 15);
  CHECK(b.position(1, 18) == 16);
  CHECK(b.position(0, 21) == 18);
  CHECK(b.given.row.size() == 12);
  CHECK(b.added.size() == 2);
  CHECK(b.added[1].row == b.given.row);
}

TEST_CASE("a GIF of several frames is a clip that says how many are a second") {
  const Folder files;
  std::string gif("GIF89a\x01\0\x01\0\x80\0\0\x10\x20\x30\x40\x50\x60", 19);
  for (int f = 0; f < 4; ++f)  // one pixel, for half a second
    gif += std::string("!\xf9\x04\0\x32\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0", 23);
  std::ofstream(files.path / "a_walk.gif", std::ios::binary) << gif << ';';
  try {
    as_clip(files.path / "a_walk.gif");
  } catch (const Error& e) {
    CHECK(e.code() == Exit::environment);
    test::skip("built without giflib");
    return;
  }
  World w("qwen3_vl_moe",
          {{"vision_start_token_id", 300}, {"vision_end_token_id", 301}, {"video_token_id", 303}});
  write_json(w.model.path() / "video_preprocessor_config.json",
             {{"size", {{"shortest_edge", 36}, {"longest_edge", 5000}}}});
  const Batch b = w.first(concat("images:path=", files.path.native()));
  CHECK(w.text(b, 1, 14) == "<0.2 seconds>");
  CHECK(b.modality_of(15) == modality::video);
  CHECK(w.text(b, b.tokens() - 7, b.tokens() - 1) == "a walk");
  const Batch told = w.first(concat("images:path=", files.path.native(), ",fps=1"));
  CHECK(w.text(told, 1, 14) == "<0.5 seconds>");
}

TEST_CASE("clips of the other families: one video, pairs of frames, chunks") {
  const Folder files;
  write_clip(files.path / "walk.clip", 5, 12, 18);
  const std::string spec = concat("images:path=", files.path.native());
  World omni("qwen3_omni_moe_thinker", {{"vision_start_token_id", 300},
                                        {"vision_end_token_id", 301},
                                        {"position_id_per_seconds", 13},
                                        {"vision_config", {{"patch_size", 64}}},
                                        {"video_token_id", 303}});
  const Json bounds{{"size", {{"shortest_edge", 36}, {"longest_edge", 5000}}}};
  write_json(omni.model.path() / "video_preprocessor_config.json", bounds);
  const Batch heard = omni.first(spec);
  // all five frames, three pairs, 26 places apart at a frame a second; whatever the file says, at
  // least 131,072 pixels, which are 3 x 4 blocks of 128
  REQUIRE(heard.given.row.size() == 36);
  CHECK(heard.token[1] == 300);
  CHECK(heard.position(0, 2) == 2);
  CHECK(heard.position(0, 14) == 28);
  CHECK(heard.position(0, 38) == 2 + 52 + 1);
  CHECK_THROWS_WITH(omni.first(spec + ",fps=3"), Catch::Matchers::Contains("places apart"));
  World ernie("ernie4_5_vl_moe", {{"video_start_token_id", 300},
                                  {"video_end_token_id", 301},
                                  {"image_start_token_id", 304},
                                  {"image_end_token_id", 305}});
  write_json(ernie.model.path() / "video_preprocessor_config.json", bounds);
  const Batch paired = ernie.first(spec);
  REQUIRE(paired.given.row.size() == 18);
  CHECK(paired.token[1] == 300);
  CHECK(paired.modality_of(1) == modality::video);
  CHECK(paired.position(0, 2 + 17) == 2 + 2);
  CHECK(paired.position(0, 2 + 18) == 2 + 3);
  REQUIRE(ernie.notes.size() == 1);
  CHECK_THAT(ernie.notes[0], Catch::Matchers::Contains("draws the time"));
  const fs::path font = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";
  if (!fs::is_regular_file(font)) {
    test::skip("no DejaVuSans.ttf (package fonts-dejavu-core)");
    return;
  }
  // with its font, what is seen depends on when it was
  fs::copy_file(font, ernie.model.path() / "Roboto-Regular.ttf");
  const Batch timed = ernie.first(spec);
  CHECK(ernie.notes.empty());
  CHECK(timed.token == paired.token);
  CHECK_FALSE(timed.given.value == paired.given.value);
  const Batch faster = ernie.first(spec + ",fps=2");
  CHECK_FALSE(faster.given.value == timed.given.value);
  World kimi("kimi_k25", {});
  // at 2 frames a second all are looked at: four together, then one; blocks of 3 x 9 pixels
  const Batch chunks = kimi.first(spec + ",fps=2");
  const std::string before = "00:00:00.000<|media_begin|>video<|media_content|>";
  CHECK(kimi.text(chunks, 1, 1 + Index(before.size())) == before);
  const Index rows = Index(chunks.given.row.size());
  const Index each = rows / 2;
  const Index second = 1 + Index(before.size()) + each;
  CHECK(kimi.text(chunks, second, second + 13 + 12) == "<|media_end|>00:00:02.000");
}

TEST_CASE("tiles of Llama 4 stand between separators, and all of the picture behind them") {
  const Folder files;
  write_picture(files.path / "wide.ppm", picture(16, 32));
  write_picture(files.path / "small.ppm", picture(16, 16));
  World w("llama4",
          {{"boi_token_index", 300}, {"eoi_token_index", 301}, {"image_token_index", 302}});
  const Batch small = w.first(concat("images:path=", files.path.native()));
  // the tokenizer of bytes has none of the three ids, which is told
  CHECK(w.notes.size() == 3);
  CHECK(small.given.row.size() == 4);  // 4 x 4 patches, blocks of 2 x 2
  CHECK(small.token[1] == 300);
  CHECK(small.token[6] == 301);
  const Batch wide = w.first(concat("images:path=", files.path.native()), 1);
  CHECK(wide.given.row.size() == 12);
  CHECK(wide.grid[0] == SignalGrid{2, 2});
}

TEST_CASE("a picture of Aria fills the corner of a square that has a number of queries") {
  const Folder files;
  write_picture(files.path / "flat.ppm", picture(8, 16));
  World w("aria", {{"projector_patch_to_query_dict", {{"16", 5}, {"6", nullptr}}}});
  write_json(w.model.path() / "preprocessor_config.json",
             {{"max_image_size", 16}, {"min_image_size", 4}});
  const Batch b = w.first(concat("images:path=", files.path.native()));
  CHECK(b.given.row.size() == 5);
  const auto backend = make_backend("cpu");
  const Towers<float> towers = open_towers<float>(w.model.path(), *backend);
  const PictureProcessor processor(towers.picture->patches(), towers.processor);
  const PatchRows<float> rows = processor.rows(picture(8, 16));
  CHECK(rows.row.rows() == 8);  // the black half is left out
  const Matrix<float> want = towers.picture->encode(rows.row.view(), rows.grid).features;
  for (Index i = 0; i < want.size(); ++i)
    CHECK(b.given.value.data()[i] == want.data()[i]);
}
