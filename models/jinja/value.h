// jinja::Value: what a template sees. The JSON types, Python's tuple and lazy sequences, undefined,
// and the interpreter's own objects (namespaces, macros, functions).
//
// A Value is immutable and cheap to copy (strings and containers are shared); copies may be read by
// any thread. The HTTP layer builds one from JSON with the factories below:
//
//   Dict message;
//   message.Set("role", Value::String("user"));
//   message.Set("content", Value::String(text));
//   Dict variables;
//   variables.Set("messages", Value::List({Value::Map(std::move(message))}));
//   chat_template.Render(Value::Map(std::move(variables)));
//
// Strings hold UTF-8. Containers are freed recursively: who builds them from hostile input bounds
// the nesting (rendering refuses more than kMaxValueDepth levels).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace spin::jinja {

class Dict;
class Object;
class Value;

using ValueList = std::vector<Value>;

enum class Kind { kUndefined, kNone, kBool, kInt, kDouble, kString, kSequence, kMap, kObject };

// The Python type behind a kSequence: lists and tuples differ in printing and equality, a generator
// is always true, has no length and can be read once.
enum class SequenceType { kList, kTuple, kRange, kGenerator, kDictKeys, kDictValues, kDictItems };

class Value {
 public:
  Value() = default;  // undefined

  // `why` is the message of the error that using the value raises, as "'tools' is undefined".
  static Value Undefined(std::string why);
  static Value None();
  static Value Bool(bool value);
  static Value Int(int64_t value);
  static Value Double(double value);
  static Value String(std::string text);
  static Value List(ValueList items);
  static Value Tuple(ValueList items);
  static Value Sequence(SequenceType type, ValueList items, std::string repr = "");
  static Value Map(Dict dict);
  static Value FromObject(std::shared_ptr<Object> object);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_bool() const { return kind() == Kind::kBool; }
  bool is_int() const { return kind() == Kind::kInt; }
  bool is_double() const { return kind() == Kind::kDouble; }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_sequence() const { return kind() == Kind::kSequence; }
  bool is_sequence(SequenceType type) const;
  bool is_map() const { return kind() == Kind::kMap; }
  bool is_object() const { return kind() == Kind::kObject; }
  // Python's int: integers and booleans.
  bool is_integral() const { return is_int() || is_bool(); }
  bool is_number() const { return is_integral() || is_double(); }
  bool is_true() const { return is_bool() && bool_value(); }

  // REQUIRES: the kind that the name says.
  bool bool_value() const { return std::get<bool>(data_); }
  int64_t int_value() const { return std::get<int64_t>(data_); }
  double double_value() const { return std::get<double>(data_); }
  const std::string& string_value() const { return *std::get<StringPtr>(data_); }
  const ValueList& items() const;
  SequenceType sequence_type() const;
  const std::string& sequence_repr() const;  // "range(0, 3)" of a range, else empty
  const Dict& map() const;
  const std::shared_ptr<Object>& object() const { return std::get<std::shared_ptr<Object>>(data_); }
  // Integers and booleans. REQUIRES: is_integral().
  int64_t integral() const { return is_bool() ? bool_value() : int_value(); }
  // REQUIRES: is_number().
  double number() const { return is_double() ? double_value() : static_cast<double>(integral()); }
  // REQUIRES: is_undefined().
  std::string undefined_message() const;

  // Levels of containers: 0 for a scalar or an object, 1 for a list of scalars.
  int depth() const;

  // True for the first reader of a generator, false afterwards. REQUIRES: a generator.
  bool TakeGenerator() const;

  // Python's `is`: the same container or object, or equal scalars of one type.
  bool SameAs(const Value& other) const;

 private:
  struct SequenceBox;
  struct MapBox;
  using StringPtr = std::shared_ptr<const std::string>;
  struct UndefinedBox {
    StringPtr why;  // null: "value is undefined"
  };
  struct NoneBox {};

  // In the order of Kind.
  std::variant<UndefinedBox, NoneBox, bool, int64_t, double, StringPtr,
               std::shared_ptr<const SequenceBox>, std::shared_ptr<const MapBox>,
               std::shared_ptr<Object>>
      data_;
};

// A mapping that keeps the order of insertion, as Python's dict. Keys are scalars (JSON's are
// strings).
class Dict {
 public:
  struct Entry {
    Value key;
    Value value;
  };

  // Adds an entry, or replaces the value of an equal key in its place.
  void Set(std::string_view key, Value value);
  // REQUIRES: IsKey(key).
  void Set(Value key, Value value);

  // Null when absent. The pointer lives until the next Set.
  const Value* Find(std::string_view key) const;
  const Value* Find(const Value& key) const;

  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }

  // Whether `key` may be a key: None, booleans, numbers, strings.
  static bool IsKey(const Value& key);

 private:
  size_t IndexOf(std::string_view key) const;  // size() when absent
  size_t IndexOf(const Value& key) const;

  std::vector<Entry> entries_;
  // Positions of string keys, kept once there are more than a few (a tree: hostile keys cannot make
  // it slow). The views point into the keys' shared strings.
  std::map<std::string_view, size_t> index_;
};

// 1 == 1.0 == True; strings by bytes; None equals None. Containers and objects are never equal
// here.
bool ScalarsEqual(const Value& a, const Value& b);

}  // namespace spin::jinja
