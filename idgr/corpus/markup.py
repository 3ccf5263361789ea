"""One line of plain text from a string of a dump: without markup, style sheets, scripts and characters unseen.

What looks like a comparison (`1.5v < 2v`, `x<y>`) is text.
"""

from __future__ import annotations

import html
import re
import sys
from html.entities import html5

# Control characters but white space, bidirectional marks, byte order marks, and halves of surrogate pairs.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_ENTITY = re.compile(r"&(?:(#\d{1,7}|#[xX][0-9a-fA-F]{1,6})(;?)|([a-zA-Z][a-zA-Z0-9]{1,31})(;|(?![a-zA-Z0-9])))")
_ESCAPED_AMPERSANDS = re.compile(r"&(?:amp;|#0*38;|#x0*26;)+", re.IGNORECASE)
_ROUNDS = 10  # of decoding and of tags within tags; the dumps need two

_ONE_LETTER = "[abipqsu]"
_NAMES = """
    abbr acronym address applet area article aside audio base basefont bdi bdo bgsound big blink blockquote body br
    button canvas caption center circle cite code col colgroup command data datalist dd del details dfn dialog dir
    div dl dt em embed fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header
    hgroup hr html iframe image img input ins isindex kbd keygen label legend li link listing main map mark marquee
    menu menuitem meta meter nav nobr noembed noframes noscript object ol optgroup option output param path picture
    plaintext pre progress rect rp rt ruby samp script search section select slot small source spacer span strike
    strong style sub summary sup svg table tbody td template textarea tfoot th thead time title tr track tt ul var
    video wbr xmp
""".split()  # noqa: SIM905 - a list of words
_NAME = f"(?:{'|'.join(sorted(_NAMES, key=len, reverse=True))})"
_QUOTED = r"""(?:"[^"]*"|'[^']*')"""
_BARE = (
    r"(?:allowfullscreen|async|autofocus|autoplay|checked|compact|controls|default|defer|disabled|hidden|ismap|loop"
    r"|multiple|muted|nohref|noresize|noshade|novalidate|nowrap|open|readonly|required|reversed|selected)(?![\w=-])"
)
_ATTRIBUTE = rf"""\s+(?:[\w:.-]+\s*=\s*(?:{_QUOTED}|[^\s"'<>]+)|(?:data|aria)-[\w-]+|{_BARE})"""
_QUOTED_ATTRIBUTES = rf"(?:\s+[\w:.-]+\s*=\s*{_QUOTED})+"


def _whole(attributes: str, name: str) -> str:
    """A repetition, as long as it can be: by a possessive quantifier, which Python has wrong before 3.11.5."""
    if sys.version_info >= (3, 11, 5):
        return f"{attributes}+"
    return f"(?=(?P<{name}>{attributes}))(?P={name})"  # type: ignore[unreachable, unused-ignore]


_COMMON = "align alt border class color height href id name rel size src style target title type width".split()  # noqa: SIM905
_BEGUN = "|".join(sorted({name[:end] for name in _COMMON for end in range(1, len(name) + 1)}, key=len, reverse=True))
_CUT_ATTRIBUTE = rf"""(?:\s+(?:[\w:.-]+\s*=\s*(?:"[^"<>]*|'[^'<>]*|[^\s"'<>]*)|data-[\w-]*|(?:{_BEGUN})))?\s*/?"""

_WITH_CONTENTS = re.compile(
    r"<!--.*?(?:-->|$)"
    r"|<(?:script|style)(?![\w-])[^<>]*/>"
    r"|<(script|style)(?![\w-])[^>]*(?:>.*?(?:</\1\s*>|$)|$)",
    re.DOTALL,
)
# Any name of two letters or more: also XML and elements of the page's own.
_WELL_FORMED = re.compile(rf"</?(?:[a-z][\w:.-]+|{_ONE_LETTER}){_whole(f'(?:{_ATTRIBUTE})*', 'a')}\s*/?>")
_OTHER_TAG = re.compile(
    rf"</?{_NAME}(?:"
    r"[\s/][^<>]{0,2000}>"  # attributes that are none
    rf"|{_whole(f'(?:{_ATTRIBUTE})*', 'a')}(?:{_CUT_ATTRIBUTE}(?=<|$)|(?![\w-]))"  # cut short
    r")"
    rf"|<{_ONE_LETTER}\s+[\w:.-]+\s*=\s*[\"'](?:[^<>]{{0,2000}}>|[^<>\"']*$)"
    rf"|<{_ONE_LETTER}{_whole(_QUOTED_ATTRIBUTES, 'b')}(?:{_CUT_ATTRIBUTE}(?=<|$))?"
    rf"|<{_ONE_LETTER}\s+(?:{_BEGUN})(?<=\w{{3}})\s*=?\s*$"
    r"|</(?:[a-z][\w:.-]*(?:[^<>]{0,200}>)?|\s*$)"
    rf"|<\s+(?:/?\s*{_NAME}\s*/?>|/\s*{_ONE_LETTER}\s*>)|</\s+(?:{_NAME}|{_ONE_LETTER})\s*>"
    r"|<!(?:[a-z][^<>]*(?:>|$)|\[cdata\[|\[[^\[\]<>]*\]>|-{0,2}$)|\]\]>|<\?[a-z][^<>]*(?:>|$)"
)
_CUT_NAME = re.compile(r"(?:^|(?<=[\s>]))<([a-z][a-z0-9]*)?$")

