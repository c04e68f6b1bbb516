#include "server/config_schema.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>

#include <array>
#include <cctype>
#include <limits>

#include "common/units.h"

namespace spin {
namespace {

using Config = ServerConfig;

template <typename T>
absl::Status ParseInt(const std::string& text, int64_t min, int64_t max, T& target) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < min || value > max) {
    return InvalidArgument("'%s' is not an integer in %d..%d", text, min, max);
  }
  target = static_cast<T>(value);
  return absl::OkStatus();
}

absl::Status ParseNumber(const std::string& text, double min, double max, double& target) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !(value >= min && value <= max)) {
    return InvalidArgument("'%s' is not a number in %g..%g", text, min, max);
  }
  target = value;
  return absl::OkStatus();
}

absl::Status ParseBool(const std::string& text, bool& target) {
  if (text != "true" && text != "false")
    return InvalidArgument("'%s' is neither true nor false", text);
  target = text == "true";
  return absl::OkStatus();
}

// One of the words of `choices`, whose values are alike in order.
template <typename T, std::size_t N, typename Target>
absl::Status ParseChoice(const std::string& text,
                         const std::array<std::pair<std::string_view, T>, N>& choices,
                         Target& target) {
  std::string words;
  for (const auto& [word, value] : choices) {
    if (text == word) {
      target = value;
      return absl::OkStatus();
    }
    words += (words.empty() ? "" : ", ") + std::string(word);
  }
  return InvalidArgument("'%s' is none of: %s", text, words);
}

absl::Status ParseSize(const std::string& text, std::optional<int64_t>& target) {
  target.reset();
  if (text == "auto") return absl::OkStatus();
  SPIN_ASSIGN_OR_RETURN(target, ParseBytes(text));
  return absl::OkStatus();
}

// "30s", "500ms", "2m".
absl::Status ParseDuration(const std::string& text, int64_t& target_ms) {
  std::size_t digits = 0;
  while (digits < text.size() && (std::isdigit(static_cast<unsigned char>(text[digits])) != 0))
    ++digits;
  const std::string unit = text.substr(digits);
  const int64_t factor = unit == "ms" ? 1 : unit == "s" ? 1000 : unit == "m" ? 60'000 : 0;
  int64_t value = 0;
  if (factor == 0 || !absl::SimpleAtoi(text.substr(0, digits), &value) ||
      value > 86'400'000 / factor) {
    return InvalidArgument(
        "'%s' is not a duration of at most a day; write for example 30s or 500ms", text);
  }
  target_ms = value * factor;
  return absl::OkStatus();
}

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

constexpr ConfigKey kModelKeys[] = {
    {"model.path", "", "folder", "Hugging Face folder: config.json, safetensors, tokenizer.json.",
     [](Config& c, const std::string& t) {
       c.model_path = t;
       return absl::OkStatus();
     }},
    {"model.served_name", "auto", "names, separated by commas, or auto",
     "What clients call the model; auto: the folder's name.",
     [](Config& c, const std::string& t) {
       c.served_names.clear();
       if (t != "auto") c.served_names = absl::StrSplit(t, ',', absl::SkipWhitespace());
       return absl::OkStatus();
     }},
    {"model.load_format", "auto", "auto, dummy",
     "dummy: seeded random weights; config.json is enough.",
     [](Config& c, const std::string& t) {
       return ParseChoice<bool, 2>(t, {{{"auto", false}, {"dummy", true}}}, c.dummy_weights);
     }},
    {"model.dtype", "bfloat16", "bfloat16, float32", "Type of weights, activations and KV pages.",
     [](Config& c, const std::string& t) {
       return ParseChoice<DType, 2>(t, {{{"bfloat16", DType::kBf16}, {"float32", DType::kF32}}},
                                    c.dtype);
     }},
    {"model.max_model_len", "auto", "tokens or auto",
     "Longest context, prompt and output together; auto: the model's own.",
     [](Config& c, const std::string& t) {
       c.max_model_len.reset();
       if (t == "auto") return absl::OkStatus();
       int32_t value = 0;
       const absl::Status status = ParseInt(t, 16, 1 << 24, value);
       if (status.ok()) c.max_model_len = value;
       return status;
     }},
    {"model.generation_config", "auto", "auto, none",
     "auto: sampling defaults and end tokens of generation_config.json.",
     [](Config& c, const std::string& t) {
       return ParseChoice<bool, 2>(t, {{{"auto", true}, {"none", false}}}, c.use_generation_config);
     }},
    {"model.seed", "0", "integer", "Seed of requests that bring none, and of dummy weights.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 0, std::numeric_limits<int64_t>::max(), c.seed);
     }},
};

