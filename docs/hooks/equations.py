"""Equations of docstrings, typeset: plain text becomes MathML, which browsers draw without scripts, fonts or the network.

The text is what one writes in a docstring: Greek letters by name, ``_`` and ``^`` for scripts, ``Qbar`` for a bar, ``/`` for a fraction,
``sum_t`` and ``min_k``; columns stand two or more spaces apart. Words stay words. What cannot be read as a formula is shown as it is
written, so that nothing is lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eps": "ε", "epsilon": "ε", "eta": "η", "theta": "θ", "kappa": "κ", "lam": "λ",
    "lambda": "λ", "mu": "μ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "omega": "ω",
}  # fmt: skip
FUNCTIONS = {
    "log", "exp", "min", "max", "argmin", "argmax", "cos", "mean", "std", "var", "clip", "sg", "sigmoid", "softmax", "tanh", "sign", "ceil",
    "sqrt", "KL", "GAE", "LSTM",
}  # fmt: skip
LARGE = {"sum": "∑", "grad": "∇"}
OPERATORS = {
    "<=": "≤", ">=": "≥", "!=": "≠", "->": "→", "<-": "←", "+-": "±", "||": "‖", "-": "−", "*": "·", "~": "∼", "...": "…",
}  # fmt: skip
OPEN, CLOSE = "([{", ")]}"
PROSE_AFTER = {"of", "over", "action", "in", "and"}
"""Words after which the name of a function before them is a word: the mean over training."""

_SUBSCRIPT = r"_(?:\{[^{}]*\}|\([^()]*\)|[A-Za-z]+\d*(?:,[a-z]+\b)*(?:[+-]\d*[a-z]?(?![\d.]))?(?:<[a-z])?[*']?|\d+)"
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
    |(?P<code>(?!(?:eps|log|min|max|std|var|sum|phi|rho|tau)_)[A-Za-z]{{3,}}(?:_[a-z]{{3,}})+(?:-[a-z]+)?\b|``[^`]+``)
    |(?P<word>[A-Za-z]{{2,}}(?:-[A-Za-z]{{2,}})+|[A-Z]-[a-z]{{3,}}|AM-|[A-Za-z]{{2,}}'(?:s\b)?(?!\())
    |(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)
    |(?P<name>[A-Za-z]+|[^\W\d_])
    |(?P<script>{_SUBSCRIPT}|\^(?:\{{[^{{}}]*\}}|\w+))
    |(?P<prime>'+)
    |(?P<open>[(\[{{])
    |(?P<close>[)\]}}])
    |(?P<operator><=|>=|!=|->|<-|\+-|\+=|\|\||\.\.\.|[^\w\s])""",
    re.VERBOSE,
)


@dataclass
class Node:
    """A piece of a formula."""

    text: str
    """MathML."""
    kind: str
    """``word``, ``math``, ``function`` (its name), ``group`` (in brackets), ``operator`` or ``space``."""
    inner: str = ""
    """Of a group: what is within the brackets."""
    called: bool = False
    """Of a name: whether brackets follow it."""

    @property
    def mark(self) -> bool:
        """Whether it is a punctuation mark."""
        return self.text in {_operator(each) for each in ",;:."}


def block(text: str) -> str:
    """The HTML of a block of equations, one a line.

    Args:
        text: the lines, without their heading; the left side stands first, before ``=`` or two spaces.
    """
    rows = []
    for line in filter(str.strip, text.splitlines()):
        left, right = sides(line)
        if left:
            rows.append(f"<tr><td>{typeset(left)}</td><td>{typeset(right)}</td></tr>")
        else:
            rows.append(f'<tr><td colspan="2">{typeset(right)}</td></tr>')
    return '<div class="equations"><table class="equations">' + "".join(rows) + "</table></div>"


INLINE = re.compile(r"(?<![\w`$])\$(?=\S)([^$`\n]+?)(?<=\S)\$(?![\w`])")
"""A formula within a sentence of a page, ``$g_1 + g_2$``."""


def in_prose(markdown: str) -> str:
    """A page with the formulas of its sentences typeset; what stands in code stays.

    Each stands in a ``span``: Markdown takes a line that begins with ``<math`` for a block of its own, and would cut the sentence there.
    """
    parts = re.split(r"(^```.*?^```|^~~~.*?^~~~)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        part if index % 2 else INLINE.sub(lambda found: f"<span>{typeset(found[1])}</span>", part) for index, part in enumerate(parts)
    )


