"""Limits of chat templates: whatever a template asks for, it ends soon and takes little memory."""

import concurrent.futures
import subprocess
import sys

import fake_core  # noqa: F401
import pytest
from octavo import ValidationError, template_limits
from octavo.chat_template import render_conversation
from octavo.template_limits import MAX_SIZE

USER = {"role": "user", "content": "Hi"}
PLAIN = "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}"

# Each template asks for hours, or for all memory.
BIG = "{% set b = 'x' * 8000000 %}"
COLLIDING = "range(0, 2305843009213693951 * 100000, 2305843009213693951)"  # of one hash
DOUBLED = (
    "{% set ns = namespace(a=START) %}{% for i in range(60) %}{% set ns.a = NEXT %}{% endfor %}"
)
HOSTILE = {
    "text times a number": "{{ 'a' * 10 ** 10 }}",
    "list times a number": "{{ [1] * 10 ** 10 }}",
    "range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops with output": (
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"
    ),
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "recursion in width": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}"
    ),
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "doubled by +": DOUBLED.replace("START", "'a'").replace("NEXT", "ns.a + ns.a"),
    "doubled by ~": DOUBLED.replace("START", "'a'").replace("NEXT", "ns.a ~ ns.a"),
    "doubled lists": DOUBLED.replace("START", "[1]").replace("NEXT", "[ns.a, ns.a]") + "{{ ns.a }}",
    "doubled keys": (
        DOUBLED.replace("START", "(1,)").replace("NEXT", "(ns.a, ns.a)") + "{{ {ns.a: 1} }}"
    ),
    "doubled dictionaries": (
        DOUBLED.replace("START", "{}").replace("NEXT", "dict(a=ns.a, b=ns.a)")
        + "{{ ns.a | tojson }}"
    ),
    "deep": (
        "{% set ns = namespace(a=1) %}"
        "{% for i in range(99999) %}{% set ns.a = (ns.a,) %}{% endfor %}"
        "{{ {ns.a: 1} }}"
    ),
    "power": "{{ 2 ** 99999 }}",
    "squares": DOUBLED.replace("START", "3").replace("NEXT", "ns.a * ns.a"),
    "join": "{{ range(99999) | map('string') | join('x' * 99999) }}",
    "str.join": "{{ ('x' * 99999).join(range(99999) | map('string')) }}",
    "center": "{{ 'a' | center(10 ** 9) }}",
    "center of constants": "{{ 'a' | center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(10 ** 9) }}",
    "zfill": "{{ '1'.zfill(10 ** 9) }}",
    "expandtabs": "{{ '\\t'.expandtabs(10 ** 9) }}",
    "replace": "{{ ('a' * 999999).replace('a', 'b' * 999999) }}",
    "replace filter": "{{ ('a' * 999999) | replace('a', 'b' * 999999) }}",
    "indent": "{{ 'a\nb' | indent(10 ** 9) }}",
    "tojson": "{{ [[1]] | tojson(indent=10 ** 9) }}",
    "batch": "{{ [1] | batch(10 ** 9, 'x') | list }}",
    "slice": "{{ [1] | slice(10 ** 9) | list }}",
    "round": "{{ 5 | round(-10 ** 9) }}",
    "round up": "{{ 5.5 | round(10 ** 9, 'ceil') }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "format of format": "{{ '{:{}}'.format(1, 10 ** 9) }}",
    "format by attribute": "{{ ('{:1000000000}' | attr('format'))(1) }}",
    "format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "mapped filter": "{{ ['%1000000000d'] | map('format', 1) | list }}",
    "%": "{{ '%1000000000d' % 1 }}",
    "% with a star": "{{ '%*d' % (10 ** 9, 1) }}",
    "% with a name": "{{ '%(a(b))1000000000d' % {'a(b)': 1} }}",
    "precision": "{{ '%.1000000000f' % 1.5 }}",
    "lipsum": "{{ lipsum(n=10 ** 9) }}",
    "bytes": "{{ (5).to_bytes(10 ** 9, 'big') }}",
    "set of one hash": "{{ " + COLLIDING + " | unique | list | length }}",
    "dict of one hash": "{{ dict(" + COLLIDING + " | batch(2)) | length }}",
    "fromkeys": "{{ dict.fromkeys(" + COLLIDING + ") | length }}",
    "namespace of one hash": "{{ namespace(" + COLLIDING + " | batch(2)) }}",
    "searching a list": (
        "{% set l = range(99999) | list %}{% for x in range(99999) if -1 in l %}{% endfor %}"
    ),
    "comparing lists": (
        "{% set l = range(99999) | list %}"
        "{% for x in range(99999) %}{{ loop.changed(l) }}{% endfor %}"
    ),
    "searching from the right": "{{ ('a' * 8000000).rfind('ab' + 'a' * 4000000) }}",
    "stripping": BIG + "{{ b.strip('y' * 4000000 + 'x') }}",
    "trim": BIG + "{{ b | trim('y' * 4000000 + 'x') }}",
    "striptags": "{{ ('<!---->' * 999999) | striptags }}",
    "wordwrap": "{{ ('a ' * 999999) | wordwrap(10) }}",
    "splitting": "{{ ('a ' * 4000000).split() | length }}",
    "letters": BIG + "{{ b | list | length }}",
    "sorting": "{% for i in range(9999) %}{% set a = range(99999) | sort %}{% endfor %}",
    "generators": DOUBLED.replace("START", "range(99999)").replace("NEXT", "ns.a | map('string')")
    + "{{ ns.a | list | length }}",
    "many names": "".join(f"{{% set a{i} = 'x' * 8000000 %}}" for i in range(500)),
    "many slices": BIG + "".join(f"{{% set a{i} = b[1:] %}}" for i in range(500)),
    "many namespaces": (
        "{% set ns = namespace(p=0) %}{% for i in range(99999) %}"
        "{% set ns.p = namespace(p=ns.p, v='x' * 999999) %}{% endfor %}"
    ),
    "concatenation": BIG + "{{ " + "~".join(["b"] * 5000) + " }}",
    "a macro's output": (
        BIG + "{% macro m() %}{% for i in range(99999) %}{{ b }}{% endfor %}{% endmacro %}{{ m() }}"
    ),
    "a block's output": BIG + "{% set c %}{% for i in range(999) %}{{ b }}{% endfor %}{% endset %}",
    "output": BIG + "{% for i in range(99999) %}{{ b }}{% endfor %}",
    "constant output": (
        "{% macro m() %}{% for i in range(99999) %}{% for j in range(99999) %}"
        + "y" * 50000
        + "{% endfor %}{% endfor %}{% endmacro %}{{ m() }}"
    ),
    "escapes": "{% autoescape true %}{% set a = '<' * 8000000 %}{{ a ~ a }}{% endautoescape %}",
    "views": "{% set d = {'a': 'x' * 4000000} %}{{ [d.items(), d.values()] * 999 }}",
    "arguments": BIG + "{% macro m() %}{{ varargs }}{% endmacro %}{{ m(b, b, b, b) }}",
    "time": "{{ strftime_now('%c' * 99999) }}",
    "long source": "x" * 70000,
    "nested source": "{% if a %}" * 3000 + "{% endif %}" * 3000,
    "nested loops": "{% for a in b %}" * 60 + "{% endfor %}" * 60,
    "parentheses": "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
    "signs": "{{ " + "-" * 60000 + "1 }}",
    "digits": "{{ " + "1" * 60000 + " }}",
}  # fmt: skip


