// `images:...,encoder=MODEL`: pictures and clips as the encoder of a published model gives them to
// its language model, with the texts and ids that its processor writes around them.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "datasets/encoded.h"
#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/signal/clip_file.h"
#include "lib/signal/picture_file.h"
#include "lib/tower/clip_processor.h"
#include "lib/tower/processor.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

// What Kimi's processor writes around a chunk of a clip.
constexpr const char* chunk_before = "<|media_begin|>video<|media_content|>";
constexpr const char* chunk_behind = "<|media_end|>";

bool is_seen(const fs::path& path) {
  return is_picture_name(path) || is_clip_name(path);
}

// "00:01:02.500"
std::string clock_time(double seconds) {
  const auto whole = Index(seconds);
  return fmt::format("{:02}:{:02}:{:02}.{:03}", whole / 3600 % 24, whole / 60 % 60, whole % 60,
                     int(std::fmod(seconds, 1) * 1000));
}

class EncodedImages final : public EncodedFiles {
 public:
  EncodedImages(Spec& spec, const Tokenizer& tokenizer)
      : EncodedFiles(spec, tokenizer, "images", "picture"), encoder_(spec.get("encoder", "")) {
    given_rate_ = spec.get("fps", 0.0, 0.0);
    spec.done();
    info_.spec = spec.resolved();
    if (!towers().picture) {
      throw Error(Exit::usage,
                  concat("the encoder of '", encoder_, "' (", towers().family, ") sees nothing"))
          .hint("sounds:path=FOLDER");
    }
    processor_.emplace(towers().picture->patches(), towers().processor);
    if (towers().clips.style != ClipStyle::none)
      clips_.emplace(towers().picture->patches(), towers().clips);
    whole_ = words(towers().tile_words.whole);
    across_ = words(towers().tile_words.across);
    down_ = words(towers().tile_words.down);
    read_files(is_seen);
    if (has_clips_ && clips_ && !clips_->missing_font().empty()) {
      add_note(concat("this model's processor draws the time into every frame with the font ",
                      clips_->missing_font(),
                      ", which is not in the model's folder: frames are read without it"));
    }
  }

 private:
  // Ids of a text that the tokenizer must know as one; empty where the family writes none.
  TokenIds words(const std::string& text) {
    if (text.empty())
      return {};
    TokenIds ids = special_ids(text);
    if (ids.size() == 1)
      return ids;
    add_note(concat("the tokenizer has no id for ", text, ", which is left out"));
    return {};
  }
  Layout layout_of(const fs::path& path) override {
    const std::optional<ClipFile> clip = as_clip(path);
    if (!clip)
      return layout_of_picture(path);
    has_clips_ = true;
    return layout_of_clip(*clip, path);
  }
  TowerOutput<float> encoded(const fs::path& path) const override;
  Layout layout_of_picture(const fs::path&) const;
  Layout layout_of_clip(const ClipFile&, const fs::path&) const;
  Layout stamped(const std::vector<int>& chosen, const PictureGrid&, double a_second) const;
  Layout chunked(const std::vector<int>& chosen, const std::vector<PictureGrid>&,
                 double a_second) const;
  Layout video(const PictureGrid&, double a_second) const;
  void check_clip(const ClipFile&, const fs::path&) const;
  double rate_of(const ClipFile&) const;

  Run made_run(const PictureGrid& g, std::uint8_t kind) const {
    return {.kind = kind,
            .made = towers().picture->rows_of(g),
            .place = {.picture = true, .times = g.times, .rows = g.rows, .columns = g.columns}};
  }
  std::uint8_t frame_kind(std::uint8_t kind) const {
    return towers().frame_routes ? kind : std::uint8_t(modality::text);
  }

  std::string encoder_;
  std::optional<PictureProcessor> processor_;
  std::optional<ClipProcessor> clips_;
  double given_rate_ = 0;  // frames of a clip in a second, of `fps=`
  TokenIds whole_, across_, down_;
  bool has_clips_ = false;
};

EncodedImages::Layout EncodedImages::layout_of_picture(const fs::path& path) const {
  const Picture picture = read_picture(path);
  const PictureSize size{picture.height, picture.width};
  const std::vector<PictureGrid> grids = processor_->grids(size);
  const TileGrid tiles = processor_->tiles(size);
  const std::uint8_t kind = modality::image;
  Layout out{text_run(towers().before, frame_kind(kind))};
  std::size_t n = 0;
  for (int row = 0; row < tiles.rows && tiles.count() > 1; ++row) {
    for (int column = 0; column < tiles.columns; ++column) {
      out.push_back(made_run(grids[n++], kind));
      if (column + 1 < tiles.columns)
        out.push_back(text_run(across_));
    }
    out.push_back(text_run(down_));
  }
  out.push_back(text_run(whole_));
  for (; n < grids.size(); ++n)
    out.push_back(made_run(grids[n], kind));
  out.push_back(text_run(towers().behind, frame_kind(kind)));
  return out;
}

void EncodedImages::check_clip(const ClipFile& clip, const fs::path& path) const {
  if (!clips_) {
    throw Error(Exit::input, concat(in_quotes(path), " is a clip, and the encoder of '", encoder_,
                                    "' (", towers().family, ") sees pictures alone"))
        .hint(
            "pictures, or a model that sees clips: qwen3_vl_moe, qwen3_omni_moe, "
            "ernie4_5_vl_moe, kimi_k25");
  }
  if (clip.frames() < 2) {
    throw Error(Exit::input, concat(in_quotes(path), " has one frame"))
        .hint("a picture of its own in place of the clip");
  }
}