def sides(line: str) -> tuple[str, str]:
    """The left side of an equation and the rest; a line of words has no left side."""
    columns = re.split(r"\s{2,}", line.strip(), maxsplit=1)
    if found := re.match(r"(.+?) (\+?=) ", columns[0]):
        words = found[1].count(" ") > 1
        return ("", line.strip()) if words else (found[1], line.strip()[len(found[1]) :].strip())
    if len(columns) == 2:
        return columns[0], columns[1]
    return "", columns[0]


def typeset(text: str) -> str:
    """A line with its words as text and its formulas as MathML.

    Columns, which stand two or more spaces apart, keep a distance.
    """
    text = text.replace("(.|", "(·|").replace(" x ", " × ")
    return '<span class="apart"></span>'.join(_mixed(part) for part in re.split(r"\s{2,}", text.strip()))


def _mixed(text: str) -> str:
    """Words and formulas that follow one another, each run of a kind together, so that lines can break between words."""
    runs: list[tuple[bool, list[Node]]] = []
    for node in _parsed(text):
        words = node.kind == "word" or (node.kind == "operator" and node.mark and bool(runs) and _ends_in_words(runs[-1]))
        if runs and (node.kind == "space" or runs[-1][0] == words):
            runs[-1][1].append(node)
        elif node.kind != "space":
            runs.append((words, [node]))
    found = ""
    for words, nodes in runs:
        before = " " if found and not (words and nodes[0].mark) else ""
        while nodes[-1].kind == "space":
            nodes.pop()
        if words:
            found += before + "".join(" " if node.kind == "space" else re.sub(r"</?m\w+[^>]*>", "", node.text) for node in nodes)
        else:
            found += f'{before}<math displaystyle="true"><mrow>{_joined(nodes)}</mrow></math>'
    return found


def _ends_in_words(run: tuple[bool, list[Node]]) -> bool:
    """Whether a punctuation mark that follows belongs to words."""
    return run[0] and run[1][-1].kind != "space"


def _parsed(text: str) -> list[Node]:
    tokens = [(match.lastgroup or "", match[0]) for match in _TOKEN.finditer(text)]
    return _sequence(tokens, 0, "")[0]


def _sequence(tokens: list[tuple[str, str]], at: int, until: str) -> tuple[list[Node], int]:
    """The nodes from a place to a closing bracket (or the end), and the place after it."""
    nodes: list[Node] = []
    while at < len(tokens):
        kind, text = tokens[at]
        at += 1
        if kind == "close" and text == until:
            return nodes, at
        if kind == "open":
            inside, after = _sequence(tokens, at, CLOSE[OPEN.index(text)])
            if after <= len(tokens) and tokens[after - 1][1] == CLOSE[OPEN.index(text)]:
                inner, at = _joined(inside), after
                group = Node(_operator(text) + inner + _operator(CLOSE[OPEN.index(text)]), "group", inner)
                if nodes and nodes[-1].text == _name("sqrt").text:
                    nodes.pop()
                    group = Node(f"<msqrt><mrow>{inner}</mrow></msqrt>", "math", called=True)
                elif nodes and nodes[-1].kind in ("math", "function") and not nodes[-1].called:
                    group = Node(nodes.pop().text + group.text, "math", called=True)
                nodes.append(group)
                _fraction(nodes)
                continue
        if kind == "operator" and text == "|" and nodes and nodes[-1].text == _operator("/"):
            end = next((place for place in range(at, len(tokens)) if tokens[place][1] == "|"), None)
            if end is not None:  # 1/|y|
                inside, _ = _sequence(tokens[at:end], 0, "")
                nodes.append(Node(_operator("|") + _joined(inside) + _operator("|"), "math", called=True))
                at = end + 1
                _fraction(nodes)
                continue
        _place(nodes, kind, text, tokens[at][1] if at < len(tokens) else "", tokens[at + 1 : at + 2])
        if kind in ("name", "number"):
            while at < len(tokens) and tokens[at][0] in ("script", "prime"):
                _place(nodes, *tokens[at], "", [])
                at += 1
            if at >= len(tokens) or tokens[at][0] != "open":
                _fraction(nodes)
    return nodes, at