# These end by the clock, and hold nothing.
TIMED = ("loop", "recursion", "hash", "list", "sorting", "generators")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end(name, monkeypatch):
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.2)
    with pytest.raises(ValidationError, match="chat template: "):
        render_conversation([USER], HOSTILE[name])


def test_hostile_templates_take_little_memory():
    """With 1 GiB to spare, nothing fails for lack of memory."""
    source = f"""
import resource
import sys
sys.path[:0] = {sys.path!r}
import test_template_limits as tests
tests.render_conversation([tests.USER], tests.PLAIN)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
for name, template in tests.HOSTILE.items():
    if any(word in name for word in tests.TIMED):
        continue
    try:
        tests.render_conversation([tests.USER], template)
    except tests.ValidationError as error:
        if "MemoryError" in str(error):
            raise SystemExit(f"{{name}}: {{error}}")
"""
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_a_template_drops_is_forgotten():
    """It may make far more than it may hold."""
    template = "{% for i in range(300) %}{% set a = 'x' * 4000000 %}{{ a[:1] }}{% endfor %}"
    assert render_conversation([USER], template) == "x" * 300


def test_the_limit_grows_with_the_input():
    """What a caller sends himself is rendered, however long it is."""
    text = "x" * (MAX_SIZE + 1)
    assert render_conversation([{"role": "user", "content": text}], PLAIN) == f"<user>{text}"


def test_deep_input_is_an_error():
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValidationError, match="nested too deeply"):
        render_conversation([{**USER, "extra": deep}], PLAIN)


def test_after_a_limit_all_is_as_before():
    for _ in range(3):
        with pytest.raises(ValidationError, match="the limit"):
            render_conversation([USER], BIG + "{{ b ~ b }}")
        assert render_conversation([USER], PLAIN) == "<user>Hi"


def test_threads_have_limits_of_their_own():
    slow = "{% for i in range(9999) %}{{ i }}{% endfor %}"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        rendered = list(pool.map(lambda _: render_conversation([USER], slow), range(8)))
    assert set(rendered) == {"".join(map(str, range(9999)))}
