"""The rules' pages: up to date, and their examples are what they say."""

import re
from pathlib import Path
from typing import Any

import pytest

from policies import check, config, pages, signatures
from policies.catalog import RULES
from policies.reports import Report, Selected
from policies.rules import AnyRule
from tests.policy.world import Images, write_index


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of `signed-images` by which the good example's image is signed, and the bad one's wrongly."""
    made = Images(tmp_path_factory.mktemp("signed"), "")
    made.make_keys("trusted", "other")
    page = pages.read_page(signatures.RULE)
    entries = []
    for example, key in ((page.good, "trusted"), (page.bad, "other")):
        (digest,) = re.findall("sha256:([0-9a-f]{64})", example.text)
        entries.append(made.sign_in_layout("layout", digest, key=key))
    write_index(made.folder / "layout", entries)
    keys, layouts = [{"file": str(made.folder / "trusted.pub")}], [str(made.folder / "layout")]
    return {"keys": keys, "layouts": layouts}


def checked(rule: AnyRule, example: pages.Example, folder: Path, settings: dict[str, Any]) -> Report:
    """Check an example with its rule alone, by the way that the command line takes."""
    file = folder / f"example.{example.language}"
    file.write_text(example.text, encoding="utf-8")
    given = settings if rule is signatures.RULE else None
    selected = Selected(rule, "mandatory", config.load(rule.id, rule.settings, "", given))
    return check.check([str(file)], [selected])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_examples(rule: AnyRule, tmp_path: Path, settings: dict[str, Any]) -> None:
    """The good example passes its rule, the bad one does not, and both can be read."""
    page = pages.read_page(rule)
    good = checked(rule, page.good, tmp_path, settings)
    assert not good.problems
    assert not good.entries
    bad = checked(rule, page.bad, tmp_path, settings)
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