_ELEMENT = f"(?:{_NAME}|{_ONE_LETTER})(?![\\w-])"
# Each text is a selector in one way alone, and from each place only so much is looked at: else hostile texts take long.
_SIMPLE = (
    r"(?<![\w.#-])"
    rf"(?:(?:\*|{_ELEMENT})?(?:[.#]-?[a-z_][\w-]*|::?[a-z-]+(?:\([^(){{}}]*\))?|\[[^\[\]{{}}]*\]){{1,12}}"
    rf"|\*|{_ELEMENT})"
)
_AT_RULE = r"(?<![\w.#-])@[a-z-]+[^{};]{0,200}"
_SELECTOR = rf"(?:{_AT_RULE}|{_SIMPLE}(?:(?:\s*[,>+~]\s*|\s+){_SIMPLE}){{0,8}})"
_COMMENT = r"(?:/\*[^*{}]*\*/\s*)"
_BLOCK = rf"{_SELECTOR}\s*\{{\s*{_COMMENT}*(?:-{{0,2}}[a-z][\w-]*\s*:[^{{}}]*|[a-z-]*)(?:\}}|$)"
# Comments that nothing comes after are found too, so that they are read once; they stay.
_RULE = re.compile(rf"{_COMMENT}+(?:{_BLOCK})?|{_BLOCK}")
_DANGLING = re.compile(rf"(?=.*[.#]){_SELECTOR}")
_SCRIPT = re.compile(r"\bfunction\s*\w*\s*\([\w\s,]*\)\s*\{|\bnew date\b.{0,9}\.gettime\b|\bp\.when\(")

_PLACEHOLDERS = frozenset("none null nan n/a na n.a. n.a #n/a undefined (null) (none) n\\a".split()) | {  # noqa: SIM905
    "not available",
    "not applicable",
}
_LONGEST_PLACEHOLDER = 16
_STROKES = re.compile(r"[-\u2010-\u2015\u2212_.\u2026\u00b7\u2022\u00ad\u200b-\u200d\u2060*/\\|~\s]+")


def clean(text: str) -> str:
    """A value as one line of lower case (`one_line`); empty where it is a placeholder or a script of the page."""
    text = one_line(text)
    # Looking for a few words first is many times as fast as the expression.
    if ("function" in text or "gettime" in text or "p.when" in text) and _SCRIPT.search(text):
        return ""
    return "" if is_placeholder(text) else text


def one_line(text: str) -> str:
    """A string of a dump as one line of lower case.

    Entities are decoded (also when encoded twice), comments, scripts and style sheets removed with what they hold, tags
    (also those cut short) and invisible control characters without; white space is collapsed.
    """
    if not text.isprintable():
        text = _UNSEEN.sub("", text)
    if "&" in text:
        text = _decode(text)
    text = text.lower()
    if "<" in text or "{" in text:
        text = _without_markup(text)
    return " ".join(text.split())


def is_placeholder(text: str) -> bool:
    """Whether a cleaned text says that there is nothing: `none`, `n/a`, dashes and the like."""
    if text[:1].isalnum() and len(text) > _LONGEST_PLACEHOLDER:
        return False
    return text in _PLACEHOLDERS or _STROKES.fullmatch(text) is not None


def _decode(text: str) -> str:
    """Entities decoded until there are none: `&amp;amp;` is two deep."""
    for _ in range(_ROUNDS):
        # At once, however deep: one round for each would let a hostile text take long.
        decoded = _ENTITY.sub(_character, _ESCAPED_AMPERSANDS.sub("&", text))
        if decoded == text:
            break
        text = decoded
    return _UNSEEN.sub("", text)


def _character(found: re.Match[str]) -> str:
    number, _, name, end = found.groups()
    if number is not None:
        return html.unescape(f"&{number};")
    # Texts set in capitals write `&EACUTE;`.
    return html5.get(name + end) or html5.get(name.lower() + end) or found[0]


def _without_markup(text: str) -> str:
    """Without tags and style sheets, also those that stand within others or that taking others away brings together."""
    for _ in range(_ROUNDS):
        bare = text
        if "<" in bare:
            if "<!--" in bare or "<script" in bare or "<style" in bare:
                bare = _WITH_CONTENTS.sub(" ", bare)
            bare = _WELL_FORMED.sub(" ", bare)
            if "<" in bare:  # seldom
                bare = _without_cut_name(_OTHER_TAG.sub(" ", bare).strip())
        if "{" in bare:
            bare = _RULE.sub(lambda found: " " if "{" in found[0] else found[0], bare)
            if "{" not in bare and _DANGLING.fullmatch(bare.strip()):
                return ""
        bare = " ".join(bare.split())
        if bare == text:
            return text
        text = bare
    return text.replace("<", " ").replace("{", " ")  # tags within tags within tags: hostile


def _without_cut_name(text: str) -> str:
    """Without `<` and the beginning of a name at the end; of two letters at least, since `a <b` may be a comparison."""
    cut = _CUT_NAME.search(text)
    if cut is None or (cut[1] and (len(cut[1]) < 2 or not any(name.startswith(cut[1]) for name in _NAMES))):
        return text
    return text[: cut.start()]
