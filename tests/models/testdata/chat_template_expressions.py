"""Small templates for make_chat_template_cases.py: the expression language and the statements, one feature each."""

VARIABLES = {
    "n": 7, "f": 2.5, "s": "Hello World", "u": "Zürich 你好 🙂", "empty": "", "none": None, "yes": True,
    "xs": [3, 1, 2], "words": ["b", "A", "c", "a"], "mixed": [1, "two", None, 2.5, True, [1], {"k": "v"}],
    "d": {"a": 1, "b": [1, 2], "items": "shadow", "get": 5}, "ws": " \t\n padded \n",
    "people": [{"name": "Bob", "age": 31, "tags": ["x"]}, {"name": "alice", "age": 25}, {"name": "Cid", "age": 31}],
}

# One expression a line.
_VALUES = r"""
1 + 2 * 3
7 // 2
-7 // 2
7 % 3
-7 % 3
7 % -3
2 ** 10
2 ** -1
7 / 2
6 / 2
1.5 + 1
0.1 + 0.2
1e16
1e15
1e-5
0.0001
123456789.123
1.0
-0.0
7.0 // 2
-7.5 % 2
1_000
0x1F
0b101
0o17
2 ** 3 ** 2
-2 ** 2
10 - 3 - 2
'a' + 'b'
'a' 'b'
'ab' * 3
3 * 'ab'
[1] * 2
[1] + [2, 3]
(1, 2) + (3,)
'a' ~ 1 ~ none ~ true
1 ~ 2
n ~ f ~ xs
true
false
none
True
None
[]
{}
()
(1,)
(1, 2)
[1, 'a', none, 2.0]
{'a': 1, 'b': [true]}
{1: 'x', none: 2}
1 < 2 < 3
1 < 3 < 2
1 == 1.0
true == 1
'a' < 'b'
[1, 2] < [1, 3]
1 != 2
'a' == 'a'
none == none
[1] == [1]
(1,) == [1]
1 in xs
9 not in xs
'ell' in s
'x' not in s
'a' in d
'z' in d
none in mixed
[1] in mixed
1 in (1, 2)
'' in ''
not true
not []
true and 0
[] or 'x'
1 and 2 or 3
none or none
not 1 == 2
'a' if true else 'b'
'a' if false
1 if 0 else 2 if 0 else 3
missing
missing is defined
missing is undefined
missing or 'x'
missing == missing
d.missing is defined
d['missing']
missing | length
s[0]
s[-1]
s[1:4]
s[::-1]
s[:-3]
s[::2]
s[10:2:-2]
u[1]
u[-1]
u[2:9]
xs[0]
xs[-1]
xs[1:]
xs[::-1]
xs[:1]
xs[5] is defined
xs[-5:5]
xs[2:0:-1]
(1, 2, 3)[1:]
d['a']
d.a
d.b[1]
d['items']
d.b.0
people[0].name
people[-1]['age']
mixed[6].k
s[5:1]
s.upper()
s.lower()
s.title()
u.upper()
u.lower()
'straße'.upper()
'éa'.capitalize()
"it's HERE".title()
s.split()
s.split('o')
'a,b,,c'.split(',')
'a b  c '.split()
' a b c '.split(none, 1)
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
' a b c '.rsplit(none, 1)
'a,b'.split(sep=',', maxsplit=1)
ws.strip()
ws.lstrip()
ws.rstrip()
'xxaxx'.strip('x')
'abcba'.lstrip('ab')
'abcba'.rstrip('ab')
'\u00a0x\u3000'.strip()
s.startswith('He')
s.endswith('ld')
s.startswith(('x', 'H'))
s.startswith('W', 6)
s.find('o')
s.find('o', 5)
s.rfind('o')
s.find('zz')
u.find('你')
s.index('W')
s.count('l')
s.count('')
s.replace('l', 'L')
s.replace('l', 'L', 1)
'ab'.replace('', '-')
'-'.join(['a', 'b'])
','.join('abc')
'abc'.isalpha()
'12'.isdigit()
'a1'.isalnum()
' '.isspace()
'AB'.isupper()
'ab'.islower()
''.isdigit()
'a.b.c'.partition('.')
'a.b.c'.rpartition('.')
'abc'.partition('x')
'abc'.rpartition('x')
'a\nb\r\nc\n'.splitlines()
'a\nb'.splitlines(true)
'abc'.removeprefix('a')
'abc'.removesuffix('c')
'ab'.center(5)
'ab'.center(6, '*')
'abc'.center(6)
'ab'.ljust(4, '.')
'ab'.rjust(4)
d.items()
d.keys()
d.values()
d.get('a')
d.get('z')
d.get('z', 9)
d
callable if false else 1
xs.index(2)
xs.count(1)
(1, 1).count(1)
xs | length
s | length
u | length
d | count
xs | first
xs | last
s | first
u | last
[] | first is defined
xs | sum
xs | min
xs | max
words | min
words | max
xs | sort
xs | sort(reverse=true)
words | sort
words | sort(case_sensitive=true)
people | sort(attribute='age') | map(attribute='name') | list
people | sort(attribute='age,name') | map(attribute='name') | join(' ')
people | map(attribute='name') | join(', ')
people | map(attribute='tags', default='-') | list
people | map(attribute='tags.0') | list
people | selectattr('tags', 'defined') | list | length
people | selectattr('age', 'eq', 31) | map(attribute='name') | list
people | rejectattr('age', 'gt', 30) | map(attribute='name') | first
people | sum(attribute='age')
people | groupby('age') | list | length
people | groupby('age') | map(attribute=0) | list
people | max(attribute='age')
people | join('|', attribute='name')
xs | select('odd') | list
xs | reject('odd') | list
mixed | select('string') | list
mixed | select | list
xs | map('string') | list
words | map('upper') | join
xs | select('gt', 1) | list
xs | select('in', [1, 9]) | list
words | unique | list
words | unique(case_sensitive=true) | list
xs | reverse | list
s | reverse
d | dictsort
{'B': 1, 'a': 2} | dictsort
{'B': 1, 'a': 2} | dictsort(true)
{'x': 2, 'y': 1} | dictsort(by='value')
d | items | list
d | list
s | list | length
xs | batch(2) | list
xs | batch(2, 0) | list
s | upper
s | lower
'hello wORLD-foo' | title
'hELLO' | capitalize
ws | trim
'xxaxx' | trim('x')
s | replace('o', '0')
s | replace('o', '0', 1)
n | string
'42' | int
'42.9' | int
'x' | int
'x' | int(5)
'0x1f' | int(0, 16)
2.9 | int
'1.5' | float
'x' | float
n | float
none | int(3)
-3 | abs
(-3) | abs
(-2.5) | abs
2.5 | round
3.5 | round
2.675 | round(2)
2.1 | round(0, 'ceil')
42.55 | round(1, 'floor')
7 | round
1234 | round(-2)
missing | default('x')
missing | d('y')
'' | default('x')
'' | default('x', true)
none | default('x')
missing | default
'<a href="x">&\'</a>' | escape
'<' | e
'<' | safe
'a b_c d' | wordcount
'a\nb\n\nc' | indent
'a\nb' | indent(2, true)
'a\n\nb' | indent(1, blank=true)
'a\nb' | indent('> ')
'ab' | center(6)
d | attr('a') is defined
mixed | tojson
d | tojson
u | tojson
u | tojson(ensure_ascii=true)
mixed | tojson(indent=2)
{} | tojson(indent=2)
{'b': 1, 'a': []} | tojson(sort_keys=true)
[1, {'a': 2}] | tojson(separators=(',', ':'))
'\x00\x1f\x7f"\\' | tojson
1e20 | tojson
'a/b' | tojson
{1: 2, none: 3, true: 4} | tojson
(1, 2) | tojson
[1, [2]] | tojson(indent='--')
n is odd
n is even
n is divisibleby 7
n is divisibleby(3)
n is number
f is float
n is integer
yes is integer
yes is boolean
yes is number
s is string
xs is string
d is mapping
xs is mapping
xs is iterable
s is iterable
n is iterable
d is iterable
xs is sequence
s is sequence
d is sequence
d.items() is sequence
none is none
n is none
n is not none
yes is true
yes is false
1 is true
n is eq 7
n is equalto 8
n is ne 8
n is gt 6
n is lt 6
n is ge 7
n is le 7
n is greaterthan 3
n is lessthan 3
n is in [7]
'ab' is lower
'AB' is upper
range is callable
n is callable
none is sameas none
xs is sameas xs
'upper' is filter
'odd' is test
'zzz' is filter
range(3)
range(3) | list
range(1, 4) | list
range(5, 0, -2) | list
range(3)[1]
range(10)[2:4] | list
range(0) | list
dict(a=1, b=2)
dict({'a': 1}, b=2)
dict([('a', 1)])
namespace(a=1).a
namespace(a=1)
namespace(a=1).b is defined
strftime_now('%Y-%m-%d')
strftime_now('%d %b %Y %H:%M')
"it's"
["it's"]
['"']
['\'"']
['\n\t\\']
['é\u200b\x01']
[1.5, 1e100, -0.0]
['你好']
'\x41\u00e9\101'
'\q'
'ab'
xs | map('abs') | list
[[1, 2], [3]] | sum(start=[])
[xs, xs]
xs is eq [3, 1, 2]
[1, true, 1.0] | unique | list
"""

