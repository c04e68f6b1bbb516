// 100,000 seeded random steps of the KV cache manager. After each one: the manager's invariants, a
// model of the device that applied the same commands and says whether every row still sees its own
// tokens (memory_model.h), and a second manager that never lends slots and must decide alike
// (twin_managers.h). Copies of demotions run between any two steps.
#include <catch2/catch.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/random.h"
#include "kernels/kv_layout.h"
#include "memory/kv_cache_manager.h"
#include "memory/memory_plan.h"
#include "tests/sim/memory_model.h"
#include "tests/sim/twin_managers.h"

namespace spin::sim {
namespace {

constexpr int32_t kLayers = 3;
constexpr int32_t kMaxExtents = 8;
constexpr LayerDemand kWhole = {};
constexpr LayerDemand kSparse = {.whole_context = false, .fixed_pages = 2, .selectable_pages = 3};

std::vector<LayerDemand> AllSparse() {
  return {kSparse, kSparse, kSparse};
}

struct Scenario {
  const char* name;
  PlacementPolicy placement;
  std::vector<LayerDemand> layers;  // [kLayers]
  int32_t slot_extents, host_extents;
  int32_t summary_elements;
  double min_buffer_ratio;
  int32_t unsettled_tokens = 0;
  bool demote_for_buffers = false;
};

KvCacheOptions MakeOptions(const Scenario& s) {
  const KvGeometry g = {.num_layers = kLayers,
                        .num_kv_heads = 1,
                        .num_q_heads = 2,
                        .head_dim = 64,
                        .page_tokens = 64,
                        .max_rows = 10,
                        .max_extents = kMaxExtents,
                        .summary_elements = s.summary_elements,
                        .unsettled_tokens = s.unsettled_tokens};
  const int64_t hbm = HbmBytes(g, s.slot_extents, s.host_extents);
  KvCacheOptions options;
  options.plan = PlanMemory(g, hbm, s.host_extents * g.extent_bytes()).value();
  REQUIRE(options.plan.num_slot_extents == s.slot_extents);
  options.placement = s.placement;
  options.min_buffer_ratio = s.min_buffer_ratio;
  options.max_model_len = kMaxExtents * kExtentTokens - 100;
  options.layers = s.layers;
  options.max_budget_pages = 9;
  options.demote_for_buffers = s.demote_for_buffers;
  return options;
}

// Of TwinManagers; where lending may demote, of one manager alone.
template <typename Manager>
class Simulation {
 public:
  Simulation(const Scenario& scenario, uint64_t seed)
      : options_(MakeOptions(scenario)), manager_(options_), model_(options_.plan), random_(seed) {}

  void Step() {
    if (random_.Below(3) == 0) Spill();
    const uint32_t dice = random_.Below(100);
    if (dice < 18) {
      Watch(&Simulation::Admit);
    } else if (dice < 36) {
      FinishPrefill();
    } else if (dice < 66) {
      Decode();
    } else if (dice < 72) {
      Watch(&Simulation::HandOut);
    } else if (dice < 82) {
      Watch(&Simulation::Grow);
    } else if (dice < 86) {
      Watch(&Simulation::Suspend);
    } else if (dice < 92) {
      Watch(&Simulation::Resume);
    } else {
      Watch(&Simulation::Release);
    }
    if (random_.Below(2) == 0) Flush();  // else several changes travel in one batch
    manager_.CheckInvariants();
  }

  void ReleaseAll() {
    for (Sequence& s : sequences_) manager_.Release(s.row);
    sequences_.clear();
    Drain();
    manager_.CheckInvariants();
    const KvUsage usage = manager_.usage();
    CHECK(usage.slot_extents + usage.host_extents + usage.summary_extents + usage.meta_segments ==
          0);
    CHECK(usage.fraction == 0);
  }

  int admitted = 0, refused = 0, forks = 0, grown = 0, not_grown = 0, suspended = 0, decoded = 0;
  int waited = 0;  // refusals that a demotion turned into room
  // What happened to rows in the middle of their demotion.
  int leaving_decoded = 0, leaving_grown = 0, leaving_released = 0, leaving_settled = 0;
  int64_t settled() const { return model_.settled(); }
  int64_t evicted = 0;  // pages that were cached in slots that were taken back
  KvUsage usage() const { return manager_.usage(); }

 private:
  enum class State { kPrefill, kForked, kReady, kSuspended };
  struct Sequence {
    RowId row;
    State state;
    uint64_t request;
  };

  void Flush() {
    model_.Apply(manager_.TakeCommands());
    model_.CheckContents();
  }

