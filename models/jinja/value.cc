#include "models/jinja/value.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spin::jinja {

namespace {

constexpr size_t kLinearEntries = 8;  // up to here a scan beats the tree

}  // namespace

struct Value::SequenceBox {
  SequenceType type;
  ValueList items;
  std::string repr;
  int depth = 1;
  mutable bool taken = false;  // a generator that was read; generators never leave one render
};

struct Value::MapBox {
  Dict dict;
  int depth = 1;
};

Value Value::Undefined(std::string why) {
  Value value;
  value.data_ = UndefinedBox{std::make_shared<const std::string>(std::move(why))};
  return value;
}

Value Value::None() {
  Value value;
  value.data_ = NoneBox{};
  return value;
}

Value Value::Bool(bool flag) {
  Value value;
  value.data_ = flag;
  return value;
}

Value Value::Int(int64_t number) {
  Value value;
  value.data_ = number;
  return value;
}

Value Value::Double(double number) {
  Value value;
  value.data_ = number;
  return value;
}

Value Value::String(std::string text) {
  Value value;
  value.data_ = std::make_shared<const std::string>(std::move(text));
  return value;
}

Value Value::List(ValueList items) {
  return Sequence(SequenceType::kList, std::move(items));
}

Value Value::Tuple(ValueList items) {
  return Sequence(SequenceType::kTuple, std::move(items));
}

Value Value::Sequence(SequenceType type, ValueList items, std::string repr) {
  auto box = std::make_shared<SequenceBox>();
  box->type = type;
  for (const Value& item : items) box->depth = std::max(box->depth, 1 + item.depth());
  box->items = std::move(items);
  box->repr = std::move(repr);
  Value value;
  value.data_ = std::shared_ptr<const SequenceBox>(std::move(box));
  return value;
}

Value Value::Map(Dict dict) {
  auto box = std::make_shared<MapBox>();
  for (const Dict::Entry& entry : dict.entries()) {
    box->depth = std::max(box->depth, 1 + entry.value.depth());
  }
  box->dict = std::move(dict);
  Value value;
  value.data_ = std::shared_ptr<const MapBox>(std::move(box));
  return value;
}

Value Value::FromObject(std::shared_ptr<Object> object) {
  SPIN_CHECK(object != nullptr);
  Value value;
  value.data_ = std::move(object);
  return value;
}

bool Value::is_sequence(SequenceType type) const {
  return is_sequence() && sequence_type() == type;
}

const ValueList& Value::items() const {
  return std::get<std::shared_ptr<const SequenceBox>>(data_)->items;
}

SequenceType Value::sequence_type() const {
  return std::get<std::shared_ptr<const SequenceBox>>(data_)->type;
}

const std::string& Value::sequence_repr() const {
  return std::get<std::shared_ptr<const SequenceBox>>(data_)->repr;
}

const Dict& Value::map() const {
  return std::get<std::shared_ptr<const MapBox>>(data_)->dict;
}

std::string Value::undefined_message() const {
  const StringPtr& why = std::get<UndefinedBox>(data_).why;
  return why == nullptr ? "value is undefined" : *why;
}

int Value::depth() const {
  if (is_sequence()) return std::get<std::shared_ptr<const SequenceBox>>(data_)->depth;
  if (is_map()) return std::get<std::shared_ptr<const MapBox>>(data_)->depth;
  return 0;
}

bool Value::TakeGenerator() const {
  SPIN_CHECK(is_sequence(SequenceType::kGenerator));
  return !std::exchange(std::get<std::shared_ptr<const SequenceBox>>(data_)->taken, true);
}

bool Value::SameAs(const Value& other) const {
  if (kind() != other.kind()) return false;
  if (is_sequence()) return &items() == &other.items();
  if (is_map()) return &map() == &other.map();
  if (is_object()) return object() == other.object();
  return is_undefined() || ScalarsEqual(*this, other);
}

void Dict::Set(std::string_view key, Value value) {
  Set(Value::String(std::string(key)), std::move(value));
}

void Dict::Set(Value key, Value value) {
  SPIN_CHECK(IsKey(key));
  const size_t at = IndexOf(key);
  if (at < entries_.size()) {
    entries_[at].value = std::move(value);
    return;
  }
  entries_.push_back({std::move(key), std::move(value)});
  if (entries_.size() <= kLinearEntries) return;
  for (size_t i = index_.empty() ? 0 : entries_.size() - 1; i < entries_.size(); ++i) {
    if (entries_[i].key.is_string()) index_.emplace(entries_[i].key.string_value(), i);
  }
}

const Value* Dict::Find(std::string_view key) const {
  const size_t at = IndexOf(key);
  return at < entries_.size() ? &entries_[at].value : nullptr;
}

const Value* Dict::Find(const Value& key) const {
  const size_t at = IndexOf(key);
  return at < entries_.size() ? &entries_[at].value : nullptr;
}

bool Dict::IsKey(const Value& key) {
  return key.is_none() || key.is_number() || key.is_string();
}

size_t Dict::IndexOf(std::string_view key) const {
  if (entries_.size() > kLinearEntries) {
    const auto it = index_.find(key);
    return it == index_.end() ? entries_.size() : it->second;
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].key.is_string() && entries_[i].key.string_value() == key) return i;
  }
  return entries_.size();
}

size_t Dict::IndexOf(const Value& key) const {
  if (key.is_string()) return IndexOf(std::string_view(key.string_value()));
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (ScalarsEqual(entries_[i].key, key)) return i;
  }
  return entries_.size();
}

bool ScalarsEqual(const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) return a.string_value() == b.string_value();
  if (a.is_none() && b.is_none()) return true;
  if (!a.is_number() || !b.is_number()) return false;
  if (a.is_integral() && b.is_integral()) return a.integral() == b.integral();
  return a.number() == b.number();
}

}  // namespace spin::jinja
