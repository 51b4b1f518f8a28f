// What the configurations of several towers say in the same words.
#pragma once
#include <string>

#include "lib/tower/encoder.h"
#include "lib/tower/tower.h"

namespace moe {

// The object inside, or an empty one where it is missing: then every setting is the class's own.
ConfigReader object_in(const ConfigReader&, const char* key);
// From 1; throws Error(input) for anything else.
int size_in(const ConfigReader&, const char* key, int fallback);
// Number, or a list of equal numbers: [14, 14].
int side_in(const ConfigReader&, const char* key, int fallback);
// rope_parameters.rope_theta, or rope_theta. Throws Error(input) for another kind of rotation than
// `type`, and for a head_dim that is not hidden size / heads.
double vision_theta(const ConfigReader&, const std::string& type, const EncoderShape&);
std::optional<int> id_in(const ConfigReader&, const char* key, std::optional<int> fallback);
// The ids of these keys, where both are there.
void ids_around(const ConfigReader&, const char* before_key, const char* behind_key,
                std::vector<int>& before, std::vector<int>& behind);
// A number of layers of `all`, as the index of an output: 0 is what goes into the first, -1 what
// comes out of the last.
int layers_in(const ConfigReader&, const char* key, int all);
// hidden_size of text_config
Index text_width(const ConfigReader& root);

// Mean and deviation of the pixels that CLIP was trained on (OpenAI).
inline const std::vector<double> clip_mean{0.48145466, 0.4578275, 0.40821073};
inline const std::vector<double> clip_deviation{0.26862954, 0.26130258, 0.27577711};
// Throws Error(input) where x has not as many rows as the grids have patches, or of another width,
// or a video goes into a tower of pictures.
template <class S>
void check_rows(View<const S> x, std::span<const PictureGrid>, const TowerPatches&);

}  // namespace moe
