"""Every term has one definition, and the documents do not use words that readers stumbled over."""

import re

import pytest

from tests.docs.test_links import documents
from tests.support.places import DOCS, ROOT

AVOIDED = re.compile(r"\b(anew|held against|holds? \w+ against|of no use|gone on|goes on with|tiles? in hand)\b")


def test_every_term_is_defined_once():
    lines = re.findall(r"^- \*\*(.+?)\*\*:", (DOCS / "words.md").read_text("utf-8"), re.MULTILINE)
    terms = [term.strip() for line in lines for term in line.split(",")]
    assert len(terms) > 100
    assert {term for term in terms if terms.count(term) > 1} == set()


@pytest.mark.parametrize("path", documents())
def test_no_document_uses_an_avoided_word(path):
    text = (ROOT / path).read_text("utf-8")
    assert AVOIDED.findall(text) == []
