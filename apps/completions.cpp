// moe completions SHELL: a script that lets a shell ask this program what may come next, so that
// what it offers is what the program has.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/completion_words.h"
#include "apps/values.h"
#include "lib/core/error.h"

namespace moe {
namespace {

constexpr std::string_view bash = R"sh(# bash completion for moe
_moe() {
  local line="${COMP_LINE:0:COMP_POINT}" words cur program candidate rest
  read -ra words <<< "$line"
  [[ "$line" == *" " ]] && words+=("")
  program="${words[0]}"
  cur="${words[-1]}"
  words=("${words[@]:1}")
  # the verb of moe-train is in its name
  [[ "${program##*/}" == moe-* ]] && words=("${program##*moe-}" "${words[@]}")
  # what bash takes for the beginning of the word: it breaks words at : and =
  local prefix="${cur%"${cur##*[:=]}"}"
  COMPREPLY=()
  while IFS=$'\t' read -r candidate rest; do
    if [[ "$candidate" == :files ]]; then
      compopt -o filenames 2> /dev/null
      while read -r candidate; do
        COMPREPLY+=("$candidate")
      done < <(compgen -f -- "${cur##*[:=]}")
      continue
    fi
    [[ "$candidate" == *[:=,] ]] && compopt -o nospace 2> /dev/null
    COMPREPLY+=("${candidate#"$prefix"}")
  done < <(command moe completions words -- "${words[@]}" 2> /dev/null)
}
complete -F _moe moe moe-train moe-trace moe-report
)sh";

constexpr std::string_view zsh = R"sh(#compdef moe moe-train moe-trace moe-report
_moe() {
  local -a asked plain open
  local line candidate about
  asked=("${(@)words[2,CURRENT]}")
  [[ "${words[1]:t}" == moe-* ]] && asked=("${${words[1]:t}#moe-}" "${asked[@]}")
  while IFS=$'\t' read -r candidate about; do
    if [[ "$candidate" == :files ]]; then
      _files
    elif [[ "$candidate" == *[:=,] ]]; then
      open+=("$candidate")
    else
      plain+=("${candidate//:/\\:}${about:+:$about}")
    fi
  done < <(command moe completions words -- "${asked[@]}" 2> /dev/null)
  (( ${#open} )) && compadd -S '' -a open
  (( ${#plain} )) && _describe moe plain
}
if [[ "${funcstack[1]}" == _moe ]]; then
  _moe "$@"
else
  compdef _moe moe moe-train moe-trace moe-report
fi
)sh";

constexpr std::string_view fish = R"sh(# fish completion for moe
function __moe_candidates
    set -l asked (commandline -opc)
    set -l program (path basename $asked[1])
    set -e asked[1]
    if string match -q 'moe-*' -- $program
        set asked (string replace 'moe-' '' -- $program) $asked
    end
    set -l word (commandline -ct)
    for line in (command moe completions words -- $asked "$word" 2> /dev/null)
        if test "$line" = :files
            __fish_complete_path "$word"
        else
            echo $line
        end
    end
end
for name in moe moe-train moe-trace moe-report
    complete -c $name -f -a '(__moe_candidates)'
end
)sh";

// The first sentence or so; a tab parts it from the word.
std::string in_brief(const std::string& about) {
  return about.substr(0, about.find_first_of(";:\n"));
}

struct Options {
  std::string shell;
  std::vector<std::string> words;
};

int completions(const Options& o, const CommandLine& cli) {
  if (o.shell != "words" && !o.words.empty()) {
    throw Error(Exit::usage, concat("'", o.words[0], "' is one word too many"))
        .hint("moe completions " + o.shell);
  }
  if (o.shell == "words") {
    for (const Candidate& c : candidates(*cli.app().get_parent(), o.words))
      fmt::print("{}{}{}\n", c.word, c.about.empty() ? "" : "\t", in_brief(c.about));
    return 0;
  }
  fmt::print("{}", o.shell == "bash" ? bash : o.shell == "zsh" ? zsh : fish);
  return 0;
}

}  // namespace

Run completions_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("shell", o->shell,
                 "bash, zsh or fish: its script; words: what may come next on a command line")
      .required()
      .check(one_of({"bash", "zsh", "fish", "words"}));
  cli.add_option("typed", o->words,
                 "with words, behind --: the words of the command line, the last one unfinished");
  return [o, cli] {
    return completions(*o, cli);
  };
}

}  // namespace moe
