"""Pages in a browser, read as a person would: what is wider than the screen, cut off, or on top of another text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: Opens what is folded, waits for the charts, and tells the page around it what it sees.
_LOOK = """<script>
document.querySelectorAll('details').forEach(each => each.open = true);
setTimeout(() => {
  const box = each => each.getBoundingClientRect(), cut = [], crossing = [];
  const texts = (inside, what) => [...inside.querySelectorAll(what)].filter(
    each => each.textContent.trim() && box(each).width && getComputedStyle(each).visibility != 'hidden');
  const isIn = (a, b) =>
    a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  for (const chart of document.querySelectorAll('.chart, svg.drawing')) {
    const all = texts(chart, 'text');
    for (const each of all) if (!isIn(box(each), box(chart))) cut.push(each.textContent);
    const plot = chart.querySelector('.nsewdrag');
    for (const each of texts(chart, '.bartext')) if (!isIn(box(each), box(plot))) cut.push(each.textContent);
    all.forEach((one, i) => all.slice(i + 1).forEach(other => {
      const a = box(one), b = box(other);
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1.5 && y > 3) crossing.push(one.textContent + ' | ' + other.textContent);
    }));
  }
  for (const each of document.querySelectorAll('h1, h2, p, td, th, summary'))
    if (each.scrollWidth > each.clientWidth + 1 && each.clientWidth) cut.push(each.textContent);
  const drawn = [...document.querySelectorAll('.chart')].map(each => each.querySelectorAll('.point').length);
  const labels = texts(document, 'svg text').map(each => each.textContent);
  parent.postMessage({number: NUMBER, inner: innerWidth, needed: document.documentElement.scrollWidth,
    cut, crossing, drawn, labels, text: document.body.innerText}, '*');
}, 2500);
</script></body></html>"""
_COLLECT = """<pre id="seen"></pre><script>
const seen = [];
onmessage = event => { seen.push(event.data); document.getElementById('seen').textContent = JSON.stringify(seen); };
</script>"""


@dataclass(frozen=True)
class Seen:
    """A page at one width of the screen, with all that is folded open.

    `drawn` is the number of marks of each chart, `labels` are the texts in charts and drawings, `text` is all that can
    be selected.
    """

    inner: int
    needed: int
    cut: list[str]
    crossing: list[str]
    drawn: list[int]
    labels: list[str]
    text: str


def look(pages: Sequence[tuple[Path, int]], folder: Path) -> list[Seen]:
    """Pages at widths in pixels, in one run of Chromium. Whatever the console says is an error."""
    assert CHROMIUM is not None
    frames = [_frame(path.read_text(encoding="utf-8"), width, i) for i, (path, width) in enumerate(pages)]
    outer = folder / "screens.html"
    outer.write_text(
        f'<!DOCTYPE html><html><meta charset="utf-8"><body>{_COLLECT}{"".join(frames)}</body></html>', encoding="utf-8"
    )
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900", "--dump-dom"]
    words += ["--virtual-time-budget=20000", f"--user-data-dir={folder / 'user'}", "--enable-logging=stderr"]
    done = subprocess.run([*words, outer.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-2000:]
    seen = sorted(json.loads(unescape(found[1])), key=lambda each: each.pop("number"))
    assert len(seen) == len(pages)
    return [Seen(**each) for each in seen]


def _frame(page: str, width: int, number: int) -> str:
    """A page in a frame of a width that windows of browsers do not have."""
    inner = page.replace("</body></html>", _LOOK.replace("NUMBER", str(number)))
    escaped = inner.replace("&", "&amp;").replace('"', "&quot;")
    return f'<iframe width="{width}" height="800" style="border: 0" srcdoc="{escaped}"></iframe>'
