"""The report in a real browser: no errors, nothing asked from the network, toggles, axes, themes, keyboard, and a phone's width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from markupsafe import Markup

from rheostat.experiments.studies.results import run_study
from rheostat.reporting.report import Section, write_report
from rheostat.reporting.rollouts import rollouts_section
from tests.analysis.synthetic import write_comparison, write_run
from tests.browser.driver import MISSING, Browser
from tests.experiments.studies.toy import study
from tests.reporting.test_rollouts import keep, row

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

TAB, SPACE, RIGHT = "\ue004", " ", "\ue014"
CHART = "document.querySelector('.headline .plot')"
VISIBLE = f"{CHART}.data.filter(t => t.visible !== false && !['high', 'low', 'seed'].includes(t.name)).map(t => t.name)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("browser")
    write_comparison(where / "c")
    section = Section("Rollouts", Markup("<p>2 + 2 = 4</p>"))
    return write_report([where / "c"], where / "page.html", sections=[section])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(1200, 900) as one:
        yield one


def show(browser: Browser, page: Path, width: int = 1200) -> None:
    """Open the page at a width, with its first chart in sight."""
    browser.resize(width, 900)
    browser.open(page)
    browser.wait("document.documentElement.dataset.ready")
    browser.run(f"{CHART}.scrollIntoView({{block: 'center'}})")
    browser.wait(f"{CHART}.querySelector('.main-svg') !== null")


def test_no_errors_and_no_requests(browser: Browser, page: Path) -> None:
    browser.requests()
    show(browser, page)
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
    height = browser.run("return document.documentElement.scrollHeight")
    browser.resize(1200, height)
    browser.wait("[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg') !== null)")
    assert browser.console() == []
    assert [address for address in browser.requests() if not address.startswith(("data:", "blob:"))] == [page.resolve().as_uri()]


def test_series_are_toggled_everywhere(browser: Browser, page: Path) -> None:
    show(browser, page)
    assert browser.run(f"return {VISIBLE}") == ["ppo-buffer", "ppo", "props"]
    browser.run("document.querySelector('input[name=arm][value=\"1\"]').click()")
    browser.wait(f"{VISIBLE}.join() === 'ppo-buffer,props'")
    every = "[...document.querySelectorAll('.plot')].filter(p => p.data).every"
    assert browser.run(f"return {every}(p => p.data.every(t => (t.meta.arm === 1) === (t.visible === false)))")
    assert browser.run("return document.getElementById('announce').textContent") == "ppo hidden."
    browser.run("document.querySelector('input[name=arm][value=\"1\"]').click()")
    browser.wait(f"{VISIBLE}.length === 3")


def test_single_seeds_replace_the_band(browser: Browser, page: Path) -> None:
    show(browser, page)
    count = f"{CHART}.data.filter(t => t.name === 'seed').length"
    assert browser.run(f"return {count}") == 0
    browser.run("document.querySelector('input[name=seeds]').click()")
    browser.wait(f"{count} === 15")
    assert browser.run(f"return {CHART}.data.filter(t => t.name === 'low').length") == 0


def test_the_axis_is_switched_by_keyboard(browser: Browser, page: Path) -> None:
    show(browser, page)
    assert browser.run(f"return {CHART}.layout.xaxis.title.text") == "Environment steps"
    steps = browser.run(f"return {CHART}.data[2].x.at(-1)")
    browser.run("document.querySelector('input[type=radio]').focus()")
    browser.press(RIGHT)
    browser.wait(f"{CHART}.layout.xaxis.title.text === 'Policy updates'")
    assert browser.run(f"return {CHART}.data[2].x.at(-1)") == 40
    assert steps == 100_000
    assert browser.run("return document.getElementById('announce').textContent") == "Charts against Policy updates."
    browser.press(RIGHT, RIGHT)
    browser.wait(f"{CHART}.layout.xaxis.title.text === 'Wall time (s)'")
    browser.press(TAB, SPACE)  # the first series
    browser.wait(f"{VISIBLE}.join() === 'ppo,props'")


def test_every_control_can_be_reached_and_named(browser: Browser, page: Path) -> None:
    show(browser, page)
    nameless = (
        "[...document.querySelectorAll('button, input, summary, a, [tabindex]')].filter(e => e.offsetParent && "
        "!(e.getAttribute('aria-label') || e.closest('label')?.textContent.trim() || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert browser.run(f"return {nameless}") == []
    browser.run(  # keys begin at the top of the page, whatever was pressed before
        "const top = document.createElement('span'); top.tabIndex = -1; document.body.prepend(top); top.focus(); top.remove();"
        "window.scrollTo(0, 0)"
    )
    seen = []
    for _ in range(9):
        browser.press(TAB)
        seen.append(browser.run("const e = document.activeElement; return e.className || e.id || e.name || e.tagName"))
    assert seen[0] == "skip"
    assert {"theme", "scroll card", "axis-id-Hopper-v5", "arm", "seeds"} <= set(seen)


def test_light_and_dark(browser: Browser, page: Path) -> None:
    show(browser, page)
    colour = "getComputedStyle(document.body).backgroundColor"
    line = f"{CHART}.data[2].line.color"
    before = browser.run(f"return [{colour}, {line}]")
    assert browser.run("return document.getElementById('theme').getAttribute('aria-pressed')") == "false"
    browser.run("document.getElementById('theme').click()")
    browser.wait("document.documentElement.dataset.theme === 'dark'")
    after = browser.run(f"return [{colour}, {line}]")
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert browser.run("return document.getElementById('theme').getAttribute('aria-pressed')") == "true"
    browser.run("document.getElementById('theme').click()")
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.run("localStorage.removeItem('rheostat-theme')")
    show(browser, page)
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    browser.command("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(browser: Browser, page: Path, scheme: str) -> None:
    """At least 4.5 to 1 (WCAG AA) for every text colour on what it stands on."""
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])  # no fading colours
    show(browser, page)
    ratios = browser.run(
        """
        document.documentElement.dataset.theme = arguments[0];
        const parse = (c) => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const light = (c) => { const [r, g, b] = parse(c).map((v) => linear(v / 255)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const under = (e) => { while (e) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return c;
          e = e.parentElement; } return 'rgb(255, 255, 255)'; };
        const found = {};
        const texts = 'h1, p, th, td, dt, dd, small, label, summary, button, legend, code, footer, .verdict, caption';
        document.querySelectorAll(texts).forEach((e) => {
          if (!e.offsetParent) return;
          const [a, b] = [light(getComputedStyle(e).color), light(under(e))].sort((x, y) => y - x);
          found[e.tagName + '.' + e.className] = (a + 0.05) / (b + 0.05);
        });
        return found;
        """,
        scheme,
    )
    assert len(ratios) > 10
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [360, 390, 768, 1200])
def test_nothing_sticks_out(browser: Browser, page: Path, width: int) -> None:
    show(browser, page, width)
    assert browser.run("return document.documentElement.scrollWidth") == width
    wide = (
        "[...document.querySelectorAll('h1, h2, h3, h4, p, figure, fieldset, button, pre, .plot, .main-svg')]"
        ".filter(e => e.offsetParent !== null && e.getBoundingClientRect().right > arguments[0] + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert browser.run(f"return {wide}", width) == []
    if width < 500:  # the important numbers are in sight without scrolling sideways
        cells = "[...document.querySelectorAll('.results td')].every(e => e.getBoundingClientRect().right <= arguments[0])"
        assert browser.run(f"return {cells}", width)
        targets = "[...document.querySelectorAll('.controls label, #theme')].map(e => e.getBoundingClientRect().height)"
        assert min(browser.run(f"return {targets}")) >= 28  # large enough for a finger


def test_names_from_users_stay_text(browser: Browser, tmp_path: Path) -> None:
    evil = "<img src=x onerror='window.hacked = 1'></script><script>window.hacked = 1</script>"
    write_run(tmp_path / "a", task=evil, method="ppo", note=f"{evil}1")
    write_run(tmp_path / "b", task=evil, method="props", note=f"{evil}2")
    browser.console()
    show(browser, write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html"))
    assert browser.run("return window.hacked === undefined")
    assert browser.run("return document.querySelector('img') === null")
    assert browser.console() == []


def test_a_long_run_is_thinned(browser: Browser, tmp_path: Path) -> None:
    page = write_report([write_run(tmp_path / "run", rows=20_000, steps=10_000_000)], tmp_path / "page.html")
    show(browser, page)
    assert browser.run(f"return {CHART}.data[0].x.length") <= 500


@pytest.mark.parametrize("width", [1200, 390])
def test_rollouts(browser: Browser, tmp_path: Path, width: int) -> None:
    """Tokens change their colours with the radio buttons, by keyboard too, and nothing is wider than the page."""
    for update in (1, 2, 3):
        keep(tmp_path / "kept", update, [row(advantage=[-0.5, 0.5]), row(1)])
    directory = write_run(tmp_path / "run", method="grpo", task="chain-sum")
    (tmp_path / "kept" / "rollouts").rename(directory / "rollouts")
    section = rollouts_section(directory)
    assert section is not None
    page = write_report([directory], tmp_path / "page.html", sections=[section])
    browser.console()
    show(browser, page, width)
    colour = "getComputedStyle(document.querySelector('.rollouts .tokens span')).backgroundImage"
    seen = []
    for choice in browser.run("return [...document.querySelectorAll('.heat-controls input')].map(e => e.value)"):
        browser.run(f"document.querySelector('.heat-controls input[value={choice}]').click()")
        seen.append(browser.run(f"return {colour}"))
    assert len(seen) >= 3 and len(set(seen)) >= 2
    browser.run("document.querySelectorAll('.rollouts details').forEach(d => { d.open = true })")
    wide = "[...document.querySelectorAll('.rollouts article')].filter(e => e.getBoundingClientRect().right > arguments[0] + 1).length"
    assert browser.run(f"return {wide}", width) == 0
    assert browser.console() == []


@pytest.mark.parametrize("width", [1200, 390])
def test_a_study(browser: Browser, tmp_path: Path, width: int) -> None:
    run_study(study(), smoke=True, jobs=0, cells=tmp_path / "cells", output=tmp_path)
    browser.console()
    show(browser, write_report([tmp_path / "toy.json"], tmp_path / "page.html"), width)
    assert browser.run("return document.querySelector('.study .verdict').textContent") == "undecided"
    before = browser.run(f"return {CHART}.layout.xaxis.title.text")
    browser.run("document.querySelector('input[value=flops]').click()")
    browser.wait(f"{CHART}.layout.xaxis.title.text !== '{before}'")
    assert "FLOPs" in browser.run(f"return {CHART}.layout.xaxis.title.text")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.console() == []


def test_pictures(browser: Browser, page: Path, tmp_path: Path) -> None:
    """Pictures of both widths can be taken; look at them when the page changes."""
    for width in (1200, 390):
        show(browser, page, width)
        picture = browser.screenshot(tmp_path / f"{width}.png")
        assert picture.stat().st_size > 50_000
