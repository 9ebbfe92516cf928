"""Every screen in a real browser on a real server: nothing breaks, nothing is asked of others, everybody can use it."""

import re

import pytest

from tests.console.test_bundle import FIRST_MAX, ROUTE_MAX

# Path, and what is there once the page has come.
SCREENS = {
    "home": ("/", "[data-figure=rows-gold]"),
    "flow": ("/flow", ".react-flow__node"),
    "flow-list": ("/flow?view=list", ".flow-list tbody tr"),
    "flow-node": ("/flow?node=silver.orders", ".flow-side"),
    "tables": ("/tables", ".catalog-table"),
    "preview": ("/tables/silver.orders", ".grid-row"),
    "preview-then": ("/tables/silver.orders?as_of=1&sort=amount.desc&where=country%3Deq.DE", ".grid-row"),
    "schema": ("/tables/silver.orders?tab=schema", ".column-name"),
    "versions": ("/tables/silver.orders?tab=versions", ".versions tbody tr"),
    "table-quality": ("/tables/silver.orders?tab=quality", ".rule-name"),
    "lineage": ("/tables/silver.orders?tab=lineage", ".react-flow__node"),
    "sql": ("/sql?q=select%20*%20from%20gold.revenue_by_country", ".sql-editor"),
    "quality": ("/quality", ".quality-link"),
    "quarantine": ("/quality/silver.orders", ".rule-name"),
    "dashboards": ("/dashboards", ".board"),
    "dashboard": ("/dashboards/shop", "[data-panel=Orders] .board-number"),
}
SERIOUS = ("serious", "critical")


def use(page, axe):
    """What keeps somebody from using a page, as axe-core says."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{one['id']}: {node['target']} {node.get('failureSummary', '')}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_whole_and_usable(watched, axe, name, theme):
    path, there = SCREENS[name]
    watched.page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    watched.open(path)
    watched.page.locator(there).first.wait_for()
    watched.page.locator(".waiting").first.wait_for(state="hidden")
    assert watched.page.locator("html").get_attribute("data-theme") == theme
    assert watched.page.locator("[role=alert]").all_inner_texts() == []
    assert use(watched.page, axe) == []
    assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    watched.check()


@pytest.mark.parametrize("name", ["home", "flow", "preview", "sql", "quarantine", "dashboard"])
def test_what_a_screen_loads_is_bounded(browser, site, name):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site.url}/#token={site.token}")
    page.locator(".sidebar").wait_for()
    context.close()
    context = browser.new_context()
    context.add_cookies([])
    page = context.new_page()
    sizes = {}
    page.on("requestfinished", lambda request: sizes.update({request.url: request.sizes()["responseBodySize"]}))
    path, there = SCREENS[name]
    page.goto(f"{site.url}{path}#token={site.token}")
    page.locator(there).first.wait_for()
    page.locator(".waiting").first.wait_for(state="hidden")
    loaded = sum(size for url, size in sizes.items() if "/assets/" in url or url.endswith(path))
    context.close()
    assert 50_000 < loaded <= (FIRST_MAX if name == "home" else ROUTE_MAX), sizes


def test_every_place_is_reached_by_keys_alone(watched):
    page = watched.page
    page.keyboard.press("Control+k")
    page.locator(".palette [role=option]", has_text="gold.revenue_by_country").first.wait_for()
    page.keyboard.type("revenue_by")
    page.keyboard.press("Enter")
    page.wait_for_url("**/tables/gold.revenue_by_country")
    page.locator(".grid-row").first.wait_for()
    page.get_by_role("tab", name="Preview").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/tables/gold.revenue_by_country?tab=schema")
    assert page.evaluate("document.activeElement.textContent").startswith("Schema")
    page.keyboard.press("Control+k")
    page.keyboard.press("Escape")
    assert page.locator(".palette").count() == 0
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.ariaLabel || ''"))
    assert {"Home", "Flow", "Tables", "SQL"} <= {re.sub(r"\d+$", "", text) for text in seen}


def test_dark_and_light_stay_as_chosen(watched):
    page = watched.page
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Dark colours").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    page.locator(".sidebar").wait_for()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.get_by_role("button", name="Light colours").click()
    page.emulate_media(color_scheme="dark")
    page.locator("html[data-theme=dark]").wait_for()  # light was the system's choice, and so is dark now


def test_what_is_not_there_says_so(watched):
    watched.open("/nowhere")
    watched.page.get_by_text("There is nothing at this address").wait_for()
    watched.check()
    watched.open("/tables/gold.nothing")
    watched.page.get_by_role("alert").first.wait_for()
    watched.errors = [error for error in watched.errors if "404" not in error]


def test_a_paused_page_stands_still_and_goes_on(watched, site):
    page = watched.page
    page.get_by_role("button", name="Pause live updates").click()
    page.locator(".live-paused").wait_for()
    shown = page.locator("[data-rows='silver.orders']").inner_text()
    site.send(20)
    site.wait(lambda: site.table("silver.orders")["rows"] > int(shown.replace(",", "")), "they are in silver")
    page.wait_for_timeout(1500)
    assert page.locator("[data-rows='silver.orders']").inner_text() == shown
    page.get_by_role("button", name="Go on with live updates").click()
    site.wait(lambda: page.locator("[data-rows='silver.orders']").inner_text() != shown, "the page has moved on")


def test_a_page_has_one_stream_and_takes_it_up_again(watched):
    page = watched.page
    asked = []
    page.on("request", lambda request: asked.append(request) if request.url.endswith("/api/live") else None)
    for place in ("Flow", "Tables", "Quality", "Home"):
        page.get_by_role("link", name=re.compile(f"^{place}")).first.click()
    assert asked == []
    page.get_by_role("button", name="Pause live updates").click()
    page.get_by_role("button", name="Go on with live updates").click()
    page.locator(".live-live").wait_for()
    (again,) = asked
    assert again.headers.get("last-event-id")