  // A change that decodes nothing: what running rows have cached stays, but in slots taken from them.
  void Watch(void (Simulation::*change)()) {
    Flush();
    const Residency before = model_.Residents();
    (this->*change)();
    if (random_.Below(2) == 0) return;  // its commands travel with later ones
    Flush();
    evicted += model_.CheckKept(before);
  }

  void HandOut() {
    const KvUsage before = manager_.usage();
    manager_.HandOutSlots(random_.Below(3) == 0);
    const KvUsage after = manager_.usage();
    REQUIRE(after.reclaimed_extents == before.reclaimed_extents);
    if (options_.demote_for_buffers) return;
    REQUIRE(after.slot_extents - before.slot_extents ==
            after.handed_out_extents - before.handed_out_extents);
  }

  // Some copies start, some run; when all have run, the manager may learn it.
  void Spill() {
    if (random_.Below(4) == 0) HandOut();
    Flush();
    model_.StartSpills(manager_.TakeSpills(1 + static_cast<int32_t>(random_.Below(6))));
    const bool passed = model_.RunSpills(random_);
    model_.CheckContents();
    if (passed && random_.Below(2) == 0) manager_.FinishSpills();
  }

  void Drain() {
    Flush();
    while (manager_.room_is_coming()) Spill();
    Flush();
  }

  // `attempt` was refused. Where it began demotions and nothing was under way, they are enough: it
  // succeeds when they have passed, which happens here now and then. True: it has.
  template <typename Attempt>
  bool SucceedsLater(bool was_coming, const KvUsage& before, const Attempt& attempt) {
    if (was_coming) return false;
    if (!manager_.room_is_coming()) {
      CheckUnchanged(before);
      return false;
    }
    if (random_.Below(3) != 0) return false;
    Drain();
    REQUIRE(attempt());
    ++waited;
    return true;
  }

  // A random sequence in `state`, or null.
  Sequence* Pick(State state) {
    std::vector<Sequence*> found;
    for (Sequence& s : sequences_) {
      if (s.state == state) found.push_back(&s);
    }
    return found.empty() ? nullptr : found[random_.Below(static_cast<uint32_t>(found.size()))];
  }

  // A refusal changes nothing.
  void CheckUnchanged(const KvUsage& before) {
    const KvUsage after = manager_.usage();
    REQUIRE(after.slot_extents == before.slot_extents);
    REQUIRE(after.buffer_extents == before.buffer_extents);
    REQUIRE(after.host_extents == before.host_extents);
    REQUIRE(after.summary_extents == before.summary_extents);
    REQUIRE(after.meta_segments == before.meta_segments);
    REQUIRE(after.demotions == before.demotions);
    REQUIRE(manager_.TakeCommands().empty());
  }

  void Admit() {
    Flush();
    const int32_t n = random_.Below(4) == 0 ? 2 + static_cast<int32_t>(random_.Below(3)) : 1;
    int64_t prompt = random_.Between(1, random_.Below(4) == 0 ? 3900 : 1400);
    if (random_.Below(6) == 0) prompt = (1 + prompt / 1000) * kExtentTokens;
    std::optional<int64_t> max_tokens;
    if (random_.Below(2) == 0) max_tokens = random_.Between(0, 1200);
    const int64_t reserve = manager_.ReservationTokens(prompt, max_tokens);
    // Some have a budget of their own, above or below the algorithm's.
    const int32_t budget = random_.Below(3) == 0 ? static_cast<int32_t>(random_.Between(3, 9)) : 0;
    const bool fits = manager_.CheckFits(prompt, reserve, n, budget).ok();
    const KvUsage before = manager_.usage();
    const bool was_coming = manager_.room_is_coming();
    std::optional<std::vector<RowId>> rows;
    const auto admit = [&] {
      rows = manager_.Admit(prompt, reserve, n, budget);
      return rows.has_value();
    };
    if (!admit()) {
      ++refused;
      // Alone, what fits must run.
      if (fits && !was_coming) REQUIRE_FALSE(sequences_.empty());
      if (!SucceedsLater(was_coming, before, admit)) return;
    }
    REQUIRE(fits);
    REQUIRE(rows->size() == static_cast<size_t>(n));
    ++admitted;
    if (n > 1) ++forks;
    const uint64_t request = ++names_;
    for (const RowId row : *rows) {
      const bool first = row == rows->front();
      sequences_.push_back({row, first ? State::kPrefill : State::kForked, request});
      model_.expected(row.value) = {.live = false,
                                    .prompt_name = request,
                                    .own_name = ++names_,
                                    .prompt_tokens = prompt,
                                    .length = 0,
                                    .budget_pages = budget,
                                    .pages = {}};
      REQUIRE(manager_.reserved_tokens(row) == reserve);
    }
  }

