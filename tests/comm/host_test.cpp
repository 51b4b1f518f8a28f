// What ranks on one host share.
#include <sys/wait.h>
#include <unistd.h>
#include <catch2/catch.hpp>

#include "lib/comm/host.h"
#include "lib/core/text.h"

using namespace moe;

TEST_CASE("ranks share out the cores that several of them may use") {
  const RankCores all{"a", {0, 1, 2, 3, 4, 5, 6, 7}};
  CHECK(threads_of({all, all}, 0) == 4);
  CHECK(threads_of({all, all, all}, 2) == 2);
  // each bound to a core, or to a half
  CHECK(threads_of({{"a", {0}}, {"a", {1}}}, 1) == 1);
  const std::vector<RankCores> halves = {
      {"a", {0, 1, 2, 3}}, {"a", {4, 5, 6, 7}}, {"a", {0, 1, 2, 3}}, {"b", {0, 1, 2, 3}}};
  CHECK(threads_of(halves, 0) == 2);
  CHECK(threads_of(halves, 1) == 4);
  CHECK(threads_of(halves, 3) == 4);
  CHECK(cores_used(halves, 0) == 8);
  CHECK(cores_used(halves, 3) == 4);
  CHECK(threads_of({{"a", {}}}, 0) == 1);
  const RankCores here = cores_here();
  CHECK(!here.cores.empty());
  CHECK(RankCores::of_text(here.text()).cores == here.cores);
  CHECK(RankCores::of_text(here.text()).host == here.host);
}

namespace {

// Another process of the job says it.
bool child_is_first(const std::string& sentence) {
  const pid_t child = ::fork();
  if (child == 0)
    ::_exit(first_to_say(sentence) ? 1 : 0);
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status) == 1;
}

}  // namespace

TEST_CASE("of the processes of a job on a host one says a sentence") {
  ::setenv("PMIX_NAMESPACE", concat("test of process ", ::getpid()).c_str(), 1);
  CHECK(child_is_first("rank 0 has waited 3 s"));
  CHECK(!is_said("rank 0 has waited 3 s"));
  CHECK(first_to_say("rank 0 has waited 3 s"));  // that child is gone
  CHECK(is_said("rank 1 has waited 3 s"));
  CHECK(!child_is_first("rank 0 has waited 3 s"));
  CHECK(!child_is_first("rank 11 has waited 300 s"));
  CHECK(child_is_first("rank 0 has no memory"));
  ::setenv("PMIX_NAMESPACE", concat("another of process ", ::getpid()).c_str(), 1);
  CHECK(child_is_first("rank 0 has waited 3 s"));
  ::unsetenv("PMIX_NAMESPACE");
}