# Statements and white space, one feature each.
_STATEMENTS = [
    "{% for x in xs %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ x }},{% endfor %}",
    "{% for x in xs if x > 1 %}{{ loop.index0 }}/{{ loop.length }}:{{ loop.revindex }}{{ loop.revindex0 }} {% endfor %}",
    "{% for x in [] %}a{% else %}none{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, (a, b) in [(1, (2, 3))] %}{{ k }}{{ a }}{{ b }}{% endfor %}",
    "{% for x in xs %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {{ loop.cycle('a', 'b') }} {{ loop.changed(x > 1) }} {% endfor %}",
    "{% for x in xs %}{% for y in words %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}",
    "{% for x in xs %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
    "{% for c in s %}{{ c }}.{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for x in missing %}{{ x }}{% endfor %}",
    "{% set x = 1 %}{% for i in xs %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, e) = xs[:2] %}{{ c }}{{ e }}",
    "{% set ns = namespace(t=0, l=[]) %}{% for x in xs %}{% set ns.t = ns.t + x %}{% set ns.l = ns.l + [x] %}{% endfor %}{{ ns.t }}{{ ns.l }}",
    "{% set x %}a{{ n }}b{% endset %}[{{ x }}]{% set y | upper | trim %} q {% endset %}[{{ y }}]",
    "{% if n > 9 %}a{% elif n > 6 %}b{% else %}c{% endif %}{% if missing %}x{% endif %}",
    "{% macro m(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m(b=5, a=4) }} {{ m() }}",
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k=4) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro fact(k) %}{% if k < 2 %}1{% else %}{{ k * (fact(k - 1) | int) }}{% endif %}{% endmacro %}{{ fact(6) }}",
    "{% macro wrap(t) %}<{{ t }}>{{ caller(t, n) }}</{{ t }}>{% endmacro %}{% call(x, y) wrap('b') %}{{ x }}{{ y }}{% endcall %}",
    "{% macro late() %}{{ v }}{% endmacro %}{% set v = 3 %}{{ late() }}",
    "{% macro inner() %}{{ loop is defined }}{% endmacro %}{% for x in [1] %}{{ inner() }}{% endfor %}",
    "{% set ns = namespace(f=none) %}{% macro g(x) %}<{{ x }}>{% endmacro %}{% set ns.f = g %}{{ ns.f(1) }}{{ g.name }}",
    "{% filter upper | replace('B', 'x') %}abc{{ n }}{% endfilter %}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% set a = 9 %}{% endwith %}{{ a is defined }}",
    "{% generation %}a{% set q = 1 %}{% endgeneration %}{{ q is defined }}",
    "{% raw %}{{ x }} {% if %}{% endraw %}|{#- note -#}| {% raw -%}  a  {%- endraw %}",
    "  {% if true %}\n  a\n  {% endif %}\nb\n",
    "x  {%- if true -%}  a  {%- endif -%}  y",
    "  {%+ if true %}a{% endif +%}\nb\n\n",
    "{{ 1 }}\n{{ 2 -}}\n {{- 3 }}\n",
    "a\n  {# c #}\n  b {# d #}\nc{#- e -#} \n d",
    "a\r\nb\rc{{ '\r\n' | length }}",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ '}}' }}{% set x = '%}' %}{{ x }}",
    "{% print n %}{{ (n, s) }}{{ n, s }}{% for a in 1, 2 %}{{ a }}{% endfor %}",
    "{{ raise_exception('stop ' ~ n) }}",
    "{% set g = xs | select %}{{ 'y' if [] | select else 'n' }}{{ g | list }}{{ g | list }}",
    "{{ missing.x }}", "{{ missing[0] }}", "{{ missing + 1 }}", "{{ missing() }}", "{{ 1 + 'a' }}", "{{ 'a' + 1 }}", "{{ none + 'a' }}",
    "{{ 1 / 0 }}", "{{ 1 % 0 }}", "{{ n.x.y }}", "{{ none.x.y }}", "{{ n() }}", "{{ 1 < 'a' }}", "{{ n | length }}", "{{ 1 in 'a' }}",
    "{{ 1 in none }}", "{{ missing | tojson }}", "{{ range(200000) }}", "{{ 'a'.split('') }}", "{{ xs | map('upper') | length }}",
    "{% for x in 3 %}{% endfor %}", "{% set a, b = [1] %}", "{% set n.x = 1 %}", "{{ namespace(_a=1) }}", "{{ [1, 'a'] | sort }}", "{{ xs[::0] }}",
    "{{ ','.join(xs) }}", "{{ s.startswith(1) }}", "{{ missing | int }}", "{{ [] | first.x }}", "{{ s.index('zz') }}", "{{ -s }}", "{{ {[1]: 2} }}",
]