  void FinishPrefill() {
    const Sequence* first = Pick(State::kPrefill);
    if (first == nullptr) return;
    Flush();
    model_.WritePrompt(first->row.value);
    const uint64_t request = first->request;
    std::vector<RowId> rows = {first->row};
    for (Sequence& s : sequences_) {
      if (s.request == request && s.state == State::kForked) rows.push_back(s.row);
      if (s.request == request) s.state = State::kReady;
    }
    manager_.FinishPrefill(rows);
    model_.Apply(manager_.TakeCommands());
    for (const RowId row : rows) model_.ExpectPrompt(row.value);
    model_.CheckContents();
  }

  void Decode() {
    const Sequence* s = Pick(State::kReady);
    if (s == nullptr) return;
    Flush();
    const bool leaving = model_.Leaving(s->row.value);
    if (leaving) ++leaving_decoded;
    const int64_t settled = model_.settled();
    const int64_t room = manager_.reserved_tokens(s->row) - manager_.length(s->row);
    const int64_t tokens = std::min<int64_t>(room, random_.Between(1, 60));
    for (int64_t t = 0; t < tokens; ++t) {
      model_.Decode(s->row.value, options_.layers, random_);
      manager_.Advance({&s->row, 1});
      ++decoded;
    }
    if (leaving && model_.settled() > settled) ++leaving_settled;
    REQUIRE(manager_.TakeCommands().empty());
    REQUIRE(manager_.length(s->row) == model_.expected(s->row.value).length);
  }

  void Grow() {
    const Sequence* s = Pick(State::kReady);
    if (s == nullptr) return;
    Flush();
    const int64_t reserved = manager_.reserved_tokens(s->row);
    const int64_t wanted =
        std::min<int64_t>(reserved + random_.Between(1, 2048), options_.max_model_len);
    const KvUsage before = manager_.usage();
    const bool was_coming = manager_.room_is_coming();
    const bool leaving = model_.Leaving(s->row.value);
    const auto grow = [&] { return manager_.Grow(s->row, wanted); };
    if (grow()) {
      ++grown;
      if (leaving && wanted > reserved) ++leaving_grown;
      REQUIRE(manager_.reserved_tokens(s->row) == wanted);
    } else {
      ++not_grown;
      REQUIRE(manager_.reserved_tokens(s->row) == reserved);
      SucceedsLater(was_coming, before, grow);
    }
  }

  void Suspend() {
    Sequence* s = Pick(State::kReady);
    if (s == nullptr || manager_.placement(s->row) != Placement::kTiered) return;
    manager_.Suspend(s->row);
    s->state = State::kSuspended;
    ++suspended;
  }

  void Resume() {
    Sequence* s = Pick(State::kSuspended);
    if (s == nullptr) return;
    Flush();
    const KvUsage before = manager_.usage();
    const bool was_coming = manager_.room_is_coming();
    const auto resume = [&] { return manager_.Resume(s->row); };
    if (resume() || SucceedsLater(was_coming, before, resume)) s->state = State::kReady;
  }

  // A sequence ends; one whose forks still wait for its prefill takes them along.
  void Release() {
    if (sequences_.empty()) return;
    const Sequence victim = sequences_[random_.Below(static_cast<uint32_t>(sequences_.size()))];
    std::erase_if(sequences_, [&](const Sequence& s) {
      const bool goes =
          s.row == victim.row || (victim.state == State::kPrefill && s.request == victim.request);
      if (!goes) return false;
      if (model_.Leaving(s.row.value)) ++leaving_released;
      manager_.Release(s.row);
      return true;
    });
  }

