#include "tools/eval/options.h"

#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <string_view>

#include "models/sparse/sparse_registry.h"
#include "tools/eval/task_registry.h"

namespace spin::eval {
namespace {

// One flag; a switch has no `value`.
struct Flag {
  std::string name;
  std::string value;
  std::string help;
  std::function<absl::Status(Options&, const std::string&)> set;
};

template <typename T>
absl::Status ParseNumber(std::string_view text, int64_t low, int64_t high, T& out) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < low || value > high) {
    return InvalidArgument("'%s' is not a number from %d to %d", text, low, high);
  }
  out = static_cast<T>(value);
  return absl::OkStatus();
}

template <typename T>
Flag Number(const char* name, const char* help, T Options::*field, int64_t low, int64_t high) {
  return {name, "N", help, [=](Options& options, const std::string& value) {
            return ParseNumber(value, low, high, options.*field);
          }};
}

std::vector<std::string> Pieces(const std::string& value) {
  return absl::StrSplit(value, ',', absl::SkipEmpty());
}

Flag Names(const char* name, const char* help, std::vector<std::string> Options::*field) {
  return {name, "LIST", help, [=](Options& options, const std::string& value) {
            options.*field = Pieces(value);
            return absl::OkStatus();
          }};
}

// Sets the booleans that the list names, and clears the others. "none" names none.
struct Choice {
  const char* name;
  bool Options::*field;
};
absl::Status Choose(Options& options, std::span<const Choice> choices, const std::string& value) {
  for (const Choice& choice : choices) options.*choice.field = false;
  std::vector<std::string> known;
  for (const Choice& choice : choices) known.emplace_back(choice.name);
  for (const std::string& piece : Pieces(value)) {
    if (piece == "none") continue;
    const auto found = std::find_if(choices.begin(), choices.end(),
                                    [&](const Choice& choice) { return piece == choice.name; });
    if (found == choices.end()) {
      return InvalidArgument("'%s' is none of %s", piece, absl::StrJoin(known, ", "));
    }
    options.*found->field = true;
  }
  return absl::OkStatus();
}

constexpr Choice kMeasures[] = {{"kl", &Options::kl},
                                {"recall", &Options::recall},
                                {"greedy", &Options::greedy},
                                {"tasks", &Options::tasks}};
constexpr Choice kControls[] = {
    {"exact", &Options::exact}, {"window", &Options::window}, {"oracle", &Options::oracle}};

absl::Status SetBudgets(Options& options, const std::string& value) {
  options.budgets.clear();
  options.own_budget = false;
  for (const std::string& piece : Pieces(value)) {
    if (piece == "auto") {
      options.own_budget = true;
      continue;
    }
    int32_t budget = 0;
    SPIN_RETURN_IF_ERROR(ParseNumber(piece, 1, 1 << 30, budget));
    options.budgets.push_back(budget);
  }
  std::sort(options.budgets.begin(), options.budgets.end());
  const bool none = options.budgets.empty() && !options.own_budget;
  return none ? InvalidArgument("no budget") : absl::OkStatus();
}

std::vector<Flag> MakeFlags() {
  using O = Options;
  return {
      {"measure", "LIST", "of kl, recall, greedy, tasks [all]",
       [](O& options, const std::string& value) { return Choose(options, kMeasures, value); }},
      Names("algorithms", "sparse algorithms [all that the model can have]", &O::algorithms),
      {"controls", "LIST", "of exact, window, oracle; or none [all]",
       [](O& options, const std::string& value) { return Choose(options, kControls, value); }},
      {"budgets", "LIST", "tokens that a step may attend to, or auto [256,512,1024]", SetBudgets},
      Number("context", "tokens of a document, and of a task's prompt [2048]", &O::context, 32,
             1 << 24),
      Number("documents", "for kl, recall and greedy [4]", &O::documents, 1, 1 << 16),
      {"text", "FILE", "where documents and haystacks come from [made up]",
       [](O& options, const std::string& value) {
         options.text = value;
         return absl::OkStatus();
       }},
      Number("forced", "last tokens of a document that go through decode steps [128]", &O::forced,
             1, 1 << 20),
      Number("recall-steps", "of those steps, how many recall is measured in [4]", &O::recall_steps,
             1, 1 << 20),
      Number("greedy-tokens", "most tokens of a free run [64]", &O::greedy_tokens, 1, 1 << 20),
      Names("tasks", "see below [all that suit the model]", &O::task_names),
      Number("samples", "of each task [4]", &O::samples, 1, 1 << 16),
      Number("batch", "sequences of one decode step [4]", &O::batch, 1, 256),
      Number("seed", "of prose, documents and tasks [1]", &O::seed, 0, 1 << 23),
      {"json", "FILE", "write the result, for tools/eval_plot.py",
       [](O& options, const std::string& value) {
         options.json = value;
         return absl::OkStatus();
       }},
      {"per-layer", "", "print recall layer by layer, too",
       [](O& options, const std::string&) {
         options.per_layer = true;
         return absl::OkStatus();
       }},
      {"help", "", "this text", [](O& options, const std::string&) {
         options.help = true;
         return absl::OkStatus();
       }}};
}

