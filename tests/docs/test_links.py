"""Every relative link in a document leads to a file, and every anchor to a heading."""

import re
import subprocess

import pytest

from tests.support.places import ROOT

LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def documents():
    """Paths of all Markdown files that Git tracks or does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    return sorted(path for path in listed if (ROOT / path).is_file())


def anchors(document):
    """Names of the headings of a document, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_targets(document):
    """Relative links of a document whose file or heading does not exist."""
    missing = []
    for link in LINK.findall(CODE.sub("", document.read_text("utf-8"))):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            missing.append(link)
    return missing


@pytest.mark.parametrize("path", documents())
def test_every_relative_link_has_a_target(path):
    assert missing_targets(ROOT / path) == []


def test_a_dead_link_and_a_dead_anchor_are_found(tmp_path):
    document = tmp_path / "page.md"
    document.write_text("# One heading\n[a](none.md) [b](#one-heading) [c](#other) `[d](code.md)` [e](page.md)\n")
    assert missing_targets(document) == ["none.md", "#other"]
