"""Records chat_template_cases.json: what Jinja itself renders, for tests/models/jinja/chat_template_test.cc.

Templates are compiled by transformers' own function (the environment of apply_chat_template) and once more by an
environment set up here in the same way; the two must agree. Run with jinja2 and transformers installed:

    python3 tests/models/testdata/make_chat_template_cases.py TOKENIZERS

TOKENIZERS holds qwen3/tokenizer_config.json and llama3.1/tokenizer_config.json, whose templates are recorded too.
strftime_now is fixed to 2024-07-26 00:00:00 UTC.
"""

import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox
from transformers.utils import chat_template_utils

from chat_template_expressions import EXPRESSIONS, PARSE_ERRORS, VARIABLES
from chat_template_sources import TEMPLATES

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime(2024, 7, 26, tzinfo=datetime.timezone.utc)


def strftime_now(format):
    return NOW.strftime(format)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(lineno)

    def _text(self, caller):
        return caller()


class Namespace(jinja2.utils.Namespace):
    """transformers keeps names with a leading underscore out of namespaces."""

    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        for name in dict(*args, **kwargs):
            Namespace.check(name)
        jinja2.utils.Namespace.__init__(self, *args, **kwargs)

    def __setitem__(self, name, value):
        Namespace.check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(name)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def own_compile(source):
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    env.globals["namespace"] = Namespace
    return env.from_string(source)


def transformers_compile(source):
    template = chat_template_utils._compile_jinja_template(source)
    template.globals["strftime_now"] = strftime_now
    return template


def render(compile, source, variables):
    """{"expected": text}, {"raised": words of raise_exception} or {"error": true}."""
    try:
        return {"expected": compile(source).render(**variables)}
    except jinja2.exceptions.TemplateError as error:
        if type(error) is jinja2.exceptions.TemplateError:
            return {"raised": str(error)}
        return {"error": True}
    except (TypeError, ValueError, OverflowError, ZeroDivisionError, RecursionError, KeyError, AttributeError):
        return {"error": True}


def record(source, variables):
    own = render(own_compile, source, variables)
    theirs = render(transformers_compile, source, variables)
    if own != theirs:
        raise SystemExit(f"the environments disagree on {source!r}:\n{own}\n{theirs}")
    return own


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city, in °C or \"°F\" <now>",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name & country"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                    "days": {"type": "array", "items": {"type": "integer"}, "default": [1, 2.5, None, True]},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}},
]


def call(name, arguments, id="call00001"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


USER = {"role": "user", "content": "What is the weather in Zürich?"}
CONVERSATIONS = {
    "user": [USER],
    "blank": [{"role": "user", "content": "  \n padded \t"}],
    "system": [{"role": "system", "content": "You are\n terse. "}, USER],
    "turns": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi {{ name }} {% if %}"},
        {"role": "assistant", "content": "Hello! 你好 🙂"},
        {"role": "user", "content": "And \"now\"?\n\n"},
        {"role": "assistant", "content": " Fine.\n"},
        {"role": "user", "content": "Bye"},
    ],
    "ends_with_assistant": [USER, {"role": "assistant", "content": "Sunny"}],
    "thinking": [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>\nOne and one.\n</think>\n\n2"},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4", "reasoning_content": "\nTwo and two.\n"},
    ],
    "two_users": [USER, {"role": "user", "content": "Again"}],
    "starts_with_assistant": [{"role": "assistant", "content": "Hm"}, USER],
    "bad_role": [{"role": "wizard", "content": "Abracadabra"}],
    "tool": [
        {"role": "system", "content": "Use tools."},
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call("get_weather", {"city": "Zürich", "n": [1, 2.0, {}]})]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "{\"temperature\": 21.5}"},
        {"role": "assistant", "content": "It is 21.5 °C."},
        {"role": "user", "content": "Thanks"},
    ],
    "tools_twice": [
        USER,
        {"role": "assistant", "content": "Let me see.",
         "tool_calls": [call("get_weather", {"city": "Bern"}), call("now", {}, "call00002")]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "rain"},
        {"role": "tool", "name": "now", "tool_call_id": "call00002", "content": "12:00"},
    ],
    "tool_text_arguments": [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call("get_weather", "{\"city\": \"Bern\"}")]},
        {"role": "tool", "name": "get_weather", "content": "snow"},
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}, {"type": "text", "text": "ok"}]}],
    "empty": [],
}

SETTINGS = {
    "plain": {},
    "generate": {"add_generation_prompt": True},
    "think": {"add_generation_prompt": True, "enable_thinking": True},
    "no_think": {"add_generation_prompt": True, "enable_thinking": False},
    "tools": {"add_generation_prompt": True, "tools": TOOLS},
    "tools_no_prompt": {"tools": TOOLS},
}


def main():
    tokenizers = pathlib.Path(sys.argv[1])
    templates = dict(TEMPLATES)
    for name in ("qwen3", "llama3.1"):
        templates[name] = json.loads((tokenizers / name / "tokenizer_config.json").read_text())["chat_template"]
    # The variables that apply_chat_template always gives, with the special tokens.
    base = {"add_generation_prompt": False, "tools": None, "documents": None, "bos_token": "<s>", "eos_token": "</s>"}
    cases = []
    for template, source in sorted(templates.items()):
        for conversation, messages in CONVERSATIONS.items():
            for setting, extra in SETTINGS.items():
                result = record(source, {**base, "messages": messages, **extra})
                cases.append({"template": template, "conversation": conversation, "setting": setting, **result})
    expressions = [{"source": source, **record(source, VARIABLES)} for source in EXPRESSIONS]
    data = {
        "base": base,
        "templates": templates,
        "conversations": CONVERSATIONS,
        "settings": SETTINGS,
        "cases": cases,
        "variables": VARIABLES,
        "expressions": expressions,
        "parse_errors": [{"source": source, "line": line, "names": names} for source, line, names in PARSE_ERRORS],
    }
    path = HERE.parent / "jinja" / "chat_template_cases.json"
    path.write_text(json.dumps(data, ensure_ascii=False, indent=0) + "\n")
    errors = sum("expected" not in entry for entry in cases + expressions)
    print(f"{len(cases)} cases, {len(expressions)} expressions, {errors} of them errors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
