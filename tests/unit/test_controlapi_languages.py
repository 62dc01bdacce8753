"""The small languages inside a service spec: image names, constraints, templates."""

from __future__ import annotations

from typing import Any

import pytest

from swarmd import api
from swarmd.base.gotemplate import Method, Struct, Template, TemplateError
from swarmd.base.gotemplate.values import number_text, quote
from swarmd.manager.controlapi import constraints
from swarmd.manager.controlapi.images import is_image_reference

HEX64 = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text",
    [
        "redis",
        "redis:7.2-alpine_3",
        "library/redis",
        "a/b/c",
        "a.b",
        "a__b",
        "a--b",
        "localhost/x",
        "localhost:5000/x",
        "REGISTRY.example.com/x",
        "192.168.1.1:5000/a/b:c",
        "[::1]:5000/x",
        f"x@sha256:{HEX64}",
        f"x:tag@sha512:{HEX64}{HEX64}",
        f"sha256:{HEX64}",
        "index.docker.io/x",
        "x:" + "a" * 128,
        "a" * 200,
    ],
)
def test_image_references(text: str) -> None:
    assert is_image_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Redis",
        "UPPER/case:latest",
        "x:",
        ":x",
        "x@",
        "x y",
        "x:a:b",
        "a//b",
        "/a",
        "a/",
        "a..b",
        "a___b",
        "-a",
        "x:-a",
        "x:" + "a" * 129,
        HEX64,
        f"x@sha256:{HEX64[1:]}",
        f"x@md5:{HEX64}",
        f"x@sha256:{HEX64.upper()}",
        "a" * 256,
        "x\n",
        "http://x",
        "a/" * 3000 + "a",
    ],
)
def test_texts_that_are_no_image_references(text: str) -> None:
    assert not is_image_reference(text)


NODE = api.Node(
    id="abc",
    role=api.NodeRole.MANAGER,
    spec=api.NodeSpec(annotations=api.Annotations(labels={"Zone": "East"})),
    status=api.NodeStatus(addr="10.0.0.7"),
    description=api.NodeDescription(
        hostname="Alpha",
        platform=api.Platform(os="linux", architecture="x86_64"),
        engine=api.EngineDescription(labels={"disk": "ssd"}),
    ),
)


@pytest.mark.parametrize(
    ("expression", "full", "bare"),
    [
        ("node.id==abc", True, False),
        ("NODE.ID == ABC", True, False),
        ("node.id!=abc", False, True),
        ("node.hostname==alpha", True, False),
        ("node.hostname!=alpha", False, True),
        ("node.role==manager", True, False),
        ("node.role==worker", False, True),
        ("node.platform.os==linux", True, False),
        ("node.platform.arch==amd64", False, False),
        ("node.platform.arch!=amd64", True, True),
        ("node.labels.Zone==east", True, False),
        ("node.labels.zone==east", False, False),
        ("node.labels.zone!=east", True, True),
        ("engine.labels.disk==ssd", True, False),
        ("engine.labels.disk != ssd", False, True),
        ("node.labels.==x", False, False),
        ("node.ip==10.0.0.7", True, False),
        ("node.ip!=10.0.0.7", False, True),
        ("node.ip==10.0.0.0/24", True, False),
        ("node.ip!=10.0.0.0/24", False, True),
        ("node.ip==10.1.0.0/24", False, False),
        ("node.ip==fd00::/8", False, False),
        ("node.ip==here", False, False),
        ("node.ip!=here", False, False),
        ("node.colour==red", False, False),
        ("node.colour!=red", False, False),
        ("node.id==a*", False, False),
    ],
)
def test_constraints(expression: str, full: bool, bare: bool) -> None:
    parsed = constraints.parse([expression])
    assert constraints.node_matches(parsed, NODE) is full
    assert constraints.node_matches(parsed, api.Node(id="bare")) is bare


def test_all_constraints_must_hold() -> None:
    assert constraints.node_matches([], NODE)
    both = constraints.parse(["node.id==abc", "node.role==worker"])
    assert not constraints.node_matches(both, NODE)