EXPRESSIONS = ["{{ " + line + " }}" for line in _VALUES.strip().split("\n")] + _STATEMENTS

# What Jinja may know and the interpreter does not, or what nobody knows: source, line, what the error must name.
PARSE_ERRORS = [
    ("a\n{% foo %}", 2, "unknown tag 'foo'"),
    ("{% include 'x' %}", 1, "unknown tag 'include'"),
    ("{% block x %}{% endblock %}", 1, "unknown tag 'block'"),
    ("{{ x }}\n\n{{ x | frobnicate }}", 3, "unknown filter 'frobnicate'"),
    ("{% if false %}{{ x | urlize }}{% endif %}", 1, "unknown filter 'urlize'"),
    ("{{ x is blue }}", 1, "unknown test 'blue'"),
    ("{{ x | map('nope') | list }}", 1, "unknown filter 'nope'"),
    ("{{ x | select('nope') }}", 1, "unknown test 'nope'"),
    ("{{ x | selectattr('a', 'nope') }}", 1, "unknown test 'nope'"),
    ("{{\nfoo(1) }}", 2, "unknown function 'foo'"),
    ("{{ cycler('a') }}", 1, "unknown function 'cycler'"),
    ("{{ x.append(1) }}", 1, "unknown method 'append'"),
    ("{{ 'x'.format(1) }}", 1, "unknown method 'format'"),
    ("{% for x in y recursive %}{% endfor %}", 1, "recursive loops are not supported"),
    ("{% if x %}\na", 1, "never closed"),
    ("{{ 'abc }}", 1, "string is never closed"),
    ("{{ a + }}", 1, "expected an expression"),
    ("{% set x = 1", 1, "never closed"),
    ("{# a", 1, "comment is never closed"),
    ("{{ (1 }}", 1, "unexpected '}'"),
    ("{{ a ? b }}", 1, "unexpected character '?'"),
    ("{% endif %}", 1, "'endif' closes nothing"),
    ("{% break %}", 1, "outside of a loop"),
    ("{% for true in x %}{% endfor %}", 1, "'true' cannot be assigned to"),
    ("{{ f(*a) }}", 1, "unpacking"),
    ("{{ 99999999999999999999 }}", 1, "64-bit"),
]
