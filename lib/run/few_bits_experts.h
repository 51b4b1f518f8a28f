// Training on a base whose experts are in few bits: they stay as their file holds them, frozen, and
// checkpoints hold the same bytes of them. Everything else is in memory and may train.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "lib/checkpoint/quant/few_bits.h"
#include "lib/model/trainer.h"
#include "lib/run/run_folder.h"

namespace moe {

// Bytes of experts in the files of a checkpoint, where some of them are in few bits and a backend
// of this kind leaves them so; else 0. Of a GGUF file 0: training widens it to f32.
double few_bits_bytes(const std::filesystem::path& checkpoint, const std::string& device);

// Throws Error(usage) where experts would train, or be shared out among ranks, whose bytes in few
// bits those of `checkpoint` are.
void refuse_few_bits(const std::filesystem::path& checkpoint, const TrainOptions&,
                     const RankOptions&);

// The model of a checkpoint to train on: experts_as_stored where they are in few bits, else all of
// it in memory.
LoadedModel load_to_train(const std::filesystem::path& checkpoint, Backend<float>&);

// Puts what the file has in the place of experts that are made when read. Returns the formats by
// tensor; none where the model has no such experts.
std::map<std::string, FewBitsFormat> keep_few_bits(Decoder<float>&, const std::string& family,
                                                   std::vector<NamedTensor>& tensors);

}  // namespace moe
