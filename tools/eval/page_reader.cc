#include "tools/eval/page_reader.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/math.h"

namespace spin::eval {

absl::StatusOr<std::unique_ptr<PageReader>> PageReader::Create(Device& device,
                                                               const KvGeometry& geometry) {
  const int64_t qkv = int64_t{geometry.num_q_heads + 2 * geometry.num_kv_heads} * geometry.head_dim;
  SPIN_ASSIGN_OR_RETURN(Buffer words,
                        device.Allocate(MemoryKind::kPinned, int64_t{geometry.max_extents} * 4));
  SPIN_ASSIGN_OR_RETURN(Buffer token,
                        device.Allocate(MemoryKind::kPinned, qkv * SizeOf(geometry.dtype)));
  SPIN_ASSIGN_OR_RETURN(
      Buffer extents,
      device.Allocate(MemoryKind::kPinned, geometry.max_extents * geometry.extent_bytes()));
  return std::unique_ptr<PageReader>(
      new PageReader(device, std::move(words), std::move(token), std::move(extents)));
}

int32_t PageReader::FetchInt(const int32_t* from, Stream& stream) {
  device_.Copy(words_.data(), from, sizeof(int32_t), stream);
  device_.Synchronize(stream);
  return *words_.as<int32_t>();
}

int32_t PageReader::NumRows(const DecodeStage& stage) {
  return FetchInt(stage.decode.num_rows, stage.stream);
}

// Resident: page p lies in slot p. Tiered: the host has every page, since new tokens are written through.
void PageReader::FetchExtents(const DecodeStage& stage, int32_t row, int32_t count) {
  const KvTables& tables = stage.tables;
  const KvGeometry& geometry = tables.geometry;
  const auto placement = static_cast<Placement>(FetchInt(tables.placement + row, stage.stream));
  const bool tiered = placement == Placement::kTiered;
  const int32_t* directory = tiered ? tables.host_dir : tables.slot_dir;
  const auto* pool = static_cast<const std::byte*>(tiered ? tables.host_pages : tables.slots);
  device_.Copy(words_.data(), directory + geometry.DirIndex(row, stage.layer, 0),
               int64_t{count} * 4, stage.stream);
  device_.Synchronize(stage.stream);
  const int64_t bytes = geometry.extent_bytes();
  for (int32_t i = 0; i < count; ++i) {
    const int32_t extent = words_.as<int32_t>()[i];
    SPIN_CHECK(extent != kAbsent);
    device_.Copy(extents_.as<std::byte>() + i * bytes, pool + extent * bytes, bytes, stage.stream);
  }
}

void PageReader::CopyKeys(const KvGeometry& geometry, int32_t position, LayerView& view) const {
  const int32_t pages = position / geometry.page_tokens + 1;
  const int64_t plane = geometry.plane_elements();
  view.keys.assign(static_cast<size_t>(geometry.num_kv_heads * pages * plane), 0.0f);
  float* to = view.keys.data();
  for (int32_t head = 0; head < geometry.num_kv_heads; ++head) {
    for (int32_t page = 0; page < pages; ++page, to += plane) {
      const int32_t tokens = std::min(position - page * geometry.page_tokens, geometry.page_tokens);
      const int64_t index =
          geometry.PageIndex(page / geometry.extent_pages(), head, page % geometry.extent_pages());
      ConvertElements(to, DType::kF32, extents_.as<std::byte>() + index * geometry.page_bytes(),
                      geometry.dtype, int64_t{tokens} * geometry.head_dim);
    }
  }
}

void PageReader::Read(const DecodeStage& stage, int32_t place, LayerView& view) {
  const KvGeometry& geometry = stage.tables.geometry;
  const int32_t row = FetchInt(stage.decode.rows + place, stage.stream);
  view.position = FetchInt(stage.decode.position + row, stage.stream);
  FetchExtents(stage, row, CeilDiv(view.position + 1, kExtentTokens));
  const int64_t width =
      int64_t{geometry.num_q_heads + 2 * geometry.num_kv_heads} * geometry.head_dim;
  const int64_t bytes = width * SizeOf(geometry.dtype);
  device_.Copy(qkv_.data(), static_cast<const std::byte*>(stage.qkv) + place * bytes, bytes,
               stage.stream);
  device_.Synchronize(stage.stream);
  CopyKeys(geometry, view.position, view);

  std::vector<float> token(static_cast<size_t>(width));
  ConvertElements(token.data(), DType::kF32, qkv_.data(), geometry.dtype, width);
  const float* own = token.data() + int64_t{geometry.num_q_heads} * geometry.head_dim;
  view.queries.assign(static_cast<const float*>(token.data()), own);
  const int64_t head_keys = view.num_pages(geometry.page_tokens) * geometry.plane_elements();
  for (int32_t head = 0; head < geometry.num_kv_heads; ++head) {
    std::copy_n(own + int64_t{head} * geometry.head_dim, geometry.head_dim,
                view.keys.data() + head * head_keys + int64_t{view.position} * geometry.head_dim);
  }
}

}  // namespace spin::eval
