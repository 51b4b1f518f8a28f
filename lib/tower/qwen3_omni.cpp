// The thinker of Qwen3-Omni: pictures and videos as in Qwen3-VL, and sounds. In a whole checkpoint
// its settings are in thinker_config and its tensors begin with "thinker.".
#include "lib/tower/families.h"
#include "lib/tower/qwen3_visual.h"
#include "lib/tower/settings.h"
#include "lib/tower/sound_encoder.h"

namespace moe {

template <class S>
Towers<S> qwen3_omni_towers(const TowerConfig& whole, TowerTensors<S>& t) {
  const ConfigReader c =
      whole.root.has("thinker_config") ? whole.root.in("thinker_config") : whole.root;
  Towers<S> out;
  out.placeholder.picture = id_in(c, "image_token_id", 151655);
  out.placeholder.video = id_in(c, "video_token_id", 151656);
  out.placeholder.sound = id_in(c, "audio_token_id", 151646);
  ids_around(c, "vision_start_token_id", "vision_end_token_id", out.before, out.behind);
  out.clip_before = out.before;
  out.clip_behind = out.behind;
  ids_around(c, "audio_start_token_id", "audio_end_token_id", out.sound_before, out.sound_behind);
  out.three_axes = true;
  out.processor = {.folder = whole.folder};
  out.clips = {.style = ClipStyle::timed,
               .pixels = {.mean = clip_mean, .deviation = clip_deviation},
               .clip_rate = 1,
               .most_frames = 1 << 20,
               .fewest_pixels = 32 * 32 * 128,
               .most_pixels = 32 * 32 * 768,
               .places_a_second = c.real("position_id_per_seconds", 25),
               .folder = whole.folder};
  const Index width = text_width(c);
  const std::string at = t.beginning({"", "thinker."}, "visual.patch_embed.proj.weight");
  t.part("vision encoder");
  const MergerNames names{"merger_list", "ln_q", "mlp.0", "mlp.2"};
  out.picture = std::make_unique<QwenPictures<S>>(object_in(c, "vision_config"), t, at + "visual.",
                                                  names, width);
  t.part("sound encoder");
  out.sound = std::make_unique<SoundEncoder<S>>(object_in(c, "audio_config"), t,
                                                at + "audio_tower.", width);
  return out;
}
MOE_TOWER_FAMILY(qwen3_omni_towers)

}  // namespace moe
