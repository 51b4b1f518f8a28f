// Files of pictures as sequences of a published model: the rows that its encoder gives, and
// captions.
#include <unistd.h>
#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "datasets/dataset.h"
#include "lib/files/json.h"
#include "lib/tower/processor.h"
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
