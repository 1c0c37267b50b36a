"""The rules' pages: up to date, and their examples are what they say."""

from pathlib import Path

import pytest

from policies import check, config, pages, signatures, trust
from policies.catalog import RULES
from policies.reports import Report, Selected
from policies.rules import AnyRule
from policies.verification import Problem, Question


def verify(question: Question) -> Problem | None:
    """Answer as cosign would if the example's image were signed, and no other."""
    return Problem("which is not signed", "sign it") if question.digest.endswith("bad") else None


def checked(rule: AnyRule, example: pages.Example, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """Check an example with its rule alone, by the way that the command line takes."""
    monkeypatch.setattr(signatures, "verify", verify)
    monkeypatch.setattr(signatures, "verify_all", list)
    monkeypatch.setattr(trust, "load", lambda *_: object())
    monkeypatch.setattr("shutil.which", lambda _: "cosign")
    file = folder / f"example.{example.language}"
    file.write_text(example.text, encoding="utf-8")
    selected = Selected(rule, "mandatory", config.load(rule.id, rule.settings, ""))
    return check.check([str(file)], [selected])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_examples(rule: AnyRule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The good example passes its rule, the bad one does not, and both can be read."""
    page = pages.read_page(rule)
    good = checked(rule, page.good, tmp_path, monkeypatch)
    assert not good.problems
    assert not good.entries
    bad = checked(rule, page.bad, tmp_path, monkeypatch)
    assert not bad.problems
    assert bad.counts["violation"]


def test_pages_are_up_to_date() -> None:
    """What lies in docs/policies is what `python -m policies.pages` writes."""
    found = {file.name: file.read_text(encoding="utf-8") for file in pages.FOLDER.glob("*")}
    assert found == pages.render(RULES), "run `python -m policies.pages`"


def test_page_needs_examples() -> None:
    """A docstring without an example is an error that names the rule."""

    def prose_only() -> None:
        """Text."""

    class Bare:
        id = "bare"
        check = staticmethod(prose_only)

    with pytest.raises(pages.PageError, match="rule bare: its docstring has no example under Good"):
        pages.read_page(Bare())  # type: ignore[arg-type]
