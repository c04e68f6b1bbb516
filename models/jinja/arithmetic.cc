#include <cmath>
#include <limits>

#include "models/jinja/operators.h"
#include "models/jinja/python_repr.h"

namespace spin::jinja {

namespace {

absl::Status Overflow() {
  return InvalidArgument("an integer does not fit in 64 bits");
}

absl::Status TypeError(std::string_view op, const Value& a, const Value& b) {
  return InvalidArgument("'%s' does not work on %s and %s", op, TypeName(a), TypeName(b));
}

// Python rounds towards minus infinity; the remainder has the sign of the divisor.
int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

int64_t FloorRemainder(int64_t a, int64_t b) {
  const int64_t remainder = a % b;
  return remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder;
}

double FloatRemainder(double a, double b) {
  const double remainder = std::fmod(a, b);
  return remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder;
}

absl::StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return InvalidArgument("zero has no negative power");
    return Value::Double(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return Value::Int(result);
}

absl::StatusOr<Value> Integers(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "**") return IntegerPower(a, b);
  if (op == "+") {
    if (__builtin_add_overflow(a, b, &result)) return Overflow();
    return Value::Int(result);
  }
  if (op == "-") {
    if (__builtin_sub_overflow(a, b, &result)) return Overflow();
    return Value::Int(result);
  }
  if (op == "*") {
    if (__builtin_mul_overflow(a, b, &result)) return Overflow();
    return Value::Int(result);
  }
  if (b == 0) return InvalidArgument("division by zero");
  if (op == "/") return Value::Double(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) {  // the smallest integer has no positive twin
    if (op == "%") return Value::Int(0);
    if (a == std::numeric_limits<int64_t>::min()) return Overflow();
  }
  return Value::Int(op == "//" ? FloorDivide(a, b) : FloorRemainder(a, b));
}

absl::StatusOr<Value> Floats(std::string_view op, double a, double b) {
  if (op == "+") return Value::Double(a + b);
  if (op == "-") return Value::Double(a - b);
  if (op == "*") return Value::Double(a * b);
  if (op == "**") {
    const double power = std::pow(a, b);
    if (!std::isfinite(power) && std::isfinite(a) && std::isfinite(b)) {
      return InvalidArgument("a power is too large");
    }
    if (std::isnan(power) && !std::isnan(a) && !std::isnan(b)) {
      return InvalidArgument("a power is not a real number");
    }
    return Value::Double(power);
  }
  if (b == 0) return InvalidArgument("division by zero");
  if (op == "/") return Value::Double(a / b);
  if (op == "//") return Value::Double(std::floor((a - FloatRemainder(a, b)) / b + 0.5));
  return Value::Double(FloatRemainder(a, b));
}

absl::StatusOr<Value> Repeat(Context& context, const Value& value, int64_t times) {
  if (times < 0) times = 0;
  if (value.is_string()) {
    const std::string& text = value.string_value();
    if (!text.empty() && times > static_cast<int64_t>(kMaxStringBytes / text.size())) {
      return InvalidArgument("a string of %d times %d bytes is too long", times, text.size());
    }
    std::string out;
    out.reserve(text.size() * static_cast<size_t>(times));
    for (int64_t i = 0; i < times && !text.empty(); ++i) out.append(text);
    return context.NewString(std::move(out));
  }
  const ValueList& items = value.items();
  if (!items.empty() && times > kMaxSteps / static_cast<int64_t>(items.size())) {
    return InvalidArgument("a list of %d times %d items is too long", times, items.size());
  }
  ValueList out;
  for (int64_t i = 0; i < times && !items.empty(); ++i) {
    SPIN_RETURN_IF_ERROR(context.Step(static_cast<int64_t>(items.size())));
    out.insert(out.end(), items.begin(), items.end());
  }
  return context.NewSequence(value.sequence_type(), std::move(out));
}

bool IsListOrTuple(const Value& value) {
  return value.is_sequence() && value.sequence_type() <= SequenceType::kTuple;
}

absl::StatusOr<Value> Join(Context& context, const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    SPIN_RETURN_IF_ERROR(context.Bytes(a.string_value().size() + b.string_value().size()));
    return Value::String(a.string_value() + b.string_value());
  }
  const bool lists = IsListOrTuple(a) && IsListOrTuple(b) && a.sequence_type() == b.sequence_type();
  if (!lists) return TypeError("+", a, b);
  ValueList out = a.items();
  out.insert(out.end(), b.items().begin(), b.items().end());
  return context.NewSequence(a.sequence_type(), std::move(out));
}

}  // namespace

absl::StatusOr<Value> Arithmetic(Context& context, std::string_view op, const Value& a,
                                 const Value& b) {
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  if (a.is_integral() && b.is_integral()) return Integers(op, a.integral(), b.integral());
  if (a.is_number() && b.is_number()) return Floats(op, a.number(), b.number());
  if (op == "+") return Join(context, a, b);
  if (op == "*") {
    const bool left = a.is_string() || IsListOrTuple(a);
    const bool right = b.is_string() || IsListOrTuple(b);
    if (left && b.is_integral()) return Repeat(context, a, b.integral());
    if (right && a.is_integral()) return Repeat(context, b, a.integral());
  }
  return TypeError(op, a, b);
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_double()) return Value::Double(-value.double_value());
  if (!value.is_integral()) return InvalidArgument("'-' does not work on %s", TypeName(value));
  if (value.integral() == std::numeric_limits<int64_t>::min()) return Overflow();
  return Value::Int(-value.integral());
}

}  // namespace spin::jinja
