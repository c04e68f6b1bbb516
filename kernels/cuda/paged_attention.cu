// One query a batch place over the listed slots, split over the machine: every (place, KV head) is a row, a row's
// list is cut into parts, several CTAs take a row's parts, and the last of them to arrive merges what all have left.
// The warp's work in bfloat16 is in paged_attention_mma.cuh, parts and their merging in paged_attention_parts.cuh, all
// of float32 in paged_attention_f32.cuh.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "common/check.h"
#include "common/math.h"
#include "kernels/cuda/cuda_limits.h"
#include "kernels/cuda/families.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/paged_attention_f32.cuh"
#include "kernels/cuda/paged_attention_mma.cuh"
#include "kernels/cuda/paged_attention_parts.cuh"
#include "kernels/cuda/stream_view.cuh"

namespace spin::cuda {
namespace {

constexpr int kCtasPerSm = 2;  // what is scheduled for
// What launch bounds give the registers for. From Blackwell on the code of a step does not fit into 128 of them without
// spills: there one CTA of head size 128, with 64 KB in flight, has a multiprocessor to itself.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kMinCtas = 1;
#else
constexpr int kMinCtas = kCtasPerSm;
#endif
constexpr int kBucket = 64;  // up to this batch a row's parts never depend on the bucket

// A row's list of slots. kRunPages: pages of 8 tokens, so that a step is two of them; else it lies in one. Its tokens
// are counted from the begin of all lists, the row's `origin` the first: one number less to carry.
template <bool kRunPages>
struct SlotList {
  // Slots of the two runs of the step at `token`. Past the list's end: of its last page, so that they can be read.
  __device__ __forceinline__ int2 Pages(int token) const {
    const int first = task.page_list[min(token >> task.page_shift, last)];
    if constexpr (kRunPages) return {first, task.page_list[min(token / 8 + 1, last)]};
    return {first, first};
  }
  // Bits of the step's tokens that are attended to; of a page past the list's end those of the last one. kMasked.
  __device__ __forceinline__ uint32_t Mask(int token) const {
    if (task.page_mask == nullptr) return 0xffff;
    return task.page_mask[min(token / 8, last)] | task.page_mask[min(token / 8 + 1, last)] << 8;
  }
  // The same as the step's runs.
  __device__ __forceinline__ StepRuns Runs(int2 pages, int token) const {
    if constexpr (kRunPages) return {2 * pages.x, 2 * pages.y};
    const int shift = task.page_shift - 3;  // runs of a page's plane
    const int first = (pages.x << (shift + 1)) + (token / 8 & ((1 << shift) - 1));
    return {first, first + 1};
  }

