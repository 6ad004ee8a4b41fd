"""One JupyterLab and one Chromium for all browser tests."""

import shutil
from pathlib import Path

import pytest

from tests.browser import driver

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="session")
def browser_context(tmp_path_factory):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'")
    if driver.CHROMIUM is None:
        pytest.skip("browser tests need Debian's chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        profile = tmp_path_factory.mktemp("profile")
        context = started.chromium.launch_persistent_context(
            str(profile), executable_path=driver.CHROMIUM, headless=True, args=driver.FLAGS, viewport={"width": 1280, "height": 900}
        )
        context.add_init_script(driver.EARS)
        yield context
        context.close()


@pytest.fixture(scope="session")
def lab(browser_context, tmp_path_factory):
    root = tmp_path_factory.mktemp("course")
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(notebook, root)
    shutil.copytree(NOTEBOOKS / "assets", root / "assets")
    started = driver.Lab(root, tmp_path_factory.mktemp("state"))
    yield started
    started.close()


@pytest.fixture
def open_page(browser_context, lab):
    pages = []

    def opened(name: str) -> driver.Page:
        pages.append(driver.Page(browser_context, lab, name))
        return pages[-1]

    yield opened
    for page in pages:
        page.page.close()
    for session in lab.api("/api/sessions"):
        lab.api(f"/api/sessions/{session['id']}", "DELETE")