constexpr ConfigKey kServerKeys[] = {
    {"server.host", "127.0.0.1", "address", "Address to listen on; 0.0.0.0 for all.",
     [](Config& c, const std::string& t) {
       c.host = t;
       return absl::OkStatus();
     }},
    {"server.http_port", "8000", "0..65535", "OpenAI-compatible HTTP; 0: any free port.",
     [](Config& c, const std::string& t) { return ParseInt(t, 0, 65535, c.http_port); }},
    {"server.grpc_port", "8001", "0..65535", "gRPC; 0: any free port.",
     [](Config& c, const std::string& t) { return ParseInt(t, 0, 65535, c.grpc_port); }},
    {"server.max_body", "32MiB", "bytes, 1KiB to 1GiB",
     "Longest request body; more is answered with 413.",
     [](Config& c, const std::string& t) {
       SPIN_ASSIGN_OR_RETURN(const int64_t bytes, ParseBytes(t));
       // gRPC counts in int.
       if (bytes < kKiB || bytes > kGiB) return InvalidArgument("'%s' is not in 1KiB..1GiB", t);
       c.max_body_bytes = bytes;
       return absl::OkStatus();
     }},
    {"server.drain_timeout", "30s", "duration (30s, 500ms)",
     "After SIGTERM, how long running requests may take to finish.",
     [](Config& c, const std::string& t) { return ParseDuration(t, c.drain_timeout_ms); }},
    {"server.max_queue", "256", "prompts",
     "Prompts that may wait, of all requests; one more is answered with 429, and so is a "
     "completion whose prompts do not all find a place.",
     [](Config& c, const std::string& t) { return ParseInt(t, 1, 1 << 20, c.engine.max_queue); }},
};

