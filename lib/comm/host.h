// What ranks on one host share: its cores, and the eyes of whoever reads what they say.
#pragma once
#include <string>
#include <vector>

namespace moe {

// The cores that a rank may use, and its host.
struct RankCores {
  std::string host;
  std::vector<int> cores;

  std::string text() const;  // "host 0 1 2", for other ranks
  static RankCores of_text(const std::string&);
};
RankCores cores_here();

// Threads for a rank: its cores, shared out evenly among the ranks that may use one of them.
int threads_of(const std::vector<RankCores>& ranks, int rank);
// How many different cores the ranks of that rank's host may use.
int cores_used(const std::vector<RankCores>& ranks, int rank);
// How many Open MPI's mpirun may use, which binds what it starts; 0 where another one did.
int cores_of_launcher();

// Whether no other process of the job on this host has said this sentence, whatever numbers are in
// it; from now on this one has, until it ends. True where that cannot be known.
bool first_to_say(const std::string& sentence);
// Whether another one has, and lives.
bool is_said(const std::string& sentence);

}  // namespace moe