def _place(nodes: list[Node], kind: str, text: str, following: str, later: list[tuple[str, str]]) -> None:
    """Add a token to the nodes before it."""
    if kind == "space":
        nodes.append(Node("", "space"))
    elif kind == "code":
        nodes.append(Node(f"<mtext><code>{escape(text.strip('`'))}</code></mtext>", "word"))
    elif kind == "word":
        nodes.append(Node(f"<mtext>{escape(text)}</mtext>", "word"))
    elif kind == "number":
        mantissa, _, power = text.partition("e")
        times = "" if mantissa == "1" else f"<mn>{mantissa}</mn><mo>·</mo>"
        exponent = f"<msup><mn>10</mn><mrow>{_operator('-') if power[:1] == '-' else ''}<mn>{power.lstrip('-')}</mn></mrow></msup>"
        nodes.append(Node(times + exponent if power else f"<mn>{text}</mn>", "math"))
    elif kind == "name":
        article = text == "a" and following.isspace() and later and later[0][0] in ("name", "word") and len(later[0][1]) > 3
        article = article and later[0][1] not in GREEK
        plain = text in FUNCTIONS and (not following or (following.isspace() and bool(later) and later[0][1] in PROSE_AFTER))
        nodes.append(Node(f"<mtext>{text}</mtext>", "word") if article or plain else _name(text))
    elif kind == "script" and nodes and nodes[-1].kind != "space":
        _script(nodes, text)
    elif kind == "prime" and nodes:
        nodes[-1] = Node(f"<msup><mrow>{nodes[-1].text}</mrow><mo>{'′' * len(text)}</mo></msup>", "math")
    elif text == "*" and nodes and nodes[-1].kind == "math":
        nodes[-1] = Node(f"<msup><mrow>{nodes[-1].text}</mrow><mo>∗</mo></msup>", "math")
    elif text == "~" and nodes and nodes[-1].kind == "math":
        nodes[-1] = Node(f"<mover><mrow>{nodes[-1].text}</mrow><mo>~</mo></mover>", "math")
    else:
        nodes.append(Node(_operator(text), "operator"))


def _name(text: str) -> Node:
    if text.endswith("bar") and (text[:-3] in GREEK or len(text) == 4):
        return Node(f"<mover><mi>{GREEK.get(text[:-3], text[:-3])}</mi><mo>¯</mo></mover>", "math")
    if text in GREEK or len(text) == 1:
        return Node(f"<mi>{GREEK.get(text, text)}</mi>", "math")
    if text in LARGE:
        return Node(f"<mo>{LARGE[text]}</mo>", "math", called=True)
    if text in FUNCTIONS:
        return Node(f'<mi mathvariant="normal">{text}</mi><mspace width="0.15em"></mspace>', "function")
    return Node(f"<mtext>{text}</mtext>", "word")


def _script(nodes: list[Node], text: str) -> None:
    """Put a subscript or a superscript on the last node."""
    base, inner = nodes.pop(), text[1:]
    inner = inner[1:-1] if inner[:1] in "{(" else inner
    if re.fullmatch(r"[a-z]{2,}", inner) and len(inner) <= 2 and inner not in GREEK:  # _it: two indices
        body = "".join(f"<mi>{letter}</mi>" for letter in inner)
    else:
        body = _joined(_parsed(re.sub(r"\bin\b", "∈", re.sub(r"(?<=[a-z])<", ", < ", inner))))
    tag = "msub" if text[0] == "_" else "msup"
    kind = "function" if base.kind == "function" else "math"
    nodes.append(Node(f"<{tag}><mrow>{base.text}</mrow><mrow>{body}</mrow></{tag}>", kind, called=base.kind == "group"))


def _fraction(nodes: list[Node]) -> None:
    """The last node over or under the one before the stroke, where one stands between the two."""
    places = [index for index, node in enumerate(nodes) if node.kind != "space"]
    if len(places) < 3:
        return
    above, stroke, below = (nodes[index] for index in places[-3:])
    if stroke.text != _operator("/") or above.kind not in ("math", "group") or below.kind not in ("math", "group"):
        return
    top, bottom = (node.inner if node.kind == "group" else node.text for node in (above, below))
    nodes[places[-3] :] = [Node(f"<mfrac><mrow>{top}</mrow><mrow>{bottom}</mrow></mfrac>", "math", called=True)]


def _operator(text: str) -> str:
    shape = OPERATORS.get(text, text)
    stiff = ' stretchy="false"' if text in ("|", "||", *OPEN, *CLOSE) else ""
    stiff += ' lspace="0.1em" rspace="0.1em"' if text == "|" else ""
    return f"<mo{stiff}>{escape(shape)}</mo>"


def _joined(nodes: list[Node]) -> str:
    """Nodes of a formula: words keep the spaces around them, and factors a little room; operators have their own."""
    found = []
    for index, node in enumerate(nodes):
        if node.kind != "space":
            found.append(node.text)
            continue
        beside = [nodes[place] for place in (index - 1, index + 1) if 0 <= place < len(nodes)]
        if any(each.kind == "operator" for each in beside) or len(beside) < 2:
            continue
        found.append(f'<mspace width="{0.35 if any(each.kind == "word" for each in beside) else 0.18}em"></mspace>')
    return "".join(found)