  const PagedTask& task;
  int last;  // entry of task.page_list
};

// Copies the group's queries into shared memory, a chunk a lane; asynchronously, so that they need no register.
template <int D>
__device__ void CopyQueries(const PagedTask& task, int place, int kv_head, CtaState<D>& shared) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (warp >= D / 32) return;
  const int head = lane / 4;
  const int64_t heads = int64_t{task.group + 2} * task.num_kv_heads;
  const Bf16* from = task.qkv + (place * heads + kv_head * task.group + head) * D;
  CopyChunk(SharedAddress(&shared.queries[warp][lane]),
            reinterpret_cast<const uint4*>(from) + lane % 4 + 4 * warp, head < task.group);
  CommitCopies();
}

// What of a row's list a launch takes.
struct Piece {
  int first_page;  // entry of PagedTask::page_list
  int pages;
  int first_part;
  int max_parts;
  bool finishes;
};

// `piece`, a whole list, becomes the half that this launch takes, with half of the parts: 0 pages where the other
// launch takes all.
__device__ __forceinline__ void TakeHalf(const PagedTask& task, int ready_pages, Piece& piece) {
  const bool fetched = task.list_part == ListPart::kFetched;
  SPIN_DEVICE_CHECK(0 <= ready_pages && ready_pages <= piece.pages);
  if (ready_pages == piece.pages) {
    if (fetched) piece.pages = 0;
    return;
  }
  piece.max_parts /= 2;
  piece.finishes = fetched;
  if (fetched) {
    piece.first_part = CutRow(task.Rounds(ready_pages), piece.max_parts).parts;
    piece.first_page += ready_pages;
  }
  piece.pages = fetched ? piece.pages - ready_pages : ready_pages;
}

// Tokens of a launch's piece of the row's list, which has `pages` pages. Waits for the row's position, which nothing
// before the first scores needs.
template <bool kHalf>
__device__ __forceinline__ int NumTokens(const PagedTask& task, int place, int row, int pages) {
  if (kHalf && task.list_part == ListPart::kReady) return task.ready_tokens[row];
  const int in_page = (1 << task.page_shift) - 1;
  if (kHalf) pages = task.list_len[row];
  const int all =
      ((pages - 1) << task.page_shift) + (task.position[task.rows[place]] & in_page) + 1;
  return kHalf ? all - task.ready_tokens[row] : all;
}

// What of the row is the CTA's, into shared memory. Returns the pages of the launch's piece of its list, 0 where
// nothing is to do.
template <int D, bool kHalf>
__device__ __forceinline__ int TakeParts(const PagedTask& task, int place, CtaState<D>& shared) {
  const int row = place * task.num_kv_heads + static_cast<int>(blockIdx.y);
  const int num_rows = LoadNow(task.num_rows);
  const int num_pages = LoadNow(task.list_len + row);  // of an unused place: not looked at
  const int ready_tokens = kHalf ? LoadNow(task.ready_tokens + row) : 0;
  if (task.first_place + place >= num_rows) return 0;
  SPIN_DEVICE_CHECK(0 < num_pages && num_pages <= task.max_list);
  Piece piece = {row * task.max_list, num_pages, 0, task.max_parts, true};
  if (kHalf) {
    TakeHalf(task, (ready_tokens + (1 << task.page_shift) - 1) >> task.page_shift, piece);
    if (piece.pages == 0) return 0;
  }
  const int rounds = task.Rounds(piece.pages);
  const RowParts cut = CutRow(rounds, piece.max_parts);
  const int cta = blockIdx.x;
  const int ctas = CtasOfRow(rounds, cut.parts, gridDim.x, task.ctas_to_fill);
  if (cta >= ctas) return 0;
  const int part_begin = FirstPart(cta, cut.parts, ctas);
  if (threadIdx.x == 0) {
    shared.row = row;
    shared.parts = piece.first_part + cut.parts;
    shared.part_tokens = cut.rounds * kRoundTokens;
    shared.part = part_begin - 1;
    shared.part_end = FirstPart(cta + 1, cut.parts, ctas);
    shared.ctas = ctas;
    if (kHalf) {
      shared.first_page = piece.first_page;
      shared.first_part = piece.first_part;
      shared.finishes = piece.finishes;
    }
  }
  __syncthreads();
  return piece.pages;
}

// Takes away what of a step's 16 tokens is not there (from `valid` on), or not attended to.
template <int D, bool kMasked>
__device__ __forceinline__ void MaskStep(int valid, uint32_t attended, int lane, float (&scores)[4],
                                         ValueFragment<D>& values) {
  if (valid < kStepTokens) {
    MaskScores(scores, valid, lane);
    values.Mask(valid, lane);
  }
  if constexpr (kMasked) {
    MaskScoreBits(scores, attended, lane);
    values.MaskBits(attended, lane);
  }
}

// bf16. A CTA takes an equal share of its row's parts, one after the other; its warps take the 16-token steps of a part
// in turn, each with a softmax of its own.
//
// Floor: bytes of keys and values / bandwidth (4 * D bytes a token; 64 KB a round at D 128). To stay at it, loads must
// never stop: the keys of a warp's next step are requested as soon as the first product has read the present ones, its
// values after the second, also across the ends of parts; and the pages of the step after that are looked up. Two CTAs
// on an SM have up to 128 KB in flight, three times what latency times bandwidth asks for. The arithmetic is a tenth of
// what the SM can issue in the meantime.
//
// With kMasked pages come with masks, and an estimate is merged: what RetroInfer attends to. Of each step some token is
// attended to: no page is listed for nothing.
template <int D, bool kRunPages, bool kHalf, bool kMasked>
__global__ void __launch_bounds__(kThreads, kMinCtas) AttendBf16(const PagedTask task) {
  extern __shared__ float4 dynamic[];
  __shared__ CtaState<D> shared;
  float* const sums = reinterpret_cast<float*>(dynamic);
  WaitForPredecessors();
  AllowSuccessors();
  const int place = blockIdx.z;
  const int num_pages = TakeParts<D, kHalf>(task, place, shared);
  if (num_pages == 0) return;
  CopyQueries(task, place, blockIdx.y, shared);

  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const char* const lane_keys = task.slots + KeyFragment<D>::LaneOffset(lane);
  const char* const lane_values =
      task.slots + ((2 * D) << task.page_shift) + ValueFragment<D>::LaneOffset(lane);
  const int first_page = kHalf ? shared.first_page : shared.row * task.max_list;
  const int origin = first_page << task.page_shift;
  const SlotList<kRunPages> list{task, first_page + num_pages - 1};
  int end = origin + (shared.part + 1) * shared.part_tokens;  // of a part
  int token = end + warp * kStepTokens;                       // of the warp's step
  KeyFragment<D> keys;
  ValueFragment<D> values;
  const StepRuns at = list.Runs(list.Pages(token), token);
  int2 pages = list.Pages(token + kRoundTokens);
  keys.Load(lane_keys, at);
  values.Load(lane_values, at);
  const int num_tokens = NumTokens<kHalf>(task, place, shared.row, num_pages);
  if (threadIdx.x == 0) {
    shared.limit = origin + min(num_tokens, shared.part_end * shared.part_tokens);
  }
  Attention<D> state;
  WaitCopies<0>();

  do {
    state.Reset();
    __syncthreads();  // the queries are there, or nobody reads the last part's sums any more
    if (threadIdx.x == 0) ++shared.part;
    end += shared.part_tokens;
    for (; token < end; token += kRoundTokens) {
      const int valid = shared.limit - token;
      if (valid <= 0) continue;
      const bool more = valid > kRoundTokens;
      const uint32_t attended = kMasked ? list.Mask(token) : 0;  // there before the keys are
      float scores[4];
      uint32_t p[2];
      Scores(keys, shared.queries, lane, scores);
      if (more) keys.Load(lane_keys, list.Runs(pages, token + kRoundTokens));
      MaskStep<D, kMasked>(valid, attended, lane, scores, values);
      state.AddScores(scores, task.scale, p);
      state.AddValues(values, p);
      if (more) {
        values.Load(lane_values, list.Runs(pages, token + kRoundTokens));  // anew: no register
        pages = list.Pages(token + 2 * kRoundTokens);
      }
    }
    const int writer = ThreadHere() / kWarp;
    state.Write(sums + writer * task.group * kSumStride<D>, kSumStride<D>, shared.maxima[writer],
                shared.weights[writer], task.group, ThreadHere() % kWarp);
    __syncthreads();
    FinishPart<D, kHalf, kMasked>(RowResults<D>{task, shared.row}, shared.part, shared, sums);
  } while (shared.part + 1 < shared.part_end);
  const RowResults<D> row{task, shared.row};
  if (kHalf && !shared.finishes) return;
  if (shared.parts > 1 && LastOfRow(row, shared)) MergeParts<D, kMasked>(row, shared, dynamic);
}

// Parts that a row of this model may have: about two CTAs an SM for a single sequence, as far as kBucket places have
// room for them in scratch.
int32_t MaxParts(const KvGeometry& g) {
  const int64_t room = kPartialFloats / (int64_t{kBucket} * g.num_q_heads * (g.head_dim + 2));
  const int64_t wanted = std::clamp(256 / g.num_kv_heads, 32, kMaxParts);
  return static_cast<int32_t>(std::max<int64_t>(1, std::min(wanted, room)));
}

// CTAs to launch a row: four waves of them, so that rows of different lengths even out, as far as the longest list has
// work for them.
int32_t CtasPerRow(int32_t max_rounds, int32_t max_parts, int32_t num_rows, int32_t to_fill) {
  const int32_t waves = 4 * kCtasPerSm * Traits().num_sms / num_rows;
  const int32_t ctas = CtasOfRow(max_rounds, max_parts, std::max(waves, 1), to_fill);
  return CeilDiv(max_parts, CeilDiv(max_parts, ctas));
}

// Places of one launch: as many as scratch has room for, and as SlotList can count the tokens of.
int32_t PlacesPerLaunch(const PagedAttentionParams& p) {
  const KvGeometry& g = p.tables.geometry;
  const int64_t in_scratch = std::min(kPartialFloats / (int64_t{g.num_q_heads} * (g.head_dim + 2)),
                                      kTickets / g.num_kv_heads);
  const int64_t tokens = int64_t{g.num_kv_heads} * p.max_list * g.page_tokens;
  const int64_t countable = (INT32_MAX - 4 * kRoundTokens) / tokens;  // steps look past a list
  const int64_t places = std::min(in_scratch, countable);
  SPIN_CHECK_GE(places, 1);
  return static_cast<int32_t>(std::min<int64_t>(places, p.decode.max_batch));
}

template <int D>
auto KernelFor(const PagedAttentionParams& p) {
  const bool halves = p.part != ListPart::kAll;
  if (p.page_mask != nullptr || p.estimate != nullptr) {
    return halves ? AttendBf16<D, true, true, true> : AttendBf16<D, true, false, true>;
  }
  if (p.tables.geometry.page_tokens == 8) {
    return halves ? AttendBf16<D, true, true, false> : AttendBf16<D, true, false, false>;
  }
  return halves ? AttendBf16<D, false, true, false> : AttendBf16<D, false, false, false>;
}

template <int D>
void LaunchBf16(const PagedAttentionParams& p, const Scratch& scratch, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  const int32_t places = PlacesPerLaunch(p);
  const int32_t num_rows = places * g.num_kv_heads;
  const int64_t row_floats = int64_t{g.group()} * (D + 2);
  const int32_t max_rounds = CeilDiv(p.max_list * g.page_tokens, kRoundTokens);
  // Half a list leaves its parts in scratch: there all places need room, for a part of each half at least.
  const bool halves = p.part != ListPart::kAll;
  static_assert(2 * kMaxHalvedHeads * (D + 2) <= kPartialFloats);
  const int64_t rows_in_scratch = halves ? int64_t{p.decode.max_batch} * g.num_kv_heads : num_rows;
  const int64_t room = kPartialFloats / (rows_in_scratch * row_floats);
  PagedTask task;
  task.num_rows = p.decode.num_rows;
  task.position = p.decode.position;
  task.slots = static_cast<const char*>(p.tables.slots);
  task.max_list = p.max_list;
  task.page_shift = std::countr_zero(static_cast<uint32_t>(g.page_tokens));
  task.num_kv_heads = g.num_kv_heads;
  task.group = g.group();
  task.max_parts =
      static_cast<int32_t>(std::max<int64_t>(halves ? 2 : 0, std::min<int64_t>(MaxParts(g), room)));
  task.part_stride = std::min(task.max_parts, max_rounds + (halves ? 1 : 0));
  task.list_part = p.part;
  const int64_t row_heads = int64_t{task.part_stride} * g.group();
  auto* const states =
      reinterpret_cast<float2*>(scratch.partials + rows_in_scratch * row_heads * D);
  task.tickets = scratch.tickets;
  task.scale = 1.44269504f / std::sqrt(static_cast<float>(D));
  task.ctas_to_fill = std::max(1, kCtasPerSm * Traits().num_sms / num_rows);
  const int32_t ctas = CtasPerRow(max_rounds, task.part_stride, num_rows, task.ctas_to_fill);
  // The warps' states, then what the groups of threads that merge parts hand each other.
  const size_t shared_bytes = std::max(StateBytes<D>(g.group()), kThreads * sizeof(float4));
  for (int32_t first = 0; first < p.decode.max_batch; first += places) {
    task.first_place = first;
    task.rows = p.decode.rows + first;
    task.qkv = static_cast<const Bf16*>(p.qkv) + first * QkvWidth(g);
    task.page_list = p.page_list + int64_t{first} * g.num_kv_heads * p.max_list;
    task.list_len = p.list_len + int64_t{first} * g.num_kv_heads;
    task.ready_tokens = p.ready_tokens + (halves ? int64_t{first} * g.num_kv_heads : 0);
    const int64_t first_stream = int64_t{first} * g.num_kv_heads;
    task.page_mask = p.page_mask == nullptr ? nullptr : p.page_mask + first_stream * p.max_list;
    task.estimate =
        p.estimate == nullptr ? nullptr : p.estimate + first_stream * g.group() * (D + 2);
    task.out = static_cast<Bf16*>(p.out) + int64_t{first} * g.num_q_heads * D;
    const int64_t part_heads = halves ? first * g.num_kv_heads * row_heads : 0;
    task.part_sums = scratch.partials + part_heads * D;
    task.part_states = states + part_heads;
    const dim3 grid(static_cast<unsigned>(ctas), static_cast<unsigned>(g.num_kv_heads),
                    static_cast<unsigned>(std::min(places, p.decode.max_batch - first)));
    Launch(KernelFor<D>(p), grid, kThreads, shared_bytes, stream, task);
  }
}

}  // namespace

