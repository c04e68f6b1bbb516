// The syntax tree of a template. Immutable once parsed; owned by the Template, shared by concurrent
// renders.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/jinja/value.h"

namespace spin::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using StatementPtr = std::unique_ptr<Statement>;
using Body = std::vector<StatementPtr>;

enum class ExpressionKind {
  kConstant,     // value
  kName,         // name
  kList,         // operands
  kTuple,        // operands; as a target of set and for: names, tuples and attributes of namespaces
  kDict,         // operands: key, value, key, value, ...
  kAttribute,    // operands[0].name
  kSubscript,    // operands[0][operands[1]]
  kSlice,        // operands[0][operands[1]:operands[2]:operands[3]]; absent bounds are null
  kCall,         // operands[0](operands[1...], keywords)
  kFilter,       // operands[0] | name(operands[1...], keywords)
  kTest,         // operands[0] is name(operands[1...], keywords)
  kBlockText,    // what the enclosing filter or set block captured
  kNot,          // not operands[0]
  kNegative,     // -operands[0]
  kPositive,     // +operands[0]
  kAnd,          // operands[0] and operands[1]
  kOr,           // operands[0] or operands[1]
  kArithmetic,   // operands[0] name operands[1]
  kConcat,       // operands joined by ~
  kComparison,   // operands[0] names[0] operands[1] names[1] operands[2] ...
  kConditional,  // operands[1] if operands[0] else operands[2] (may be null)
};

struct Expression {
  ExpressionKind kind;
  int line = 1;
  int depth = 1;  // levels of expressions below, this one included
  Value value;
  std::string name;
  std::vector<ExpressionPtr> operands;
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;
  std::vector<std::string> names;  // comparison operators: == != < <= > >= in notin
};

enum class StatementKind {
  kText,         // text
  kOutput,       // {{ expression }}
  kIf,           // branches; body is the else part
  kFor,          // for target in expression if test: body, else other
  kSet,          // target = expression
  kSetBlock,     // target = body, through the filters of expression (null: none)
  kMacro,        // macro
  kCallBlock,    // expression (a kCall), macro is the caller
  kFilterBlock,  // body through the filters of expression
  kWith,         // bindings, body
  kScope,        // {% generation %}: body in a scope of its own
  kBreak,
  kContinue,
};

// A macro or the body of a call block.
struct MacroStatement {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of the last parameters
  Body body;
  bool uses_caller = false;  // the body names `caller`, `varargs`, `kwargs`
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

struct Statement {
  StatementKind kind;
  int line = 1;
  std::string text;
  ExpressionPtr target;
  ExpressionPtr expression;
  ExpressionPtr test;
  std::vector<std::pair<ExpressionPtr, Body>> branches;           // of if and elif
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> bindings;  // of with: target, value
  std::unique_ptr<MacroStatement> macro;
  Body body;
  Body other;
};

}  // namespace spin::jinja