DATA = Struct(
    "*template.Context",
    {
        "Name": "web",
        "Sub": Struct("template.Sub", {"X": "x"}),
        "List": ["a", "b", "c"],
        "Map": {"k": "v", "a": "b"},
        "Mixed": {"n": 1, "deep": {"x": [1, 2]}},
        "Num": 7,
        "Float": 1.5,
        "True": True,
        "Nil": None,
        "Empty": "",
        "Method": lambda: "called",
    },
)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain }} text", "plain }} text"),
        ("{{.Name}}-{{.Sub.X}}", "web-x"),
        ("{{.Sub}}", "{x}"),
        ("{{.Method}}", "called"),
        ("{{.List}} {{.Map}} {{.Mixed}}", "[a b c] map[a:b k:v] map[deep:map[x:[1 2]] n:1]"),
        ("{{.Num}} {{.Float}} {{.True}} {{.Nil}}", "7 1.5 true <no value>"),
        ("{{.Map.k}}{{.Mixed.deep.x}}", "v[1 2]"),
        ("a {{- .Name -}} b", "awebb"),
        ("a {{/* gone */}} b{{- /* gone too */ -}} c", "a  bc"),
        ("{{if .Empty}}y{{else}}n{{end}}", "n"),
        ("{{if .Nil}}a{{else if .True}}b{{else}}c{{end}}", "b"),
        ("{{if and .True .Name}}{{or .Empty .Num}}{{end}}", "7"),
        ("{{with .Sub}}{{.X}}{{$.Name}}{{end}}", "xweb"),
        ("{{with .Empty}}a{{else with .Sub}}{{.X}}{{end}}", "x"),
        ("{{range .List}}{{.}},{{end}}", "a,b,c,"),
        ("{{range $i, $e := .List}}{{$i}}{{$e}}{{end}}", "0a1b2c"),
        ("{{range $k, $v := .Map}}{{$k}}={{$v}};{{end}}", "a=b;k=v;"),
        ("{{range .Nil}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ('{{range .List}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}', "a"),
        ('{{range .List}}{{if eq . "b"}}{{continue}}{{end}}{{.}}{{end}}', "ac"),
        ("{{$x := 1}}{{range .List}}{{$x = len .}}{{end}}{{$x}}", "1"),
        ("{{$x := .Name}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "2web"),
        ('{{.Name | printf "%s-%d" .Sub.X | len}}', "17"),
        (
            '{{printf "%q %5s|%-5s|%05d %x %t %v %%" .Name "a" "b" 42 255 true .List}}',
            '"web"     a|b    |00042 ff true [a b c] %',
        ),
        ('{{printf "%d" .Name}} {{printf "%s"}}', "%!d(string=web) %!s(MISSING)"),
        ('{{printf "a" 1}}', "a%!(EXTRA int=1)"),
        ('{{index .List 1}} {{index .Map "k"}} {{index .Map "zz"}}|', "b v |"),
        ("{{slice .Name 1 3}} {{slice .List 1}}", "eb [b c]"),
        ('{{len .Map}}{{len .List}}{{len "äb"}}', "233"),
        (
            "{{eq .Num 1 7}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2.5 2.5}}",
            "true true true true false true",
        ),
        ("{{not .Empty}} {{not .Name}}", "true false"),
        ('{{print 1 2 "a" "b" 3}}|{{println "x" 1}}', "1 2ab3|x 1\n"),
        (
            '{{html "<a&\'\\">"}} {{js "a\'b"}} {{urlquery "a b&"}}',
            "&lt;a&amp;&#39;&#34;&gt; a\\'b a+b%26",
        ),
        (
            '{{define "t"}}[{{.}}]{{end}}{{template "t" .Name}}{{template "t"}}',
            "[web][<no value>]",
        ),
        ('{{block "t" .Name}}<{{.}}>{{end}}', "<web>"),
        ("{{(index .List 0)}}{{(.Sub).X}}", "ax"),
        ('{{"q\\"\\u00e9\\x41\\101"}}{{`raw\\n`}}{{\'a\'}}', 'q"éAAraw\\n97'),
        ("{{0x1F}} {{0b11}} {{017}} {{1_000}} {{-3}} {{1e3}} {{.5}}", "31 3 15 1000 -3 1000 0.5"),
    ],
)
def test_templates(text: str, result: str) -> None:
    assert Template("expansion", text, missing_key_error=True).run(DATA) == result


