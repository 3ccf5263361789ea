"""Strings of a dump without markup, style sheets, scripts and placeholders."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.corpus.markup import clean, one_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Soft <script type="text/javascript">var x=1;</script> cotton', "soft cotton"),
        ("Soft <style>.f{color:red}</style>cotton", "soft cotton"),
        ("Soft <SCRIPT>if (a<b) {x}</SCRIPT > cotton", "soft cotton"),
        ("Soft <script>var a = '<b>", "soft"),
        ("Soft <script src='x.js'/> cotton", "soft cotton"),
        ("Soft <!-- two <b>reviews</b>\n --> cotton", "soft cotton"),
        ("Soft <!-- two reviews", "soft"),
        ("Soft <!-", "soft"),
        ('<iframe src="//v" width="560" allowfullscreen></iframe><dl><dt>Size</dt><dd>L</dd></dl>', "size l"),
        ("<img src='a>b.jpg' alt=\"x\">pic", "pic"),
        ("<a href=http://x/y?z=1>link</a>", "link"),
        ('<A HREF="X" "T">link</A>', "link"),
        ("<td nowrap>one<td>two", "one two"),
        ("<foo-bar>x</foo-bar> <o:p></o:p><brand>y</brand>", "x y"),
        ('<!DOCTYPE html><?xml version="1.0"?><![CDATA[x]]>', "x"),
        ('Glove <span id="pt" class="a-si', "glove"),
        ('Glove <a href="http://x', "glove"),
        ("Glove <a hre", "glove"),
        ("Glove <span", "glove"),
        ("Glove <sp", "glove"),
        ("Glove </", "glove"),
        ("Glove <span id='a' Soft", "glove soft"),
        ("<li Cotton <li Washable", "cotton washable"),
        ("&lt;b&gt;soft&lt;/b&gt;", "soft"),
        ("&amp;lt;b&amp;gt;soft", "soft"),
        ("Salt &amp;amp;amp;amp; Pepper &#38;#39;x&#38;#39;", "salt & pepper 'x'"),
        ("CAF&EACUTE; AT&T R&D black&copper &copy 2010", "café at&t r&d black&copper © 2010"),
        (".a-box-inner{background-color:#fff}#x .y{margin:0}", ""),
        ("$12.99 .a{b:c}#x .y{marg", "$12.99"),
        ("@media print{.a{color:red}} rest", "rest"),
        ("@media print and (width: 3px) {ul li, *.a.b:not(.c)::before > [x=y] {m:n}} rest", "rest"),
        ("Soft /* a */ .a /* b */ /* c */ #b { /* d */ c: d } cotton /* e */", "soft /* a */ .a cotton /* e */"),
        ("print. .caption { font-family: Verdana, serif; } ul.in, td { x: y; } The", "print. the"),
        ("var t = (new Date()).getTime();", ""),
        ("P.when('A').execute(function(A){ x });", ""),
    ],
)
def test_page_debris_is_removed(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "battery 1.5v < 2v",
        "a < b, x<y> and i <3 it",
        "a<b",
        "a <b and c> d",
        "3<i<5",
        "width<height",
        "up to <2w). the",
        "mail <john@x.com>",
        "if (a<2 && b>3)",
        "{set of 2: red} note",
        "function (watch)",
        "sizes s, p & q",
        "no. 1 {blue}",
        "tag @anna, @ben, @carl, @dora, @emil, @frida, @gus, @hans, @ida {12}",
    ],
)
def test_what_only_looks_like_markup_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    "text", ["—", "-", "--", "None", "nan", "N/A", "n/a", "null", "NULL ", " — ", "...", "&mdash;", "<b>N/A</b>"]
)
def test_placeholders_are_empty(text: str) -> None:
    assert clean(text) == ""


@pytest.mark.parametrize("text", ["none such", "nano", "n/a grade", "-5", "c-", "?", "null modem"])
def test_what_only_begins_like_a_placeholder_stays(text: str) -> None:
    assert clean(text) == text


PIECES = st.sampled_from(
    """<b> </b> <br/> <b <br < > </ /> <!-- --> <script> </script> <style> </style> <span id="x" class=' " ' = <sp &
    &amp; &lt; &gt; &#60; &LT; amp; lt; # ; { } : .a{ color:red} @media /* */ <p>< <i <![cdata[ ]]> <foo> <x-y <?
    soft 1.5v i p""".split()  # noqa: SIM905
) | st.text(max_size=3)
DEBRIS = st.lists(PIECES, max_size=12).flatmap(
    lambda parts: st.sampled_from(["", " "]).map(lambda gap: gap.join(parts))
)
TAG = re.compile(
    r"</?(?:br|span|script|style|div|td)(?![\w-])|<[bip]>|</[a-z]|<!--|<(?:b|i|p)\s[^<>]*=\s*\"[^<>\"]*\"[^<>]*>"
)


@settings(derandomize=True, deadline=None, max_examples=600)
@given(DEBRIS)
def test_no_tag_is_left_and_cleaning_again_changes_nothing(text: str) -> None:
    once = one_line(text)
    assert not TAG.search(once)
    assert one_line(once) == once
    assert clean(clean(text)) == clean(text)


@settings(derandomize=True, deadline=None)
@given(
    st.integers(),
    st.sampled_from(["<", " < ", "< ", " <", " > ", "<=", " <= "]),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_comparisons_of_numbers_stay(low: int, sign: str, high: float) -> None:
    text = f"from {low}{sign}{high} on"
    assert clean(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "<b ",
        '<a x="',
        "<",
        "&amp;",
        "&",
        "&#38;",
        "<!--",
        "<script>",
        "a ",
        "{a:",
        "a{",
        ".a ",
        "<b<",
        "</",
        "<br x",
        "<b>",
        "/*",
        "/*a*/ ",
        "a{/*b*/ ",
        "@a ",
        "@a, ",
        "@a",
        "@a{",
        "[x].a",
        "a[x], ",
        ":a(b)",
    ],
)
def test_hostile_texts_take_time_in_proportion(piece: str) -> None:
    many = piece * (60_000 // len(piece))
    for text in (many, f"{{:<&{many}{{:<&", f"{many}{{1}}"):
        begin = time.process_time()
        clean(text)
        assert time.process_time() - begin < 5
