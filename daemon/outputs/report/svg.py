"""Figures as SVG inside a page: drawn by matplotlib, coloured by the page, the same bytes for the same figures."""

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
"""Colours that the page decides on, so that light and dark pages have figures of their own."""

DASHED = (0, (5, 1.5))
"""Line of the second of two."""

_OF_PAGE = {INK: "--ink", MUTED: "--muted", RULE: "--rule", ACCENT: "--accent", SECOND: "--second"}

_STYLE: dict[Any, Any] = {
    # Letters stay letters: small, searchable, in the page's font.
    "svg.fonttype": "none",
    # matplotlib names clip paths at random without one.
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
    """Draw inside: matplotlib's settings are the process's, and one thread at a time may change them."""
    with _settings, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def colour_bar(image: AxesImage, *, height: float, label: str = "") -> Colorbar:
    """What the colours of an image mean, beside it.

    Parameters
    ----------
    height : of the image, about; inches.
    """
    bar = image.axes.figure.colorbar(image, ax=image.axes, label=label, pad=0.02, aspect=height / 0.13)
    bar.locator = MaxNLocator(nbins=max(1, min(6, int(height / 0.3))))
    if bar.solids is not None:
        # As shapes its colours would be larger than all else.
        bar.solids.set_rasterized(True)
    bar.outline.set_visible(False)
    return bar


def inline(figure: Figure, name: str, title: str) -> Markup:
    """A figure as an ``<svg>`` element; to be made inside :func:`style`.

    Parameters
    ----------
    name : unlike that of any other figure of the page; its ids begin with it.
    title : for who cannot see it.
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
    # The title is ours, but what is in attributes and text is escaped all the same.
    opening = Markup('<svg class="figure" role="img" aria-label="{}" viewBox="0 0 {:g} {:g}">')
    return opening.format(title, width, height) + Markup(body.replace("xlink:href", "href").strip())


def _own_ids(drawn: str, name: str) -> str:
    """Only the ids that something refers to, each the only one of the page."""
    used = dict.fromkeys(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", drawn))
    own = {old: f"{name}-{number}" for number, old in enumerate(used)}
    drawn = re.sub(r' id="([^"]*)"', lambda found: f' id="{own[found[1]]}"' if found[1] in own else "", drawn)
    return re.sub(r"(url\(#|href=\"#)([^\")]+)", lambda found: found[1] + own[found[2]], drawn)
