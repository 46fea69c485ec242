"""A drawing of a network as SVG: a row per block, from top to bottom.

The shape of a block is as wide as its channels: those that come in, those inside, those that go out. Widths of texts
are estimated, since nothing here knows the fonts of the reader: texts have room to spare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap

#: All lengths are in units of the drawing, which is as wide as a phone's screen is in pixels.
WIDTH = 358
_CENTRE, _HALF = 210.0, 40.0
_LEFT, _RIGHT = 8.0, 350.0
_LINE, _ROW, _HEAD = 13, 34, 24
#: Characters of a line of words beside the shapes.
_CHARACTERS = 26
_COLOURS = ("#3366cc", "#dc7633", "#2e8b57", "#8e44ad", "#b7950b", "#16a2b8", "#c2528b", "#6d4c41")
_GREY = "#8a8f98"
_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#1a1a1a}.small{font-size:10px;fill:#555}.head{font-weight:600}"
    ".end{text-anchor:end}"
)


@dataclass(frozen=True)
class Block:
    """A row: its `name` and what it is in `words`, its channels, and notes at the right, such as milliseconds.

    `channels` are those that come in, inside (None: nothing is between), and that go out. Blocks of a `group` have one
    colour; those without are grey. `is_marked`: with a dashed border. `adds_input`: with an arc that goes around it.
    """

    name: str
    words: str
    channels: tuple[int, int | None, int]
    group: str = ""
    note: str = ""
    is_marked: bool = False
    adds_input: bool = False

    @property
    def lines(self) -> list[str]:
        """Its words in lines."""
        return wrap(self.words, _CHARACTERS, break_long_words=True) or [""]

    @property
    def height(self) -> int:
        """Of its row."""
        return max(_ROW, _LINE * (1 + len(self.lines)) + 8)


@dataclass(frozen=True)
class Stage:
    """Blocks under a title, with a note at its right."""

    title: str
    note: str
    blocks: Sequence[Block]


def drawing(stages: Sequence[Stage], before: str, after: str, marked: str = "") -> str:
    """The network as an SVG element. `before` and `after` say what comes in and goes out.

    `marked` says what the dashed border of blocks means, if some have one.
    """
    blocks = [block for stage in stages for block in stage.blocks]
    groups = sorted({block.group for block in blocks if block.group})
    colours = {group: _COLOURS[i] if i < len(_COLOURS) else _GREY for i, group in enumerate(groups)}
    widest = max((width or 0 for block in blocks for width in block.channels), default=1)
    rows, height = [], 0.0
    for piece, its_height in _pieces(stages, colours, widest, before, after, marked):
        rows.append(f'<g transform="translate(0 {height:g})">{piece}</g>')
        height += its_height
    return (
        f'<svg class="drawing" role="img" aria-label="the layers of the network" viewBox="0 0 {WIDTH} {height:g}" '
        f'xmlns="http://www.w3.org/2000/svg"><style>{_STYLE}</style>{"".join(rows)}</svg>'
    )


def _pieces(
    stages: Sequence[Stage], colours: dict[str, str], widest: int, before: str, after: str, marked: str
) -> Iterator[tuple[str, float]]:
    """Parts of the drawing from top to bottom, with their heights."""
    yield from _legend(colours, marked)
    yield _text(_CENTRE, 14, before, "small", anchor="middle"), 20
    for number, stage in enumerate(stages):
        height = _HEAD + sum(block.height for block in stage.blocks)
        shade = "#f4f6f9" if number % 2 == 0 else "#fff"
        head = _text(_LEFT, 16, stage.title, "head") + _text(_RIGHT, 16, stage.note, "small end")
        yield f'<rect width="{WIDTH}" height="{height}" rx="4" fill="{shade}"/>{head}', _HEAD
        for block in stage.blocks:
            yield _row(block, colours.get(block.group, _GREY), widest), block.height
    yield _text(_CENTRE, 14, after, "small", anchor="middle"), 20


def _legend(colours: dict[str, str], marked: str) -> Iterator[tuple[str, float]]:
    entries = [(f'fill="{colour}"', name) for name, colour in colours.items()]
    if marked:
        entries.append((f'fill="#fff" {_dashes()}', marked))
    x, line = _LEFT, list[str]()
    for mark, name in entries:
        width = 16 + 6.5 * len(name) + 12
        if x + width > WIDTH and line:
            yield "".join(line), 18
            x, line = _LEFT, []
        line.append(
            f'<g transform="translate({x:g} 0)"><rect y="2" width="10" height="10" {mark}/>{_text(15, 11, name)}</g>'
        )
        x += width
    if line:
        yield "".join(line), 22


def _row(block: Block, colour: str, widest: int) -> str:
    texts = [_text(_LEFT, 13, block.name, "small")]
    texts += [_text(_LEFT, 13 + _LINE * (i + 1), line) for i, line in enumerate(block.lines)]
    widths = [str(width) for width in block.channels if width is not None]
    texts.append(_text(_RIGHT, 13, "→".join(widths), "small end"))
    texts.append(_text(_RIGHT, 13 + _LINE, block.note, "small end"))
    border = _dashes() if block.is_marked else 'stroke="none"'
    shape = f'<path d="{_outline(block, widest)}" fill="{colour}" fill-opacity="0.8" {border}/>'
    arc = ""
    if block.adds_input:
        x, y = _CENTRE + _HALF + 2, block.height - 6
        arc = f'<path d="M{x:g} 4Q{x + 7:g} {block.height / 2:g} {x:g} {y:g}" fill="none" stroke="#555"/>'
    hint = f"<title>{escape(f'{block.name}: {block.words}')}</title>"
    return f"<g>{hint}{shape}{arc}{''.join(texts)}</g>"


def _outline(block: Block, widest: int) -> str:
    """From the width at the top to that in the middle, if there is one, to that at the bottom."""
    first, middle, last = (None if w is None else _HALF * (w / widest) ** 0.5 for w in block.channels)
    assert first is not None
    assert last is not None
    top, bottom = 1.0, block.height - 1.0
    half = [(first, top), (last, bottom)]
    if middle is not None:
        third = (bottom - top) / 3
        half = [(first, top), (middle, top + third), (middle, bottom - third), (last, bottom)]
    points = [(_CENTRE - x, y) for x, y in half] + [(_CENTRE + x, y) for x, y in reversed(half)]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"


def _dashes() -> str:
    return 'stroke="#1a1a1a" stroke-width="1.2" stroke-dasharray="3 2"'


def _text(x: float, y: float, words: str, style: str = "", anchor: str = "") -> str:
    if not words:
        return ""
    styled = f' class="{style}"' if style else ""
    anchored = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:g}" y="{y:g}"{styled}{anchored}>{escape(words)}</text>'