constexpr ConfigKey kMemoryKeys[] = {
    {"memory.hbm_budget", "auto", "bytes (60GiB) or auto",
     "What the process may hold on the GPU: weights, workspace and KV cache; auto: 98 % of what is "
     "free. On the CPU backend the arena that plays HBM, for the KV cache alone; auto: 1/8 of "
     "memory, at most 2GiB.",
     [](Config& c, const std::string& t) { return ParseSize(t, c.hbm_budget_bytes); }},
    {"memory.host_pool", "auto", "bytes (64GiB), 0 or auto",
     "Host memory for the KV cache of Tiered sequences; 0 switches the tier off. auto: half of the "
     "host's memory, pinned, beside a GPU; on the CPU backend a quarter, at most 4GiB; 0 where "
     "nothing can be Tiered (memory.placement resident; auto with every layer dense or exact).",
     [](Config& c, const std::string& t) { return ParseSize(t, c.host_pool_bytes); }},
    {"memory.min_buffer_ratio", "2", "0..64",
     "Slots that a Tiered sequence keeps for reuse, times the pages that a step may select.",
     [](Config& c, const std::string& t) { return ParseNumber(t, 0, 64, c.min_buffer_ratio); }},
    {"memory.max_buffer_ratio", "5", "0..64, at least memory.min_buffer_ratio",
     "As memory.min_buffer_ratio, while slots are free: they are lent, and taken back for others.",
     [](Config& c, const std::string& t) { return ParseNumber(t, 0, 64, c.max_buffer_ratio); }},
    {"memory.demote_for_buffers", "true", "true or false",
     "Sequences in HBM become Tiered for the buffers of those that are, while nobody waits and the "
     "host pool has room.",
     [](Config& c, const std::string& t) { return ParseBool(t, c.demote_for_buffers); }},
    {"memory.placement", "auto", "auto, resident, tiered",
     "auto: in HBM until room is needed, then tiered; tiered: every sequence at once.",
     [](Config& c, const std::string& t) {
       return ParseChoice<PlacementPolicy, 3>(t,
                                              {{{"auto", PlacementPolicy::kAuto},
                                                {"resident", PlacementPolicy::kResident},
                                                {"tiered", PlacementPolicy::kTiered}}},
                                              c.placement);
     }},
    {"memory.eviction", "bucketed", "bucketed, last_step, none",
     "Which pages make room for missing ones; all but bucketed are for measurements.",
     [](Config& c, const std::string& t) {
       return ParseChoice<Eviction, 3>(t,
                                       {{{"bucketed", Eviction::kBucketed},
                                         {"last_step", Eviction::kLastStep},
                                         {"none", Eviction::kNone}}},
                                       c.eviction);
     }},
    {"memory.overlap", "auto", "auto, never, ready_first, row_groups",
     "What goes on while missing pages arrive: attention to those in HBM, or the other half of the "
     "batch; auto: the "
     "first, where that pays.",
     [](Config& c, const std::string& t) {
       return ParseChoice<RetrieveOverlap, 4>(t,
                                              {{{"auto", RetrieveOverlap::kAuto},
                                                {"never", RetrieveOverlap::kNever},
                                                {"ready_first", RetrieveOverlap::kReadyFirst},
                                                {"row_groups", RetrieveOverlap::kRowGroups}}},
                                              c.overlap);
     }},
};

