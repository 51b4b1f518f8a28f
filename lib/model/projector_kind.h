// How a model makes vectors of rows of numbers: one product, or two with biases and GELU between
// them (LLaVA's name for it).
#pragma once

namespace moe {

enum class ProjectorKind { linear, mlp2x_gelu };

}  // namespace moe
