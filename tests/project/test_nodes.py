import pytest

from lodestream.model.diagnostic import Place
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import from_python, from_yaml


def read(text):
    mistakes = Mistakes()
    node = from_yaml(text if isinstance(text, bytes) else text.encode(), "t.yaml", mistakes)
    return node, mistakes.found


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("''", ""),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("2013-01-01", "2013-01-01"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2(written, value):
    node, found = read(f"a: {written}\n")
    assert not found
    got = node.value["a"].value
    assert got == value
    assert type(got) is type(value)


def test_a_1_1_directive_changes_nothing():
    node, _ = read("%YAML 1.1\n---\na: yes\n")
    assert node.value["a"].value == "yes"


def test_folded_text_has_no_marks_of_the_parser():
    node, _ = read("a: >-\n  one\n  two\n\n  three\n")
    assert node.value["a"].value == "one two\nthree"


def test_windows_line_ends_and_a_byte_order_mark_are_read():
    node, found = read(b"\xef\xbb\xbfa: 1\r\nb: |\r\n  x\r\n  y\r\n")
    assert not found
    assert node.plain() == {"a": 1, "b": "x\ny\n"}


def test_an_alias_is_the_anchored_value():
    node, found = read("a: &keys [x, y]\nb: *keys\n")
    assert not found
    assert node.plain() == {"a": ["x", "y"], "b": ["x", "y"]}


def test_a_few_lines_cannot_unfold_into_gigabytes():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    node, found = read("\n".join(lines))
    assert not found
    assert node.value["a29"].value[0] is node.value["a29"].value[9]


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "key appears twice"),
        ("a:\n  - {x: 1, x: 2}\n", 2, 12, "key appears twice"),
        ("a: [1\nb: 2", 2, 2, "not valid YAML"),
        ("a: 1\n b: 2\n", 2, 3, "not valid YAML"),
        ("a: b: c\n", 1, 5, "not valid YAML"),
        ("a: 1\n? [x]\n: 2\n", 2, 3, "a key must be text"),
        ("a: 1\nb: \x01\n", 2, 4, "character not allowed"),
        (b"a: 1\nbc: \xff\n", 2, 5, "not UTF-8"),
        ("", 1, 1, "empty file"),
        ("# only a comment\n", 1, 1, "empty file"),
        ("a: &a [*a]\n", 1, 4, "within itself"),
        ("[" * 60 + "]" * 60, 1, 52, "nested too deep"),
        ("[" * 5000 + "]" * 5000, 1, 1, "nested too deep"),
        ("a: !secret x\n", 1, 4, "tags are not supported"),
        ("a: !map {b: 1}\n", 1, 4, "tags are not supported"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text, line, column, message):
    _, found = read(text)
    assert found, "nothing told"
    assert message in found[0].message
    assert (found[0].file, found[0].line, found[0].column) == ("t.yaml", line, column)


def test_a_comma_in_braces_is_told_once():
    node, found = read("a: {x: greatest(a, b, c), y: 1}\n")
    assert [(d.code, d.line, d.column) for d in found] == [("D109", 1, 8)]
    assert node.value["a"].value["x"].broken
    assert node.value["a"].value["y"].value == 1


def test_quotes_keep_a_comma_in_braces():
    node, found = read("a: {x: 'greatest(a, b)', y: [date(x), hour(x)]}\n")
    assert not found
    assert node.plain() == {"a": {"x": "greatest(a, b)", "y": ["date(x)", "hour(x)"]}}


@pytest.mark.parametrize(
    ("text", "word", "line", "column"),
    [
        ("a: amount > bad\n", "bad", 1, 13),
        ("a: 'it''s' \n", "s", 1, 9),
        ('a: "x\\tbad"\n', "bad", 1, 8),
        ("a: |\n  select x\n  from bad\n", "bad", 3, 8),
        ("a: >-\n  case when x\n  then bad end\n", "bad", 3, 8),
        ("a: case when x\n   then bad end\n", "bad", 2, 9),
        ("a: |  # why\n\n  select bad\n", "bad", 3, 10),
        ("a: |  # select\n  select bad\n", "select", 2, 3),
    ],
)
def test_a_spot_inside_a_text_is_found_in_the_file(text, word, line, column):
    node, _ = read(text)
    inner = node.value["a"]
    place = inner.place.at(inner.value, inner.value.index(word))
    assert (place.line, place.column) == (line, column)


def test_a_place_without_text_stays_where_it_is():
    place = Place("x.py", 7)
    assert place.at("amount", 3) == place
    assert Place("x.yaml", 7, 3, "amount").at("amount", None) == Place("x.yaml", 7, 3, "amount")


def test_python_values_read_like_files():
    node = from_python({"a": (1, True, None, "x"), "b": {"c": 1.5}}, Place("x.py", 3))
    assert node.plain() == {"a": [1, True, None, "x"], "b": {"c": 1.5}}
    assert node.value["a"].value[1].text == "true"
    assert node.value["b"].place.line == 3