constexpr ConfigKey kSparseKeys[] = {
    {"sparse.algorithm", "dense", "dense, quest, shadowkv, seer, retroinfer",
     "Which partitions of the context a step attends to.",
     [](Config& c, const std::string& t) {
       return ParseChoice<const char*, 5>(t,
                                          {{{"dense", "dense"},
                                            {"quest", "quest"},
                                            {"shadowkv", "shadowkv"},
                                            {"seer", "seer"},
                                            {"retroinfer", "retroinfer"}}},
                                          c.sparse.algorithm);
     }},
    {"sparse.budget_tokens", "auto", "tokens or auto",
     "Tokens that one KV head attends to in a step, whatever the algorithm selects them by; auto: "
     "2048 with quest and seer; with shadowkv and retroinfer a share of the context, but at least "
     "their min_budget_tokens (2048).",
     [](Config& c, const std::string& t) {
       c.sparse.budget_tokens.reset();
       if (t == "auto") return absl::OkStatus();
       int32_t value = 0;
       const absl::Status status = ParseInt(t, 16, kInt32Max, value);
       if (status.ok()) c.sparse.budget_tokens = value;
       return status;
     }},
    {"sparse.max_budget_tokens", "auto", "tokens or auto",
     "The most that a request may ask for in its own `sparse` member; scratch is sized by it. "
     "auto: "
     "what the server's budget comes to.",
     [](Config& c, const std::string& t) {
       c.sparse.max_budget_tokens.reset();
       if (t == "auto") return absl::OkStatus();
       int32_t value = 0;
       const absl::Status status = ParseInt(t, 16, kInt32Max, value);
       if (status.ok()) c.sparse.max_budget_tokens = value;
       return status;
     }},
    {"sparse.exact", "false", "true, false",
     "Select every partition: the algorithm must then equal dense.",
     [](Config& c, const std::string& t) { return ParseBool(t, c.sparse.exact); }},
    {"sparse.quest.dense_layers", "0", "layers", "The first layers attend to everything.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 0, 1024, c.sparse.quest_dense_layers);
     }},
    {"sparse.quest.page_tokens", "16", "16, 32 or 64",
     "Tokens of a page (the paper's: 16). With larger ones there is less to score, and what is "
     "selected is coarser.",
     [](Config& c, const std::string& t) {
       return ParseChoice<int32_t, 3>(t, {{{"16", 16}, {"32", 32}, {"64", 64}}},
                                      c.sparse.quest_page_tokens);
     }},
    {"sparse.shadowkv.context_fraction", "64", "1..65536, or 0",
     "With budget_tokens: auto, a step selects this fraction of the context: 64 is 1/64; 0: none.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 0, 65536, c.sparse.shadowkv_context_fraction);
     }},
    {"sparse.shadowkv.min_budget_tokens", "2048", "tokens",
     "With budget_tokens: auto, a step selects at least so many tokens.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 8, kInt32Max, c.sparse.shadowkv_min_budget_tokens);
     }},
    {"sparse.shadowkv.outlier_pages", "48", "pages of 8 tokens",
     "Pages of the prompt that their mean key stands for worst: always attended to.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 0, 65536, c.sparse.shadowkv_outlier_pages);
     }},
    {"sparse.shadowkv.local_pages", "4", "pages of 8 tokens",
     "The last pages before the current one: always attended to.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 0, 65536, c.sparse.shadowkv_local_pages);
     }},
    {"sparse.shadowkv.rank", "0", "0, or a multiple of 16 up to 256",
     "Keys of retrieved pages are rebuilt from factors of this rank (the paper's: 160), and values "
     "alone cross from the host; 0: keys are retrieved, too.",
     [](Config& c, const std::string& t) { return ParseInt(t, 0, 256, c.sparse.shadowkv_rank); }},
    {"sparse.seer.gates", "", "file",
     "SeerAttention-R's trained gates of this model (safetensors); they say how long a block is.",
     [](Config& c, const std::string& t) {
       c.sparse.seer_gates = t;
       return absl::OkStatus();
     }},
    {"sparse.seer.threshold", "0", "0..1",
     "Of the blocks within the budget only those with more than this probability, by the gate, are "
     "attended to; 0: all of them. A context no longer than the budget always is.",
     [](Config& c, const std::string& t) { return ParseNumber(t, 0, 1, c.sparse.seer_threshold); }},
    {"sparse.retroinfer.retrieve_permille", "18", "1..1000",
     "With budget_tokens: auto, so many of 1,000 clusters are attended to exactly.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 1, 1000, c.sparse.retroinfer_retrieve_permille);
     }},
    {"sparse.retroinfer.estimate_permille", "232", "0..1000",
     "So many of 1,000 clusters, the next ones by rank, are attended to by their means.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 0, 1000, c.sparse.retroinfer_estimate_permille);
     }},
    {"sparse.retroinfer.min_budget_tokens", "2048", "tokens",
     "With budget_tokens: auto, a step retrieves at least the clusters of a budget of so many "
     "tokens; 0: retrieve_permille alone.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 0, kInt32Max, c.sparse.retroinfer_min_budget_tokens);
     }},
};

constexpr ConfigKey kSchedulerKeys[] = {
    {"scheduler.max_num_seqs", "64", "sequences", "Sequences that run at once.",
     [](Config& c, const std::string& t) { return ParseInt(t, 1, 4096, c.engine.max_num_seqs); }},
    {"scheduler.max_batched_tokens", "8192", "tokens", "Prompt tokens packed into one prefill.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 16, 1 << 24, c.engine.max_batched_tokens);
     }},
    {"scheduler.max_decode_stall_ms", "50", "milliseconds",
     "Prefill work between two decode steps.",
     [](Config& c, const std::string& t) {
       return ParseNumber(t, 0, 1e6, c.engine.max_decode_stall_ms);
     }},
    {"scheduler.policy", "fcfs", "fcfs, priority",
     "fcfs: first come first served with aging; priority: first by the requests' own `priority`, "
     "which fcfs ignores.",
     [](Config& c, const std::string& t) {
       return ParseChoice<SchedulePolicy, 2>(
           t, {{{"fcfs", SchedulePolicy::kFcfs}, {"priority", SchedulePolicy::kPriority}}},
           c.engine.policy);
     }},
    {"scheduler.prefill_tile_tokens", "auto", "tokens or auto",
     "Prompt tokens of one layer computed at a time; auto: 512 on a CPU, 8192 on a GPU.",
     [](Config& c, const std::string& t) {
       c.prefill_tile_tokens = 0;
       return t == "auto" ? absl::OkStatus() : ParseInt(t, 16, 1 << 20, c.prefill_tile_tokens);
     }},
};

