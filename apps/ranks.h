// The ranks of a run as the program sees them: opened by the verbs that run on several, silent but
// for the first, and ended together whatever happens on one.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/command_line.h"
#include "lib/backend/backend.h"
#include "lib/core/comm.h"

namespace moe {

template <class S>
class Decoder;

struct RankChoices {
  double patience = Comm::default_patience;  // seconds
  std::optional<CommandLine> verb;           // whose options all ranks must have alike
};
void add_patience(CommandLine&, RankChoices&);

// The ranks that a launcher started with this one, or one rank alone. From here on only rank 0
// speaks. For verbs that run on several. Throws Error(environment) where a rank was started with
// another program or other options, but for those that may be each rank's own.
Comm& open_ranks(const RankChoices&);
// Throws Error(usage) where a launcher started several processes and this is to run on one.
void refuse_ranks(const std::string& what);
// The same for a model whose router replays a trace, token by token.
void refuse_ranks_to_replay(Decoder<float>&);

// On which node each rank is: that of its host's name; or with `nodes` > 0 the ranks that share
// experts out, `ep` of them, stand on so many in order, as many on each. All ranks call this.
// Throws Error(usage) where they cannot.
std::vector<int> nodes_of_ranks(Comm&, int ep, int nodes);

// How many of the ranks are on this host. After open_ranks().
int ranks_here();
// How many threads a rank takes where nobody said so: ranks that may use the same cores share them
// out. After open_ranks().
void share_threads();

// A device that has several of its kind, as "cuda", is each rank's own where the spec does not say
// which: the first for the first rank of a host, and so on.
std::string device_of_rank(const std::string& spec);
// From here on rows of experts cross from GPU to GPU, where each rank has one of its own. All ranks
// call this; returns what the user should know where they do not.
std::string carry_rows_on_devices(Backend<float>&, const std::string& spec);
// Before that backend goes: no exchange comes after it.
void leave_devices();

// "rank 2: " under a launcher of several, for the sentences of errors; "" alone.
std::string rank_prefix();
// " (step 12, at exchange 411, 'rows to experts' of layer 2)" where several ranks are in a step
// and the sentence does not name it; else "".
std::string reached_by_rank(std::string_view sentence);
// Whether this process prints what each would: it is the first, or alone.
bool speaks_for_all();
// Whether this process is to say an error: what several ranks of a host find is said by one, the
// first where it is among them.
bool says_error(const std::string& sentence);
// The end of a process of several: with an error it ends all the others, with this exit code.
void finish_ranks();
void abort_ranks(int code);

// Whether any rank was asked to stop; then every rank is.
bool stop_together(Comm&);

}  // namespace moe