  KvCacheOptions options_;
  Manager manager_;
  MemoryModel model_;
  Random random_;
  std::vector<Sequence> sequences_;
  uint64_t names_ = 0;
};

const std::vector<Scenario>& Scenarios() {
  static const std::vector<Scenario> scenarios = {
      {"auto, sparse", PlacementPolicy::kAuto, AllSparse(), 70, 150, 128, 1},
      {"auto, sparse, large pages budget", PlacementPolicy::kAuto, AllSparse(), 90, 400, 0, 2},
      {"auto, sparse, host short", PlacementPolicy::kAuto, AllSparse(), 60, 30, 128, 1},
      {"auto, first layer whole",
       PlacementPolicy::kAuto,
       {kWhole, kSparse, kSparse},
       80,
       200,
       128,
       0},
      {"auto, dense", PlacementPolicy::kAuto, {kWhole, kWhole, kWhole}, 80, 200, 0, 2},
      {"auto, host 0", PlacementPolicy::kAuto, AllSparse(), 80, 0, 128, 2},
      {"resident", PlacementPolicy::kResident, AllSparse(), 80, 200, 128, 2},
      {"tiered", PlacementPolicy::kTiered, AllSparse(), 40, 200, 128, 2},
      {"tiered, dense", PlacementPolicy::kTiered, {kWhole, kWhole, kWhole}, 90, 120, 0, 2},
      {"tiered, first layer whole",
       PlacementPolicy::kTiered,
       {kWhole, kSparse, kSparse},
       60,
       150,
       0,
       1},
      {"auto, sparse, the last tokens unsettled", PlacementPolicy::kAuto, AllSparse(), 70, 150, 128,
       1, 64},
      {"auto, first layer whole, more than an extent unsettled",
       PlacementPolicy::kAuto,
       {kWhole, kSparse, kSparse},
       80,
       200,
       128,
       0,
       700},
      {"tiered, the last tokens unsettled", PlacementPolicy::kTiered, AllSparse(), 40, 200, 128, 2,
       64},
      {"auto, sparse, demoting for buffers", PlacementPolicy::kAuto, AllSparse(), 70, 150, 128, 1,
       0, true},
  };
  return scenarios;
}

template <typename Manager>
void CheckScenario(const Scenario& scenario) {
  int64_t demotions = 0, forks = 0, grown = 0, suspended = 0, refused = 0, waited = 0;
  int64_t leaving_decoded = 0, leaving_grown = 0, leaving_released = 0;
  int64_t settled = 0, leaving_settled = 0;
  int64_t handed_out = 0, reclaimed = 0, evicted = 0;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    INFO(scenario.name << ", seed " << seed);
    Simulation<Manager> simulation(scenario, seed);
    for (int step = 0; step < 2500; ++step) simulation.Step();
    simulation.ReleaseAll();
    CHECK(simulation.admitted > 50);
    CHECK(simulation.decoded > 1000);
    demotions += simulation.usage().demotions;
    handed_out += simulation.usage().handed_out_extents;
    reclaimed += simulation.usage().reclaimed_extents;
    evicted += simulation.evicted;
    forks += simulation.forks;
    grown += simulation.grown;
    suspended += simulation.suspended;
    refused += simulation.refused;
    waited += simulation.waited;
    leaving_decoded += simulation.leaving_decoded;
    leaving_grown += simulation.leaving_grown;
    leaving_released += simulation.leaving_released;
    settled += simulation.settled();
    leaving_settled += simulation.leaving_settled;
  }
  INFO(scenario.name);
  CHECK(forks > 10);
  CHECK(grown > 50);
  CHECK(refused > 10);
  const bool saves = !scenario.layers.back().whole_context && scenario.host_extents > 0;
  const bool demotes = saves && scenario.placement == PlacementPolicy::kAuto;
  INFO(demotions << " demotions, " << waited
                 << " waited for; rows in the middle of one: " << leaving_decoded << " decoded, "
                 << leaving_grown << " grown, " << leaving_released << " released; extents settled "
                 << settled << ", by rows in the middle " << leaving_settled);
  const bool settles = scenario.unsettled_tokens > 0;
  CHECK((settled > 50) == settles);
  CHECK((leaving_settled > 0) == (settles && demotes));
  CHECK((demotions > 5) == demotes);
  CHECK((waited > 5) == demotes);
  CHECK((leaving_decoded > 20) == demotes);
  CHECK((leaving_grown > 1) == demotes);
  CHECK((leaving_released > 5) == demotes);
  const bool lends = saves && scenario.placement != PlacementPolicy::kResident;
  INFO(handed_out << " extents handed out, " << reclaimed << " taken back with at least " << evicted
                  << " pages in them");
  CHECK((handed_out > 100) == lends);
  CHECK((reclaimed > 50) == lends);
  CHECK((evicted > 50) == lends);
  CHECK((suspended > 5) == (scenario.placement == PlacementPolicy::kTiered || demotions > 0));
}

TEST_CASE("every row sees its own tokens through random admissions, demotions, forks and growth") {
  for (const Scenario& scenario : Scenarios()) {
    if (scenario.demote_for_buffers) {
      CheckScenario<KvCacheManager>(scenario);
    } else {
      CheckScenario<TwinManagers>(scenario);
    }
  }
}

}  // namespace
}  // namespace spin::sim