void PagedAttention(const PagedAttentionParams& p, const Scratch& scratch, cudaStream_t stream) {
  const KvGeometry& g = p.tables.geometry;
  SPIN_CHECK(g.dtype == DType::kF32 || g.dtype == DType::kBf16);
  SPIN_CHECK(g.head_dim == 64 || g.head_dim == 128);
  SPIN_CHECK(g.page_tokens >= 8 && g.page_tokens <= kRoundTokens &&
             std::has_single_bit(static_cast<uint32_t>(g.page_tokens)));
  static_assert(kMaxQueryGroup == kMaxGroup);
  SPIN_CHECK(1 <= g.group() && g.group() <= kMaxGroup);
  SPIN_CHECK(p.part == ListPart::kAll ||
             int64_t{p.decode.max_batch} * g.num_q_heads <= kMaxHalvedHeads);
  const bool masked = p.page_mask != nullptr || p.estimate != nullptr;
  SPIN_CHECK(!masked || g.page_tokens == kClusterPageTokens);
  if (p.decode.max_batch == 0) return;
  if (g.dtype == DType::kF32) {
    g.head_dim == 64 ? LaunchF32<64>(p, scratch, stream) : LaunchF32<128>(p, scratch, stream);
  } else {
    g.head_dim == 64 ? LaunchBf16<64>(p, scratch, stream) : LaunchBf16<128>(p, scratch, stream);
  }
}

}  // namespace spin::cuda
