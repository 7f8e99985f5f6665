"""The page of a report, taken apart."""

import base64
import re
from collections import Counter
from contextlib import contextmanager
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
from PIL import Image

from daemon.outputs.figures.runmetrics import RunMetrics
from daemon.outputs.report.runreport import report_files
from daemon.record.committed import open_run

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """A page taken apart; raises where an element is not closed, or closed in another's place."""

    def __init__(self, text):
        super().__init__()
        self.text, self.ids, self.references, self.elements = text, [], [], Counter()
        self.words, self.open, self.cells, self.terms = [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self._take(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self._take(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if "style" in self.open or not data.strip():
            return
        self.words.append(data.strip())
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data.strip()
        if self.open[-1] == "dt":
            self.term = data.strip()
        elif "dd" in self.open:
            self.terms.setdefault(self.term, []).append(data.strip())

    def _take(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        attributes = dict(attrs)
        self.elements[tag] += 1
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.references += [
            attributes[name] for name in ("src", "href", "xlink:href", "data", "action") if name in attributes
        ]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(value or "" for value in attributes.values()))

    def figure(self, label):
        """The one drawn with a label that begins so."""
        found = re.findall(rf'<svg class="figure" role="img" aria-label="{re.escape(label)}.*?</svg>', self.text, re.S)
        assert len(found) == 1, label
        return found[0]

    def rows(self, first):
        """Cells of the rows of a table that begin so."""
        return [row for row in self.cells if row and row[0] == first]


def line(figure, colour, number=0):
    """(points, 2) of a line: pixels to the right, and upwards."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none;[^"]*stroke: ([^;"]*)', figure)
    points = [path for path, stroke in paths if stroke == colour and path.count(" L ")][number]
    steps = re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", points)
    return np.array(steps, float) * (1, -1)


def assert_drawn(points, values):
    """Points are where the values lie on some linear axes."""
    assert len(points) == len(values)
    for drawn, true in zip(points.T, (np.arange(len(values)), np.asarray(values)), strict=True):
        slope, offset = np.polyfit(true, drawn, 1)
        assert slope > 0
        np.testing.assert_allclose(drawn, offset + slope * true, atol=1e-3 * np.ptp(drawn) + 1e-3)


def images(figure):
    """(rows, columns, 4) of each image of a figure that is not a colour bar."""
    encoded = re.findall(r'<image href="data:image/png;base64,\s*([^"]*)"[^>]*pixelated', figure)
    return [np.asarray(Image.open(BytesIO(base64.b64decode(one))).convert("RGBA")) for one in encoded]


@contextmanager
def metrics_of(root, **changes):
    with open_run(root) as run:
        yield RunMetrics(run)


def report(root, to=None):
    """The page of a run folder, checked as far as it holds for every page."""
    to = root if to is None else to
    with metrics_of(root) as metrics:
        for file in report_files(metrics, None, to):
            file.write()
    return page((to / "report.html").read_bytes())


def page(content):
    text = content.decode("utf-8")
    assert text.startswith("<!DOCTYPE html>")
    taken = Page(text)
    assert not [one for one, times in Counter(taken.ids).items() if times > 1]
    for reference in taken.references:
        assert reference.startswith("data:image/png;base64,") or reference.removeprefix("#") in taken.ids, reference
    assert "@import" not in text
    assert "<metadata" not in text, "it has the time of drawing"
    assert "script" not in taken.elements
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", " ".join(taken.words))
    return taken