AT = 'template: expansion:1:2: executing "expansion" at '


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{.Foo}}", AT + "<.Foo>: can't evaluate field Foo in type *template.Context"),
        (
            "{{.Sub.Foo}}",
            'template: expansion:1:6: executing "expansion" at <.Sub.Foo>: '
            "can't evaluate field Foo in type template.Sub",
        ),
        (
            "\n  {{.Foo}}",
            'template: expansion:2:4: executing "expansion" at <.Foo>: '
            "can't evaluate field Foo in type *template.Context",
        ),
        (
            "{{.Name.Foo}}",
            'template: expansion:1:7: executing "expansion" at <.Name.Foo>: '
            "can't evaluate field Foo in type string",
        ),
        (
            "{{.Map.zz}}",
            'template: expansion:1:6: executing "expansion" at <.Map.zz>: '
            'map has no entry for key "zz"',
        ),
        (
            "{{.Nil.x}}",
            'template: expansion:1:6: executing "expansion" at <.Nil.x>: '
            'nil data; no entry for key "x"',
        ),
        ("{{len 3}}", AT + "<len 3>: error calling len: len of type int"),
        ("{{index .List 9}}", AT + "<index .List 9>: error calling index: index out of range: 9"),
        ("{{lt 1}}", AT + "<lt>: wrong number of args for lt: want 2 got 1"),
        ('{{lt 1 "a"}}', AT + '<lt 1 "a">: error calling lt: incompatible types for comparison'),
        ("{{and}}", AT + "<and>: wrong number of args for and: want at least 1 got 0"),
        ("{{1 2}}", AT + "<1>: can't give argument to non-function 1"),
        ("{{.Name 1}}", AT + "<.Name>: Name has arguments but cannot be invoked as function"),
        ("{{nil}}", AT + "<nil>: nil is not a command"),
        (
            "{{range .Name}}x{{end}}",
            'template: expansion:1:8: executing "expansion" at <.Name>: '
            "range can't iterate over web",
        ),
        ('{{template "x"}}', AT + '<{{template "x"}}>: template "x" not defined'),
        ("{{", "template: expansion:1: unclosed action"),
        ("{{.Name}", 'template: expansion:1: unexpected "}" in operand'),
        ("{{}}", "template: expansion:1: missing value for command"),
        ("{{.Name | }}", "template: expansion:1: missing value for command"),
        ("{{if}}{{end}}", "template: expansion:1: missing value for if"),
        ("{{if .Name}}", "template: expansion:1: unexpected EOF"),
        ("{{end}}", "template: expansion:1: unexpected {{end}}"),
        ("{{else}}", "template: expansion:1: unexpected {{else}}"),
        ("{{foo}}", 'template: expansion:1: function "foo" not defined'),
        ("{{$x}}", 'template: expansion:1: undefined variable "$x"'),
        ("{{$x = 1}}", 'template: expansion:1: undefined variable "$x"'),
        ("{{break}}", "template: expansion:1: {{break}} outside {{range}}"),
        ('{{"a}}', "template: expansion:1: unterminated quoted string"),
        ("{{(1}}", "template: expansion:1: unclosed left paren"),
        ("{{1)}}", "template: expansion:1: unexpected right paren"),
        ("{{12ab}}", 'template: expansion:1: bad number syntax: "12ab"'),
        ("{{.Name | 1}}", "template: expansion:1: non executable command in pipeline stage 2"),
        ("{{$a, $b := 1}}", "template: expansion:1: too many declarations in command"),
        ("{{/* a", "template: expansion:1: unclosed comment"),
        ("\n{{@}}", 'template: expansion:2: unexpected "@" in command'),
    ],
)
def test_template_errors_read_as_gos(text: str, error: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template("expansion", text, missing_key_error=True).run(DATA)
    assert str(caught.value) == error


def test_missing_keys_are_fine_unless_refused() -> None:
    assert Template("t", "{{.Map.zz}} {{.Nil.x.y}}").run(DATA) == "<no value> <no value>"


@pytest.mark.parametrize(
    "text",
    ["{{range 100000}}{{range 100000}}xxxxxxxx{{end}}{{end}}", '{{printf "%99999999d" 1}}'],
)
def test_templates_cannot_eat_the_memory(text: str) -> None:
    with pytest.raises(TemplateError, match="too large"):
        Template("t", text).run(DATA)


@pytest.mark.parametrize("text", ["{{" + "(" * 500 + "1" + ")" * 500 + "}}", "{{if 1}}" * 500])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(TemplateError, match="nested too deeply"):
        Template("t", text)


def test_templates_that_call_themselves_end() -> None:
    with pytest.raises(TemplateError, match="exceeded maximum template depth"):
        Template("t", '{{define "t"}}{{template "t"}}{{end}}{{template "t"}}').run(DATA)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-2.5, "-2.5"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (123456.0, "123456"),
        (1234567.0, "1.234567e+06"),
        (100000.5, "100000.5"),
        (1e20, "1e+20"),
        (1e-300, "1e-300"),
        (float("inf"), "+Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_floats_print_as_in_go(number: float, shown: str) -> None:
    assert number_text(number) == shown


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a", '"a"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("\n\t\x00\x7f", '"\\n\\t\\x00\\x7f"'),
        ("é日", '"é日"'),
        ("\u200b\U0001f600", '"\\u200b😀"'),
    ],
)
def test_quotes_as_in_go(text: str, quoted: str) -> None:
    assert quote(text) == quoted


def test_struct_fields_may_be_methods() -> None:
    calls: list[Any] = []
    value = Struct("T", {"F": lambda: calls.append(1) or "x"})
    assert Template("t", "{{.F}}").run(value) == "x" and calls == [1]


def test_methods_with_arguments() -> None:
    value = Struct("*node.ctx", {"Label": Method(lambda name: f"<{name}>")})
    outer = Struct("T", {"C": value})
    assert Template("t", '{{.Label "a"}}{{"b" | .Label}}').run(value) == "<a><b>"
    assert Template("t", '{{$x := .C}}{{$x.Label "c"}}{{.C.Label "d"}}').run(outer) == "<c><d>"
    with pytest.raises(TemplateError, match="wrong number of args for Label: want 1 got 2"):
        Template("t", '{{.Label "a" "b"}}').run(value)