// How many frames are a second: as told, else as the file says, else the family's own idea. Where
// places in time follow from the rate (`timed`), the processor takes its own whatever the file
// says.
double EncodedImages::rate_of(const ClipFile& clip) const {
  if (given_rate_ > 0)
    return given_rate_;
  const bool asks = clips_->rule().style != ClipStyle::timed && clip.frames_a_second() > 0;
  return asks ? clip.frames_a_second() : towers().clips.clip_rate;
}

EncodedImages::Layout EncodedImages::layout_of_clip(const ClipFile& clip,
                                                    const fs::path& path) const {
  check_clip(clip, path);
  const double a_second = rate_of(clip);
  const std::vector<int> chosen = clips_->chosen(clip.frames(), a_second);
  const std::vector<PictureGrid> grids = clips_->grids(int(chosen.size()), clip.size());
  if (clips_->rule().style == ClipStyle::stamped)
    return stamped(chosen, grids[0], a_second);
  if (clips_->rule().style == ClipStyle::chunked)
    return chunked(chosen, grids, a_second);
  return video(grids[0], a_second);
}

// Each frame of the encoder is a picture, and how many seconds from the start it is stands before
// it.
EncodedImages::Layout EncodedImages::stamped(const std::vector<int>& chosen, const PictureGrid& g,
                                             double a_second) const {
  Layout out;
  const int together = towers().picture->patches().times;
  const PictureGrid frame{1, g.rows, g.columns};
  for (int t = 0; t < g.times; ++t) {
    const double seconds = clips_->seconds_between(chosen, t * together, together, a_second);
    out.push_back(text_run(special_ids(fmt::format("<{:.1f} seconds>", seconds))));
    out.push_back(text_run(towers().clip_before));
    out.push_back(made_run(frame, modality::video));
    out.push_back(text_run(towers().clip_behind));
  }
  return out;
}

EncodedImages::Layout EncodedImages::chunked(const std::vector<int>& chosen,
                                             const std::vector<PictureGrid>& grids,
                                             double a_second) const {
  Layout out;
  int first = 0;
  for (const PictureGrid& g : grids) {
    const double seconds = clips_->seconds_between(chosen, first, 1, a_second);
    out.push_back(text_run(special_ids(clock_time(seconds) + chunk_before)));
    out.push_back(made_run(g, modality::video));
    out.push_back(text_run(special_ids(chunk_behind)));
    first += g.times;
  }
  return out;
}

EncodedImages::Layout EncodedImages::video(const PictureGrid& g, double a_second) const {
  const std::uint8_t kind = modality::video;
  Run rows = made_run(g, kind);
  rows.place.times = int(rows.made * towers().picture->patches().multiple *
                         towers().picture->patches().multiple / g.area());
  if (clips_->rule().style == ClipStyle::timed) {
    const double step =
        towers().picture->patches().times / a_second * clips_->rule().places_a_second;
    if (std::abs(step - std::nearbyint(step)) > 1e-6 || step < 1 || step > 1e6) {
      throw Error(Exit::input, concat("at fps=", a_second, " frames are ", step,
                                      " places apart, and places are whole numbers here"))
          .hint("fps=1, or another that divides position_id_per_seconds of config.json");
    }
    rows.place.time_step = int(std::nearbyint(step));
    rows.place.behind_time = true;
  }
  return {text_run(towers().clip_before, frame_kind(kind)), rows,
          text_run(towers().clip_behind, frame_kind(kind))};
}

TowerOutput<float> EncodedImages::encoded(const fs::path& path) const {
  PatchRows<float> patches;
  if (const std::optional<ClipFile> clip = as_clip(path)) {
    const double a_second = rate_of(*clip);
    const std::vector<int> chosen = clips_->chosen(clip->frames(), a_second);
    std::vector<Picture> frames = clip->read(chosen);
    clips_->write_times(frames, chosen, a_second);
    patches = clips_->rows(frames);
  } else {
    patches = processor_->rows(read_picture(path));
  }
  return towers().picture->encode(patches.row.view(), patches.grid);
}

}  // namespace

// Encoders of this model read what images: and sounds: name, unless the spec says how rows are cut,
// which is for models that read them themselves.
std::vector<std::string> with_encoder(const std::vector<std::string>& specs, const fs::path& model,
                                      int vocabulary) {
  const fs::path config = model / "config.json";
  std::error_code code;
  const bool there =
      fs::is_regular_file(config, code) && has_towers(read_json(config, {.python_words = true}));
  std::vector<std::string> out;
  for (const std::string& text : specs) {
    Spec spec(text);
    const bool pictures = spec.name() == "images" && !spec.has("size") && !spec.has("patch");
    const bool sounds = spec.name() == "sounds" && !spec.has("bands") && !spec.has("join");
    const bool ours = there && (pictures || sounds);
    if (ours && !spec.has("encoder"))
      spec.set("encoder", model.native());
    if (ours && !spec.has("vocabulary"))
      spec.set("vocabulary", concat(vocabulary));
    out.push_back(ours ? spec.given_text() : text);
  }
  return out;
}

std::unique_ptr<Dataset> make_encoded_images(Spec& spec, const Tokenizer& tokenizer) {
  return std::make_unique<EncodedImages>(spec, tokenizer);
}

}  // namespace moe
