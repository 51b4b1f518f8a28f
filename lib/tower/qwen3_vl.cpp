// Qwen3-VL: its encoder of pictures and videos stands under model.visual.
#include "lib/tower/families.h"
#include "lib/tower/qwen3_visual.h"
#include "lib/tower/settings.h"

namespace moe {

template <class S>
Towers<S> qwen3_vl_towers(const TowerConfig& c, TowerTensors<S>& t) {
  Towers<S> out;
  out.placeholder.picture = id_in(c.root, "image_token_id", 151655);
  out.placeholder.video = id_in(c.root, "video_token_id", 151656);
  ids_around(c.root, "vision_start_token_id", "vision_end_token_id", out.before, out.behind);
  out.clip_before = out.before;
  out.clip_behind = out.behind;
  out.three_axes = true;
  out.processor = {.fewest_pixels = 256 * 256, .most_pixels = 4096 * 4096, .folder = c.folder};
  out.clips = {.style = ClipStyle::stamped,
               .rate = 2,
               .fewest_frames = 4,
               .most_frames = 768,
               .fewest_pixels = 32 * 32 * 128,
               .most_pixels = 32 * 32 * 768,
               .folder = c.folder};
  t.part("vision encoder");
  const std::string at = t.beginning({"model.visual.", "visual."}, "patch_embed.proj.weight");
  const MergerNames names{"deepstack_merger_list", "norm", "linear_fc1", "linear_fc2"};
  out.picture = std::make_unique<QwenPictures<S>>(object_in(c.root, "vision_config"), t, at, names,
                                                  text_width(c.root));
  return out;
}
MOE_TOWER_FAMILY(qwen3_vl_towers)

}  // namespace moe
