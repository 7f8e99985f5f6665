"""Plots as SVG inside a page. Matplotlib draws them, the page sets their colours; equal plots give equal bytes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from threading import Lock
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

INK, MUTED, RULE, ACCENT, SECOND = (f"#01020{number}" for number in range(5))
"""Placeholders for colours that the page sets, so that they fit its light and its dark appearance."""

DASHED = (0, (5, 1.5))
"""Pattern that distinguishes the second of two lines."""

_OF_PAGE = {INK: "--ink", MUTED: "--muted", RULE: "--rule", ACCENT: "--accent", SECOND: "--second"}

_STYLE: dict[Any, Any] = {
    # Text stays text, not shapes: it is smaller, can be searched, and has the page's font.
    "svg.fonttype": "none",
    # Without a salt, matplotlib gives clip paths random names.
    "svg.hashsalt": "seqd",
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.edgecolor": MUTED,
    "grid.color": RULE,
    "legend.labelcolor": INK,
}

_settings = Lock()


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings for drawing; they belong to the whole process, so one thread at a time may draw."""
    with _settings, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def colour_bar(image: AxesImage, *, height: float, label: str = "") -> Colorbar:
    """The colour scale of an image, next to it.

    Parameters
    ----------
    height : approximate height of the image, inches.
    """
    bar = image.axes.figure.colorbar(image, ax=image.axes, label=label, pad=0.02, aspect=height / 0.13)
    bar.locator = MaxNLocator(nbins=max(1, min(6, int(height / 0.3))))
    if bar.solids is not None:
        # As vector shapes, the colours would take most of the file.
        bar.solids.set_rasterized(True)
    bar.outline.set_visible(False)
    return bar


def inline(figure: Figure, name: str, title: str) -> Markup:
    """A figure as an ``<svg>`` element; to be called inside :func:`style`.

    Parameters
    ----------
    name : name that no other figure of the page has; the element's ids begin with it.
    title : text for readers who cannot see the figure.
    """
    text = StringIO()
    figure.savefig(text, format="svg", dpi=144)
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg ") :]
    drawn = re.sub(r"<!--.*?-->\n?|<metadata>.*?</metadata>\n?|\s*\n\s*", " ", drawn, flags=re.DOTALL)
    drawn = _own_ids(drawn, name)
    for colour, variable in _OF_PAGE.items():
        drawn = drawn.replace(colour, f"var({variable})")
    _, _, body = drawn.partition(">")
    width, height = (72 * inches for inches in figure.get_size_inches())
    # Markup.format escapes the title.
    opening = Markup('<svg class="figure" role="img" aria-label="{}" viewBox="0 0 {:g} {:g}">')
    return opening.format(title, width, height) + Markup(body.replace("xlink:href", "href").strip())


def _own_ids(drawn: str, name: str) -> str:
    """Remove ids that nothing refers to, and make the others unique on the page."""
    used = dict.fromkeys(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", drawn))
    own = {old: f"{name}-{number}" for number, old in enumerate(used)}
    drawn = re.sub(r' id="([^"]*)"', lambda found: f' id="{own[found[1]]}"' if found[1] in own else "", drawn)
    return re.sub(r"(url\(#|href=\"#)([^\")]+)", lambda found: found[1] + own[found[2]], drawn)