constexpr ConfigKey kOtherKeys[] = {
    {"backend.device", "auto", "auto, cpu, cuda",
     "cuda never falls back: without a GPU it is an error.",
     [](Config& c, const std::string& t) {
       c.backend.device = t;
       bool known = false;
       return ParseChoice<bool, 3>(t, {{{"auto", true}, {"cpu", true}, {"cuda", true}}}, known);
     }},
    {"backend.threads", "auto", "threads or auto", "CPU threads that compute; auto: all cores.",
     [](Config& c, const std::string& t) {
       c.backend.threads = 0;
       return t == "auto" ? absl::OkStatus() : ParseInt(t, 1, 1024, c.backend.threads);
     }},
    {"backend.gemm_sms", "0", "multiprocessors, or 0",
     "On a GPU: how many a product counts on; fewer than all leaves room for pages that arrive "
     "beside it; 0: all.",
     [](Config& c, const std::string& t) { return ParseInt(t, 0, 1024, c.backend.gemm_sms); }},
    {"observability.stage_sample_period", "1024", "steps, or 0",
     "Of so many decode steps one is timed stage by stage (spin:stage_seconds_total); 0: none.",
     [](Config& c, const std::string& t) {
       return ParseInt(t, 0, kInt32Max, c.stage_sample_period);
     }},
    {"log.level", "info", "debug, info, warning, error", "The least level that is written.",
     [](Config& c, const std::string& t) {
       SPIN_ASSIGN_OR_RETURN(c.log_level, ParseLogLevel(t));
       return absl::OkStatus();
     }},
    {"log.format", "text", "text, json", "How a line looks.",
     [](Config& c, const std::string& t) {
       return ParseChoice<LogFormat, 2>(
           t, {{{"text", LogFormat::kText}, {"json", LogFormat::kJson}}}, c.log_format);
     }},
};

std::vector<ConfigKey> AllKeys() {
  std::vector<ConfigKey> keys;
  const auto add = [&](std::span<const ConfigKey> more) {
    keys.insert(keys.end(), more.begin(), more.end());
  };
  add(kModelKeys);
  add(kServerKeys);
  add(kMemoryKeys);
  add(kSparseKeys);
  add(kSchedulerKeys);
  add(kOtherKeys);
  return keys;
}

}  // namespace

std::span<const ConfigKey> ConfigKeys() {
  static const std::vector<ConfigKey>* const keys = new std::vector<ConfigKey>(AllKeys());
  return *keys;
}

const ConfigKey* FindConfigKey(std::string_view name) {
  for (const ConfigKey& key : ConfigKeys()) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

std::string EnvironmentName(const ConfigKey& key) {
  std::string name = "SPIN_";
  for (const char c : key.name) {
    name += c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

std::string ConfigHelp() {
  std::string out =
      "Configuration keys, as YAML (--config FILE), --set KEY=VALUE or environment variables.\n"
      "Later ones win: defaults, file, environment, flags.\n";
  std::string_view section;
  for (const ConfigKey& key : ConfigKeys()) {
    const std::string_view own = key.name.substr(0, key.name.find('.'));
    if (own != section) out += absl::StrFormat("\n%s:\n", own);
    section = own;
    out += absl::StrFormat(
        "  %-30s %s\n%33s%s; default %s; %s\n", key.name.substr(own.size() + 1), key.help, "",
        key.allowed, key.default_value.empty() ? "none" : key.default_value, EnvironmentName(key));
  }
  return out;
}

}  // namespace spin