absl::Status CheckTogether(const Options& options) {
  if (!options.kl && !options.recall && !options.greedy && !options.tasks) {
    return InvalidArgument("--measure: nothing to measure");
  }
  if ((options.kl || options.recall) && options.forced >= options.context) {
    return InvalidArgument("--forced %d must be less than --context %d", options.forced,
                           options.context);
  }
  if (options.recall_steps > options.forced) {
    return InvalidArgument("--recall-steps %d: there are only --forced %d steps",
                           options.recall_steps, options.forced);
  }
  if (options.greedy && options.greedy_tokens >= options.context) {
    return InvalidArgument("--greedy-tokens %d must be less than --context %d",
                           options.greedy_tokens, options.context);
  }
  return absl::OkStatus();
}

constexpr const char* kHelpHead = R"(usage: spin_eval --model FOLDER [flags] [flags of spind]

What a sparse algorithm costs in quality, at each budget, against dense attention on the same model. The
executor runs in this process; no server is needed. Every figure comes from decode steps: prefill is dense
under every algorithm.

Measures:
  kl      The last tokens of each document go through decode steps whatever the model would have said
          (teacher forcing). KL(dense || sparse) of the next token, in nats: mean and 99th percentile; how
          often the most probable token is the same; overlap of the five most probable; perplexity on the
          document's own tokens, as a ratio to dense.
  recall  Share of the true attention that falls on the selected pages (mass), the same of the best pages
          of that number (the oracle's), and how many of those best pages were selected (overlap).
  greedy  Free-running greedy decoding: tokens until the first difference, length beside dense's.
  tasks   Questions with known answers, scored as RULER does: the share of the references that occur in the
          answer. The testbed's answers must be right to the token.

A budget of auto is what the algorithm attends to at this context when sparse.budget_tokens is not set.

Controls stand between the algorithms, at the page size and the budgets of the first of them:
  exact   the algorithm with every page selected: no difference is allowed
  window  the first page and the last ones: the floor
  oracle  the pages with the most true attention: the ceiling of any selection

Examples:
  spin_eval --model FOLDER                                       # everything, at contexts of 2048
  spin_eval --model FOLDER --measure kl --budgets 128,256,512,1024 --context 4096 --text BOOK.txt
  spin_eval --model FOLDER --measure tasks --tasks niah_single_2,vt --samples 20 --controls none
  spin_eval --model FOLDER --algorithms quest --json quest.json --set backend.device=cuda
  tools/eval_plot.py --output quality.svg quest.json             # accuracy over the budget

Flags:
)";

}  // namespace

absl::StatusOr<Options> ParseOptions(std::span<const std::string> args) {
  const std::vector<Flag> flags = MakeFlags();
  Options options;
  for (size_t i = 0; i < args.size(); ++i) {
    const size_t equals = args[i].find('=');
    const std::string name = args[i].substr(0, equals);
    const auto flag = std::find_if(flags.begin(), flags.end(),
                                   [&](const Flag& one) { return "--" + one.name == name; });
    if (flag == flags.end()) {
      options.server.push_back(args[i]);
      continue;
    }
    std::string value;
    if (!flag->value.empty()) {
      if (equals == std::string::npos && i + 1 == args.size()) {
        return InvalidArgument("%s needs a value (%s)", name, flag->value);
      }
      value = equals != std::string::npos ? args[i].substr(equals + 1) : args[++i];
    } else if (equals != std::string::npos) {
      return InvalidArgument("%s takes no value", name);
    }
    if (const absl::Status status = flag->set(options, value); !status.ok()) {
      return Annotate(status, name);
    }
  }
  SPIN_RETURN_IF_ERROR(CheckTogether(options));
  return options;
}

std::string HelpText() {
  std::string text = kHelpHead;
  for (const Flag& flag : MakeFlags()) {
    text += absl::StrFormat("  %-20s %s\n", "--" + flag.name + " " + flag.value, flag.help);
  }
  text += "\nAlgorithms: " + absl::StrJoin(SparseAlgorithmNames(), ", ");
  text += "\nTasks:      " + absl::StrJoin(TaskNames(), ", ");
  text +=
      "\n\nAll other flags are spind's: --model, --config, --set KEY=VALUE (spind --help-config). "
      "The "
      "algorithm's own keys\n(sparse.*) hold for every variant.\n";
  return text;
}

}  // namespace spin::eval
